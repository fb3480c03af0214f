"""All that needs a GPU, in one command of under ten minutes: ``python -m benchmarks.cuda``.

Correctness on the device, the same bits twice, bad class indices, ceilings of the memory, speed against torch where that is
installed, the cost of a launch, and a memory checker.  One JSON and one readable table go to ``benchmarks/results``.  Without
a GPU it ends with status 2 and a line that says so; `benchmarks.cuda_code` looks at the kernels without one.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np

import nlosses as nl

from . import cuda_code

RESULTS = Path(__file__).parent / "results"
L2 = 60 << 20  # bytes of the second-level cache of an H200; buffers that are used in turn exceed it four times
BOUNDS = {"float32": 1e-6, "float64": 4e-15}


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    part: str
    case: str
    outcome: str
    good: bool | None = None
    seconds: float | None = None
    bytes_per_second: float | None = None
    of_copy: float | None = None


def missing() -> str | None:
    """What keeps this from running, if anything."""
    if util.find_spec("numba_cuda") is None:
        return "numba-cuda is not installed: pip install -e '.[cuda]'"
    from numba import config, cuda

    if config.ENABLE_CUDASIM:
        return "the simulator is on, which times nothing: unset NUMBA_ENABLE_CUDASIM"
    return None if cuda.is_available() else "no CUDA device or no driver was found"


# --- correctness ----------------------------------------------------------------------------------------------------------

#: Shapes below, at and above what a thread, a warp and a block take.
CLASSES = (1, 3, 10, 31, 32, 33, 100, 128, 129, 1000, 1024, 1025, 2048, 4096, 8192, 16384, 16385, 50257)
INNER = ((2, 3, 40), (2, 21, 64, 64), (2, 33, 100), (1, 150, 300))
LENGTHS = (1, 3, 255, 2047, 2048, 2049, 1_000_003)


@dataclass(frozen=True)
class Case:
    """A loss, a shape and options, whose results on the device are compared with those of the CPU."""

    loss: str
    shape: tuple[int, ...]
    dtype: str
    options: str = ""  #: any of weight, smoothing, probabilities

    def __str__(self) -> str:
        return ", ".join(filter(None, (self.loss, str(self.shape), self.options, self.dtype)))


def cases() -> list[Case]:
    """The largest first, so that no process is left alone with one of them."""
    found = []
    for dtype in BOUNDS:
        elementwise = [name for name, loss in nl.LOSSES.items() if loss.spec.family == "elementwise"]
        found += [Case(name, (n,), dtype) for name in elementwise for n in LENGTHS]
        shapes = [(37, c) for c in CLASSES] + list(INNER)
        found += [Case("cross_entropy", s, dtype, o) for s in shapes for o in ("", "weight, smoothing", "probabilities")]
        found += [Case("nll_loss", (37, 1000), dtype)]
    return sorted(found, key=lambda case: -np.prod(case.shape))


def arguments(case: Case, rng: np.random.Generator) -> tuple[list[np.ndarray], dict[str, Any]]:
    shape, dtype = case.shape, case.dtype
    if nl.LOSSES[case.loss].spec.family == "elementwise":
        return [rng.uniform(0.05, 0.95, shape).astype(dtype) for _ in range(2)], {"reduction": "mean"}
    x = rng.normal(size=shape, scale=4).astype(dtype)
    if case.options == "probabilities":
        p = np.abs(x) / np.abs(x).sum(1, keepdims=True)
        return [x, p.astype(dtype)], {}
    t = rng.integers(0, shape[1], shape[:1] + shape[2:])
    t.flat[0] = -100
    options = {"weight": rng.uniform(0.5, 2, shape[1]).astype(dtype), "label_smoothing": 0.1} if case.options else {}
    return [x, t], options


def host(result: Any) -> np.ndarray:
    return np.asarray(result.copy_to_host() if hasattr(result, "copy_to_host") else result)


def differs(result: Any, expected: Any) -> float:
    """Largest difference, relative to the largest element; infinite where special values differ."""
    got, want = host(result), np.asarray(expected)
    finite = np.isfinite(want)
    if got.shape != want.shape or not np.array_equal(got[~finite], want[~finite], equal_nan=True):
        return float("inf")
    return float(np.abs(got[finite] - want[finite]).max(initial=0) / max(np.abs(want[finite]).max(initial=0), 1e-300))


def compared(case: Case) -> Row:
    """A call on the device, twice, against the CPU in float64."""
    from numba import cuda

    arrays, options = arguments(case, np.random.default_rng(len(str(case)) + sum(case.shape)))
    call = nl.LOSSES[case.loss].value_and_grad
    wide = [a.astype(np.float64) if a.dtype.kind == "f" else a for a in arrays]
    expected = call(*wide, **{k: v.astype(np.float64) if isinstance(v, np.ndarray) else v for k, v in options.items()})
    device = [cuda.to_device(a) for a in arrays]
    moved = {k: cuda.to_device(v) if isinstance(v, np.ndarray) else v for k, v in options.items()}
    first = call(*device, **moved, out=cuda.to_device(np.full_like(arrays[0], np.nan)))
    again = call(*device, **moved)
    error = max(differs(a, b) for a, b in zip(first, expected, strict=True))
    same = all(differs(a, host(b)) == 0 for a, b in zip(first, again, strict=True))
    good = error <= BOUNDS[case.dtype] and same
    return Row("correct", str(case), f"off by {error:.1e}{'' if same else ', other bits the second time'}", good)


def checked(case: Case) -> Row:
    try:
        return compared(case)
    except Exception as error:  # the other cases are worth knowing too
        return Row("correct", str(case), f"{type(error).__name__}: {error}"[:300], False)


def correctness() -> Iterator[Row]:
    """In several processes, since most of the time goes into compiling kernels."""
    jobs = max(1, min(12, (os.cpu_count() or 1) - 1))
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(checked, cases())


def bad_targets() -> Iterator[Row]:
    """An index out of range must raise, and leave the device able to work."""
    from numba import cuda

    rng = np.random.default_rng(1)
    for classes in (3, 100, 5000, 50257):
        x = cuda.to_device(rng.normal(size=(20, classes)).astype(np.float32))
        for bad in (-1, classes, 2**40):
            t = np.zeros(20, np.int64)
            t[7] = bad
            try:
                nl.cross_entropy.grad(x, cuda.to_device(t))
                outcome = "no error"
            except IndexError as error:
                outcome = "IndexError" if f"target[7] = {bad}" in str(error) else str(error)
            value = nl.cross_entropy(x, cuda.to_device(0 * t))
            good = outcome == "IndexError" and bool(np.isfinite(value))
            yield Row("bad index", f"{bad} of {classes}", outcome, good)


def libraries() -> Iterator[Row]:
    """Arrays of other libraries: where they come from is where results go, on the stream that is current there."""
    rng = np.random.default_rng(2)
    x, t = rng.normal(size=(64, 1000)).astype(np.float32), rng.integers(0, 1000, 64)
    expected = nl.cross_entropy.value_and_grad(x.astype(np.float64), t)
    for name, there in FROM_HOST.items():
        if util.find_spec(name) is None:
            yield Row("library", name, "not installed")
            continue
        try:
            a, b = there(x), there(t)
            value, grad = nl.cross_entropy.value_and_grad(a, b)
            back = np.asarray(grad.cpu() if name == "torch" else grad.get() if name == "cupy" else grad)
            error = max(differs(value, expected[0]), differs(back, expected[1]))
            good = type(grad) is type(a) and error <= BOUNDS["float32"]
            yield Row("library", name, f"{type(grad).__name__}, off by {error:.1e}", good)
        except Exception as error:
            yield Row("library", name, f"{type(error).__name__}: {error}"[:300], False)
    if util.find_spec("torch") is not None:
        yield from of_torch(x, t, expected)


def _to_torch(a: np.ndarray) -> Any:
    import torch

    return torch.as_tensor(a, device="cuda")


def _to_cupy(a: np.ndarray) -> Any:
    import cupy

    return cupy.asarray(a)


def _to_jax(a: np.ndarray) -> Any:
    import jax

    return jax.device_put(a.astype(np.int32) if a.dtype == np.int64 else a)


FROM_HOST = {"torch": _to_torch, "cupy": _to_cupy, "jax": _to_jax}


def of_torch(x: np.ndarray, t: np.ndarray, expected: Any) -> Iterator[Row]:
    """Streams, narrow types and `out`, with torch's tensors."""
    import torch

    a, b = _to_torch(x), _to_torch(t)
    stream = torch.cuda.Stream()
    worst = 0.0
    for k in range(20):  # work that is still under way on the stream, before and after
        with torch.cuda.stream(stream):
            late = a * float(1 << (k % 3))
            for _ in range(20):
                late = late * 2 / 2
            grad = nl.cross_entropy.grad(late / float(1 << (k % 3)), b)
            total = (grad * 1.0).cpu()
        worst = max(worst, differs(total.numpy(), expected[1]))
    yield Row("library", "torch, a stream of its own", f"off by {worst:.1e}", worst <= BOUNDS["float32"])
    out = torch.full_like(a, float("nan"))
    _, grad = nl.cross_entropy.value_and_grad(a, b, out=out)
    error = differs(out.cpu().numpy(), expected[1])
    yield Row("library", "torch, out=", f"off by {error:.1e}", grad is out and error <= BOUNDS["float32"])
    for dtype in (torch.float16, torch.bfloat16):
        narrow = a.to(dtype)
        want = nl.cross_entropy.grad(narrow.double().cpu().numpy(), t)
        got = nl.cross_entropy.grad(narrow, b)
        near = torch.as_tensor(want).to(dtype)
        error = differs(got.double().cpu().numpy(), near.double().numpy())
        eps = torch.finfo(dtype).eps
        yield Row("library", f"torch, {dtype}", f"{got.dtype}, off by {error:.1e}", got.dtype == dtype and error <= eps)


