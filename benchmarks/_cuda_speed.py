"""How fast the device is: beside torch, beside a copy, and for small arrays, where the host decides."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import util
from typing import Any

import numpy as np

import nlosses as nl

from ._cuda_row import Row

L2 = 60 << 20  # bytes of the second-level cache of an H200; buffers that are used in turn exceed it four times


def seconds_of(calls: list[Callable[[], Any]], runs: int = 30) -> float:
    """Median time of a call between two events, each call on other memory than the one before."""
    from numba import cuda

    for call in calls[:5]:
        call()
    times = []
    for k in range(runs):
        start, end = cuda.event(), cuda.event()
        start.record()
        calls[k % len(calls)]()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1e3)
    return statistics.median(times)


def sets(nbytes: int) -> int:
    """How many buffers it takes to be out of the cache each time."""
    return max(3, -(-4 * L2 // max(nbytes, 1)))


def copy_rate() -> tuple[float, Row]:
    from numba import cuda

    n = 1 << 28
    pairs = [(cuda.device_array(n, np.float32), cuda.device_array(n, np.float32)) for _ in range(3)]
    calls = [lambda a=a, b=b: b.copy_to_device(a) for a, b in pairs]
    seconds = seconds_of(calls)
    rate = 8 * n / seconds
    return rate, Row("ceiling", "copy of 2^28 float32", f"{rate / 1e12:.2f} TB/s", None, seconds, 1.0)


def filled(pool: np.ndarray, shape: tuple[int, ...]) -> Any:
    """An array on the device that repeats the elements of `pool`, from one and the same place on."""
    from numba import cuda

    n, some = int(np.prod(shape)), cuda.to_device(pool)
    array = cuda.device_array(n, pool.dtype)
    for k in range(0, n, pool.size):
        array[k : k + pool.size].copy_to_device(some[: min(pool.size, n - k)])
    cuda.synchronize()
    return array.reshape(shape)


@dataclass(frozen=True)
class Work:
    """What is timed: a loss, a shape, and how many arrays as large as the input are read or written."""

    loss: str
    shape: tuple[int, ...]
    arrays: int
    dtype: str = "float32"

    def __str__(self) -> str:
        return f"{self.loss}, {' x '.join(map(str, self.shape))}, {self.dtype}"

    @property
    def labelled(self) -> bool:
        return self.arrays == 2

    @property
    def nbytes(self) -> int:
        """Moved at the least: a class index is eight bytes."""
        n = int(np.prod(self.shape))
        return self.arrays * n * np.dtype(self.dtype).itemsize + (8 * n // self.shape[1] if self.labelled else 0)


def workloads() -> Iterator[Work]:
    """Large enough that the host's part of a call is small beside them."""
    ce, kl = "cross_entropy", "kl_div"
    for dtype, most in (("float32", 28), ("float64", 27)):
        for loss in ("binary_cross_entropy_with_logits", "binary_cross_entropy", "mse_loss", kl):
            yield Work(loss, (1 << most,), 3, dtype)
    for shape in (
        (1 << 24, 10), (1 << 23, 32), (1 << 21, 128), (1 << 18, 1000), (1 << 18, 1001), (1 << 16, 4096), (1 << 15, 8192),
        (8192, 32768), (8192, 50257), (8192, 50304), (4096, 128256), (64, 21, 512, 512), (32768, 100),
    ):  # fmt: skip
        yield Work(ce, shape, 2)
    yield Work(ce, (1 << 24, 10), 2, "float64")
    yield Work(ce, (1 << 17, 1000), 2, "float64")


#: What `torch.compile` is tried on: it takes some seconds for each.
COMPILED = [
    work for work in workloads()
    if work.dtype == "float32" and (work.arrays == 3 or work.shape[1] in (10, 21, 1000, 8192, 50257, 128256))
]  # fmt: skip


