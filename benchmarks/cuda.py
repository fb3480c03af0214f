"""All that needs a GPU, in one command of under ten minutes: ``python -m benchmarks.cuda``.

Correctness on the device, the same bits twice, bad class indices, ceilings of the memory, speed against torch where that is
installed, the cost of a launch, and a memory checker.  One JSON and one readable table go to ``benchmarks/results``.  Without
a GPU it ends with status 2 and a line that says so; `benchmarks.cuda_code` looks at the kernels without one.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
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


def differs(result: Any, expected: Any) -> float:
    """Largest difference, relative to the largest element; infinite where special values differ."""
    got, want = np.asarray(result.copy_to_host() if hasattr(result, "copy_to_host") else result), np.asarray(expected)
    finite = np.isfinite(want)
    if got.shape != want.shape or not np.array_equal(got[~finite], want[~finite], equal_nan=True):
        return float("inf")
    return float(np.abs(got[finite] - want[finite]).max(initial=0) / max(np.abs(want[finite]).max(initial=0), 1e-300))


def compared(case: str, call: Callable[..., Any], arrays: list[np.ndarray], dtype: str, **options: Any) -> Row:
    """A call on the device, twice, against the CPU."""
    from numba import cuda

    expected = call(*arrays, **options)
    device = [cuda.to_device(a) for a in arrays]
    moved = {k: cuda.to_device(v) if isinstance(v, np.ndarray) else v for k, v in options.items()}
    first = call(*device, **moved, out=cuda.to_device(np.full_like(arrays[0], np.nan)))
    again = call(*device, **moved)
    error = max(differs(a, b) for a, b in zip(first, expected, strict=True))
    same = all(
        differs(a, b.copy_to_host() if hasattr(b, "copy_to_host") else b) == 0 for a, b in zip(first, again, strict=True)
    )
    good = error <= BOUNDS[dtype] and same
    return Row("correct", f"{case}, {dtype}", f"off by {error:.1e}{'' if same else ', other bits the second time'}", good)


def correctness(rng: np.random.Generator) -> Iterator[Row]:
    for dtype in BOUNDS:
        for name, loss in nl.LOSSES.items():
            spec = loss.spec
            if spec.family != "elementwise":
                continue
            for n in LENGTHS:
                x, t = (rng.uniform(0.05, 0.95, n).astype(dtype) for _ in range(2))
                yield compared(f"{name}, {n}", loss.value_and_grad, [x, t], dtype, reduction="mean")
        for shape in [(37, c) for c in CLASSES] + list(INNER):
            x = rng.normal(size=shape, scale=4).astype(dtype)
            t = rng.integers(0, shape[1], shape[:1] + shape[2:])
            t.flat[0] = -100
            weight = rng.uniform(0.5, 2, shape[1]).astype(dtype)
            plain = nl.cross_entropy.value_and_grad
            yield compared(f"cross_entropy, {shape}", plain, [x, t], dtype)
            yield compared(
                f"cross_entropy, {shape}, weight, smoothing", plain, [x, t], dtype, weight=weight, label_smoothing=0.1
            )
            p = np.abs(x) / np.abs(x).sum(1, keepdims=True)
            yield compared(f"cross_entropy, {shape}, probabilities", plain, [x, p.astype(dtype)], dtype)
        yield compared(
            "nll_loss, (37, 1000)",
            nl.nll_loss.value_and_grad,
            [rng.normal(size=(37, 1000)).astype(dtype), rng.integers(0, 1000, 37)],
            dtype,
        )


def bad_targets(rng: np.random.Generator) -> Iterator[Row]:
    """An index out of range must raise, and leave the device able to work."""
    from numba import cuda

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


def workloads(rng: np.random.Generator) -> Iterator[tuple[str, Any, Any, tuple[int, ...], bool, int]]:
    """What is timed: name, loss, name in torch, shape, whether the target holds class indices, bytes per element."""
    bce, ce, kl = "binary_cross_entropy_with_logits", "cross_entropy", "kl_div"
    yield "BCE with logits, 2^28", nl.LOSSES[bce], bce, (1 << 28,), False, 12
    for shape in [(32768, c) for c in (10, 128, 1000, 4096, 8192, 32768)] + [(8192, 50304), (8192, 128256)]:
        yield f"cross entropy, {shape[0]} x {shape[1]}", nl.LOSSES[ce], ce, shape, True, 8
    yield "cross entropy, 16 x 21 x 512 x 512", nl.LOSSES[ce], ce, (16, 21, 512, 512), True, 8
    yield "KL divergence, 8192 x 131072", nl.LOSSES[kl], kl, (8192, 131072), False, 12


def speed(rate: float, rng: np.random.Generator) -> Iterator[Row]:
    from numba import cuda

    torch: Any = None
    if util.find_spec("torch") is not None:
        import torch

        torch = torch if torch.cuda.is_available() else None
    pool = rng.normal(size=1 << 22).astype(np.float32)
    for case, loss, name, shape, labelled, per_element in workloads(rng):
        n = int(np.prod(shape))
        copies = min(sets(8 * n), max(1, (60 << 30) // (12 * n)))
        inputs = []
        for _ in range(copies):
            x = np.resize(pool, shape)
            t = rng.integers(0, shape[1], shape[:1] + shape[2:]) if labelled else np.abs(x) % 1
            inputs.append((cuda.to_device(x), cuda.to_device(t), cuda.to_device(np.empty(shape, np.float32))))
        seconds = seconds_of([lambda i=i, loss=loss: loss.value_and_grad(i[0], i[1], out=i[2]) for i in inputs])
        moved = per_element * n / seconds
        yield Row("speed", f"{case}, nlosses", f"{seconds * 1e3:.3f} ms", None, seconds, moved, moved / rate)
        if torch is None:
            yield Row("speed", f"{case}, torch", "not installed, or without CUDA")
            continue
        function = getattr(torch.nn.functional, name)

        def step(x: Any, t: Any, function: Any = function) -> Any:
            leaf = x.detach().requires_grad_()
            function(leaf, t).backward()
            return leaf.grad

        tensors = [(torch.as_tensor(a, device="cuda"), torch.as_tensor(b, device="cuda")) for a, b, _ in inputs]
        compiled = torch.compile(function)
        for label, chosen in (("torch eager", function), ("torch.compile", compiled)):
            try:
                taken = seconds_of([lambda p=p, f=chosen: step(*p, f) for p in tensors])
            except Exception as error:  # out of memory, or no compiler for it: the others can still be timed
                yield Row("speed", f"{case}, {label}", f"failed: {type(error).__name__}")
                continue
            good = None if label == "torch eager" else seconds <= taken
            yield Row("speed", f"{case}, {label}", f"{taken * 1e3:.3f} ms, {taken / seconds:.2f} x nlosses", good, taken)


def launches() -> Iterator[Row]:
    from numba import cuda

    @cuda.jit
    def nothing(x):
        pass

    x = cuda.to_device(np.zeros(1024, np.float32))
    nothing[1, 32](x)
    for case, call in (
        ("an empty kernel of one array", lambda: nothing[1, 32](x)),
        ("mse_loss.grad of 1024", lambda: nl.mse_loss.grad(x, x)),
        ("mse_loss.value_and_grad of 1024, fetched", lambda: nl.mse_loss.value_and_grad(x, x)),
    ):
        call()
        cuda.synchronize()
        start = time.perf_counter()
        for _ in range(2000):
            call()
        host = (time.perf_counter() - start) / 2000
        cuda.synchronize()
        yield Row("launch", case, f"{host * 1e6:.1f} us", None, host)


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
        done = subprocess.run(
            [program, "--tool", tool, "--error-exitcode", "9", sys.executable, "-c", code], capture_output=True, text=True
        )  # fmt: skip
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


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cuda", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for cuda.json and cuda.md")
    options = parser.parse_args(arguments)
    reason = missing()
    if reason:
        print(f"benchmarks.cuda needs a GPU: {reason}", file=sys.stderr)
        return 2
    rng = np.random.default_rng(20261122)
    rows: list[Row] = []

    def taken(some: Iterator[Row]) -> None:
        for row in some:
            rows.append(row)
            print(row.part, row.case, row.outcome, "" if row.good in (None, True) else "  <--", sep="  ", file=sys.stderr)

    taken(correctness(rng))
    taken(bad_targets(rng))
    rate, row = copy_rate()
    taken(iter([row]))
    taken(speed(rate, rng))
    taken(launches())
    taken(memory_checker())
    known = facts()
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "cuda.json").write_text(json.dumps({**known, "rows": [asdict(r) for r in rows]}, indent=1) + "\n")
    head = f"# On the GPU\n\n{known['device']}, {known['date']}.\n\n"
    (options.out / "cuda.md").write_text(head + table(rows) + "\n")
    print(table(rows))
    return 1 if any(row.good is False for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
