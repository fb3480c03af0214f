"""Whether the device computes what the CPU does, whoever made the arrays, and touches no memory that is not its own."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib import util
from typing import Any

import numpy as np

import nlosses as nl

from ._cuda_row import Row, failed

BOUNDS = {"float32": 1e-6, "float64": 4e-15}
#: Shapes below, at and above what a thread, a warp and a block take.
CLASSES = (
    1, 3, 10, 16, 17, 32, 33, 64, 65, 100, 128, 129, 256, 257, 512, 513, 1000, 1001, 1024, 1025, 2048, 4096, 8192, 8193, 16384,
    16385, 32001, 50257,
)  # fmt: skip
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
    got, want = host(result).astype(np.float64), np.asarray(expected, np.float64)
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
    except Exception as error:
        return failed("correct", str(case), error)


def correctness() -> Iterator[Row]:
    """In several processes, since most of the time goes into compiling kernels."""
    with ProcessPoolExecutor(jobs(), multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(checked, cases())


def jobs() -> int:
    return max(1, min(14, (os.cpu_count() or 1) - 1))


def verification() -> Iterator[Row]:
    """Every loss, derivative and option against the CPU, by the gradient checker."""
    command = ["gradcheck", "nlosses._verification:suite", "--device", "cuda", "-j", str(jobs()), "--no-progress"]
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, timeout=300)
    last = done.stdout.strip().splitlines()[-1:] or ["no output"]
    yield Row("verified", "python -m gradcheck nlosses --device cuda", last[0], done.returncode == 0)


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
            yield failed("library", name, error)
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


def memory_checker() -> Iterator[Row]:
    program = shutil.which("compute-sanitizer")
    if program is None:
        yield Row("memory", "compute-sanitizer", "not installed")
        return
    code = (
        "import numpy as np, nlosses as nl; from numba import cuda; d = cuda.to_device; r = np.random.default_rng(0)\n"
        "for s in ((9, 3), (200, 10), (9, 20), (9, 131), (2, 1001), (2, 5000), (2, 30001), (2, 33, 7)):\n"
        "    for T in (np.float32, np.float64):\n"
        "        nl.cross_entropy.value_and_grad(d(r.normal(size=s).astype(T)), d(r.integers(0, s[1], s[:1] + s[2:])))\n"
        "nl.mse_loss.value_and_grad(d(r.normal(size=4097)), d(r.normal(size=4097)))\n"
    )
    for tool in ("memcheck", "racecheck"):
        command = [program, "--tool", tool, "--error-exitcode", "9", sys.executable, "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        last = done.stdout.strip().splitlines()[-1:] or ["no output"]
        yield Row("memory", tool, last[0], done.returncode == 0)