# --- speed ----------------------------------------------------------------------------------------------------------------


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
    return rate, Row("ceiling", "copy of 2^28 float32", f"{rate / 1e12:.2f} TB/s", None, seconds, rate, 1.0)


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

    case: str
    loss: str
    shape: tuple[int, ...]
    arrays: int
    dtype: str = "float32"

    @property
    def labelled(self) -> bool:
        return self.arrays == 2

    @property
    def nbytes(self) -> int:
        """Moved at the least: a class index is eight bytes."""
        n = int(np.prod(self.shape))
        return self.arrays * n * np.dtype(self.dtype).itemsize + (8 * n // self.shape[1] if self.labelled else 0)


def workloads() -> Iterator[Work]:
    ce, kl = "cross_entropy", "kl_div"
    for dtype, most in (("float32", 28), ("float64", 27)):
        for loss in ("binary_cross_entropy_with_logits", "binary_cross_entropy", "mse_loss", kl):
            yield Work(f"{loss}, 2^{most}", loss, (1 << most,), 3, dtype)
    for shape in [(1 << 22, 10), (1 << 20, 32)] + [(32768, c) for c in (128, 1000, 4096, 8192, 32768)]:
        yield Work(f"{ce}, {shape[0]} x {shape[1]}", ce, shape, 2)
    for shape in ((8192, 50257), (8192, 50304), (8192, 128256)):
        yield Work(f"{ce}, {shape[0]} x {shape[1]}", ce, shape, 2)
    yield Work(f"{ce}, 16 x 21 x 512 x 512", ce, (16, 21, 512, 512), 2)
    yield Work(f"{ce}, 32768 x 1000, float64", ce, (32768, 1000), 2, "float64")


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


def speed(rate: float, compiled: bool) -> Iterator[Row]:
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
        yield Row("speed", f"{work.case}, nlosses", f"{seconds * 1e3:.3f} ms", None, seconds, moved, moved / rate)
        if torch is None:
            yield Row("speed", f"{work.case}, torch", "not installed, or without CUDA")
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
    if compiled:
        torch._dynamo.reset()
        peers["torch.compile"] = torch.compile(function)
    for label, chosen in peers.items():
        try:
            taken = seconds_of([lambda p=p, f=chosen: step(*p, f) for p in tensors])
        except Exception as error:  # out of memory, or no compiler for it: the others can still be timed
            yield Row("speed", f"{work.case}, {label}", f"failed: {type(error).__name__}")
            continue
        outcome = f"{taken * 1e3:.3f} ms, {taken / seconds:.2f} x nlosses"
        yield Row("speed", f"{work.case}, {label}", outcome, seconds <= taken, taken)


def launches() -> Iterator[Row]:
    """Host time of a call: without the wait for the device, and with it where a value is fetched."""
    from numba import cuda

    @cuda.jit
    def nothing(x):
        pass

    x = cuda.to_device(np.zeros(1024, np.float32))
    logits, labels = cuda.to_device(np.zeros((32, 32), np.float32)), cuda.to_device(np.zeros(32, np.int64))
    nothing[1, 32](x)
    calls: dict[str, Callable[[], Any]] = {
        "an empty kernel of one array": lambda: nothing[1, 32](x),
        "mse_loss.grad of 1024": lambda: nl.mse_loss.grad(x, x),
        "mse_loss.grad of 1024, out=": lambda: nl.mse_loss.grad(x, x, out=x),
        "mse_loss.value_and_grad of 1024, fetched": lambda: nl.mse_loss.value_and_grad(x, x),
        "mse_loss.value_and_grad of 1024, fetched, out=": lambda: nl.mse_loss.value_and_grad(x, x, out=x),
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


def memory_checker() -> Iterator[Row]:
    program = shutil.which("compute-sanitizer")
    if program is None:
        yield Row("memory", "compute-sanitizer", "not installed")
        return
    code = (
        "import numpy as np, nlosses as nl; from numba import cuda; d = cuda.to_device; r = np.random.default_rng(0)\n"
        "for s in ((9, 3), (9, 131), (2, 5000), (2, 33, 7)):\n"
        "    nl.cross_entropy.value_and_grad(d(r.normal(size=s)), d(r.integers(0, s[1], s[:1] + s[2:])))\n"
        "nl.mse_loss.value_and_grad(d(r.normal(size=4097)), d(r.normal(size=4097)))\n"
    )
    for tool in ("memcheck", "racecheck"):
        command = [program, "--tool", tool, "--error-exitcode", "9", sys.executable, "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        last = done.stdout.strip().splitlines()[-1:] or ["no output"]
        yield Row("memory", tool, last[0], done.returncode == 0)


# --- all of it --------------------------------------------------------------------------------------------------------------


def facts() -> dict[str, Any]:
    from numba import cuda

    device = cuda.get_current_device()
    return {
        "device": device.name.decode() if isinstance(device.name, bytes) else device.name,
        "compute_capability": list(device.compute_capability), "date": time.strftime("%Y-%m-%d"),
        "python": platform.python_version(), "versions": cuda_code.versions(), "nlosses": nl.__version__,
    }  # fmt: skip


def table(rows: list[Row]) -> str:
    lines = ["| part | case | outcome | of the copy rate | good |", "|---|---|---|---|---|"]
    for row in rows:
        share = "" if row.of_copy is None else f"{100 * row.of_copy:.0f} %"
        lines.append(
            f"| {row.part} | {row.case} | {row.outcome} | {share} | {'' if row.good is None else 'yes' if row.good else 'NO'} |"
        )
    return "\n".join(lines)


def rows_of(parts: list[str], compiled: bool) -> Iterator[Row]:
    for part in parts:
        try:
            if part == "speed":
                rate, row = copy_rate()
                yield row
                yield from speed(rate, compiled)
            else:
                yield from PARTS[part]()
        except Exception as error:  # the other parts are worth knowing too, on a machine that is only lent
            yield Row(part, "all of it", f"{type(error).__name__}: {error}"[:300], False)


PARTS: dict[str, Callable[..., Iterator[Row]]] = {
    "correct": correctness, "index": bad_targets, "library": libraries, "speed": speed, "launch": launches,
    "memory": memory_checker,
}  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cuda", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for cuda.json and cuda.md")
    parser.add_argument("--part", action="append", choices=PARTS, help="only this part; may be repeated")
    parser.add_argument("--no-compile", action="store_true", help="leave out torch.compile, which takes minutes")
    options = parser.parse_args(arguments)
    reason = missing()
    if reason:
        print(f"benchmarks.cuda needs a GPU: {reason}", file=sys.stderr)
        return 2
    rows: list[Row] = []
    start = time.perf_counter()
    for row in rows_of(options.part or list(PARTS), not options.no_compile):
        rows.append(row)
        mark = "" if row.good in (None, True) else "  <--"
        print(f"{time.perf_counter() - start:6.1f} s", row.part, row.case, row.outcome, mark, sep="  ", file=sys.stderr)
    known = facts()
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "cuda.json").write_text(json.dumps({**known, "rows": [asdict(r) for r in rows]}, indent=1) + "\n")
    head = f"# On the GPU\n\n{known['device']}, {known['date']}.\n\n"
    (options.out / "cuda.md").write_text(head + table(rows) + "\n")
    print(table(rows))
    return 1 if any(row.good is False for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