def inputs_of(work: Work, rng: np.random.Generator) -> list[tuple[Any, Any, Any]]:
    """Input, target and `out`, as many times as it takes."""
    from numba import cuda

    shape, n = work.shape, int(np.prod(work.shape))
    x = rng.normal(size=min(n, 1 << 22)).astype(work.dtype)
    if work.labelled:
        t = rng.integers(0, shape[1], min(n // shape[1], 1 << 20))
    else:
        t = np.abs(x) % 1
        x = t[::-1].copy() if work.loss == "binary_cross_entropy" else x
    copies = min(sets(work.nbytes), max(1, (30 << 30) // work.nbytes))
    label_shape = shape[:1] + shape[2:] if work.labelled else shape
    return [(filled(x, shape), filled(t, label_shape), cuda.device_array(shape, np.dtype(work.dtype))) for _ in range(copies)]


def speed(compiled: bool) -> Iterator[Row]:
    """Each call as a caller makes it, from the host's first step to the value in its hands."""
    rate, row = copy_rate()
    yield row
    torch: Any = None
    if util.find_spec("torch") is not None:
        import torch

        torch = torch if torch.cuda.is_available() else None
    rng = np.random.default_rng(3)
    for work in workloads():
        inputs = inputs_of(work, rng)
        call = nl.LOSSES[work.loss].value_and_grad
        seconds = seconds_of([lambda i=i, call=call: call(i[0], i[1], out=i[2]) for i in inputs])
        moved = work.nbytes / seconds
        yield Row("speed", str(work), f"{seconds * 1e3:.3f} ms", None, seconds, moved / rate)
        if torch is None:
            yield Row("speed", str(work), "not installed, or without CUDA", contender="torch")
            continue
        yield from beside_torch(torch, work, inputs, seconds, compiled)
        del inputs
        torch.cuda.empty_cache()


def beside_torch(torch: Any, work: Work, inputs: Any, seconds: float, compiled: bool) -> Iterator[Row]:
    function = getattr(torch.nn.functional, work.loss)

    def step(x: Any, t: Any, chosen: Any) -> Any:
        leaf = x.detach().requires_grad_()
        value = chosen(leaf, t)
        value.backward()
        return value.item(), leaf.grad  # nlosses gives a number as well

    tensors = [(torch.as_tensor(a, device="cuda"), torch.as_tensor(b, device="cuda")) for a, b, _ in inputs]
    peers = {"torch eager": function}
    if compiled and work in COMPILED:
        torch._dynamo.reset()
        peers["torch.compile"] = torch.compile(function)
    for label, chosen in peers.items():
        try:
            taken = seconds_of([lambda p=p, f=chosen: step(*p, f) for p in tensors])
        except Exception as error:  # out of memory, or no compiler for it: the others can still be timed
            yield Row("speed", str(work), f"failed: {type(error).__name__}", contender=label)
            continue
        outcome = f"{taken * 1e3:.3f} ms, {taken / seconds:.2f} x nlosses"
        yield Row("speed", str(work), outcome, seconds <= taken, taken, contender=label)


def launches() -> Iterator[Row]:
    """Host time of a call: without the wait for the device, and with it where a value is fetched."""
    from numba import cuda

    @cuda.jit
    def nothing(x):
        pass

    x, y, out = (cuda.to_device(np.zeros(1024, np.float32)) for _ in range(3))
    logits, labels = cuda.to_device(np.zeros((32, 32), np.float32)), cuda.to_device(np.zeros(32, np.int64))
    nothing[1, 32](x)
    calls: dict[str, Callable[[], Any]] = {
        "an empty kernel of one array": lambda: nothing[1, 32](x),
        "mse_loss.grad of 1024": lambda: nl.mse_loss.grad(x, y),
        "mse_loss.grad of 1024, out=": lambda: nl.mse_loss.grad(x, y, out=out),
        "mse_loss.grad of 1024, out= is input and target": lambda: nl.mse_loss.grad(x, x, out=x),
        "mse_loss.value_and_grad of 1024, fetched": lambda: nl.mse_loss.value_and_grad(x, y),
        "mse_loss.value_and_grad of 1024, fetched, out=": lambda: nl.mse_loss.value_and_grad(x, y, out=out),
        "cross_entropy.value_and_grad of 32 x 32, fetched": lambda: nl.cross_entropy.value_and_grad(logits, labels),
    }
    if util.find_spec("torch") is not None:
        import torch

        a, t = torch.zeros(1024, device="cuda"), torch.zeros(1024, device="cuda")

        def step() -> Any:
            leaf = a.detach().requires_grad_()
            value = torch.nn.functional.mse_loss(leaf, t)
            value.backward()
            return value.item(), leaf.grad

        calls["mse_loss.grad of 1024, torch's tensors"] = lambda: nl.mse_loss.grad(a, t)
        calls["mse_loss.value_and_grad of 1024, fetched, torch's tensors"] = lambda: nl.mse_loss.value_and_grad(a, t)
        calls["the same by torch itself"] = step
    for case, call in calls.items():
        for _ in range(20):
            call()
        cuda.synchronize()
        start = time.perf_counter()
        for _ in range(500):
            call()
        taken = (time.perf_counter() - start) / 500
        cuda.synchronize()
        yield Row("launch", case, f"{taken * 1e6:.1f} us", None, taken)
