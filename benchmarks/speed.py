"""Value and gradient of float32 logits: nlosses beside torch, JAX and the speed of the memory.

    python -m benchmarks.speed [--quick] [--case SUBSTRING] [--json FILE] [--threads N] [--rounds N]

All contenders run in this process, in turns: each round gives every contender a share of the time, and its time is the
median of its rounds' minima.  Before anything is timed, every contender's value and gradient must agree with SciPy's in double
precision.  Inputs are prepared outside of the timing and all have the same number of threads.  The limit is a loop that reads
what the loss must read, writes what it must write, and computes nothing; where that is small the call itself costs most.

Times of different runs are not comparable, ratios of one run are.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import sys
import time
import tracemalloc
from datetime import UTC, datetime
from itertools import islice
from math import exp, log
from pathlib import Path
from statistics import median
from typing import Any

from . import _terminal

OWN, OWN_OUT, LIMIT, LIMIT_OUT = "nlosses", "nlosses, out=", "limit", "limit, reused"
COLUMNS = (OWN, OWN_OUT, "torch eager", "torch.compile", "jax", LIMIT, LIMIT_OUT)
SAMPLE = 2e-4  # seconds; shorter calls are repeated to this length, which the clock resolves


def seconds(call: Any, repeats: int, share: float) -> float:
    """Best mean time of `repeats` calls, among at least three samples and until the share of time is used up."""
    best, samples, clock = float("inf"), 0, time.perf_counter
    end = clock() + share
    while samples < 3 or clock() < end:
        began = clock()
        for _ in range(repeats):
            call()
        best = min(best, (clock() - began) / repeats)
        samples += 1
    return best


def measure(calls: dict[str, Any], rounds: int, share: float, tick: Any) -> dict[str, float]:
    """Median of the rounds' minima of each contender, in turns; every round begins with the next one."""
    names = list(calls)
    repeats = {name: max(1, round(SAMPLE / seconds(call, 1, 0))) for name, call in calls.items()}
    minima: dict[str, list[float]] = {name: [] for name in names}
    gc.disable()
    try:
        for k in range(rounds):
            for name in names[k % len(names) :] + names[: k % len(names)]:
                minima[name].append(seconds(calls[name], repeats[name], share))
            tick()
    finally:
        gc.enable()
    return {name: median(values) for name, values in minima.items()}


def additional_memory(call: Any) -> int:
    """Bytes that a call needs at its peak beyond what was there before, its result included."""
    call()
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    result = call()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    del result
    return peak - before


# --- results ---------------------------------------------------------------------------------------------------------


def cpu() -> str:
    """Name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def duration(t: float | None) -> str:
    """A time in the unit that fits."""
    if t is None:
        return "-"
    scale, unit = next((s, u) for s, u in ((1e6, "us"), (1e3, "ms"), (1, "s")) if t * s < 1000 or s == 1)
    return f"{t * scale:.3g} {unit}" if t * scale < 999.5 else f"{t * scale:.0f} {unit}"


def size(n: int) -> str:
    """A number of bytes in the unit that fits."""
    return f"{n} B" if n < 10_000 else f"{n / 1e3:.0f} kB" if n < 10_000_000 else f"{n / 1e6:.1f} MB"


def ratio(times: dict[str, float], above: str, below: str) -> float | None:
    """Quotient of two times of one case."""
    return times[above] / times[below] if above in times and below in times else None


def mean(ratios: list[float | None]) -> float | None:
    """Geometric mean of the ratios that exist."""
    logs = [log(r) for r in ratios if r is not None]
    return exp(sum(logs) / len(logs)) if logs else None


def show(results: list[dict[str, Any]]) -> None:
    """Print the three tables."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    if not results:
        return
    console = _terminal.console()
    measured = [name for name in COLUMNS if any(name in r["seconds"] for r in results)]
    quotients = [(name, name, OWN) for name in measured if name not in (OWN, OWN_OUT, LIMIT, LIMIT_OUT)]
    shares = [("share of the limit", LIMIT, OWN), ("share of the limit, out=", LIMIT_OUT, OWN_OUT)]

    times = Table(title="Time of value and gradient, float32", title_justify="left", box=SIMPLE_HEAD)
    against = Table(
        title="Ratios peer / nlosses (above 1: nlosses is faster), shares of the limit",
        title_justify="left", box=SIMPLE_HEAD,
    )  # fmt: skip
    memory = Table(title="Additional memory of nlosses at its peak", title_justify="left", box=SIMPLE_HEAD)
    for table, names in (
        (times, measured),
        (against, [title for title, _, _ in quotients + shares]),
        (memory, ("gradient", "fresh gradient", "out=")),
    ):
        table.add_column("case", no_wrap=True)
        for name in names:
            table.add_column(name, justify="right")

    def written(found: list[float | None]) -> list[str]:
        texts = ["-" if r is None else f"{r:.2f}" for r in found[: len(quotients)]]
        return texts + ["-" if r is None else f"{100 * r:.0f} %" for r in found[len(quotients) :]]

    rows = [[ratio(r["seconds"], above, below) for _, above, below in quotients + shares] for r in results]
    for k, (r, row) in enumerate(zip(results, rows, strict=True)):
        times.add_row(r["case"], *(duration(r["seconds"].get(name)) for name in measured))
        against.add_row(r["case"], *written(row), end_section=k == len(rows) - 1)
        memory.add_row(r["case"], *(size(r["bytes"][name]) for name in ("gradient", OWN, OWN_OUT)))
    against.add_row("geometric mean", *written([mean(list(column)) for column in zip(*rows, strict=True)]))
    for table in (times, against, memory):
        console.print(table)
    console.print("By tracemalloc, which sees the arrays of NumPy and those that Numba's compiled code allocates.")


def main(argv: list[str] | None = None) -> int:
    """Run the program; the exit status."""
    parser = argparse.ArgumentParser("python -m benchmarks.speed", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.add_argument("--case", default="", metavar="SUBSTRING", help="only the cases whose names contain it")
    parser.add_argument("--json", type=Path, metavar="FILE", help="save the results")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1), help="default: %(default)s")
    parser.add_argument("--rounds", type=int, help="default: 9, and 3 with --quick")
    args = parser.parse_args(argv)
    rounds, share = (args.rounds or 3, 0.02) if args.quick else (args.rounds or 9, 0.06)
    _terminal.require(parser.prog, "rich")
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[name] = str(args.threads)  # before anything that reads them is imported

    import numba
    import numpy as np

    from . import _contenders

    cases = [case for case in _contenders.CASES if args.case in case.name]
    if not cases:
        parser.error(f"no case contains {args.case!r}; there are {', '.join(case.name for case in _contenders.CASES)}")
    found, left_out = _contenders.peers(args.threads)
    numba.get_num_threads()
    numba.njit(parallel=True)(_contenders._one_read_one_write)(np.zeros(1), np.zeros(1))
    versions = [("nlosses", _contenders.nl.__version__), ("Python", platform.python_version())]
    versions += [(module.__name__, module.__version__) for module in (np, numba)]
    versions += [version for peer in found for version in peer.versions]
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0  # of the last minute
    facts = {
        "machine": f"{cpu()}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}",
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "threads": f"{args.threads} (numba's layer: {numba.threading_layer()})",
        "load": f"{load:.2f}" + (", so other programs are running: quote no ratio of this run" if load > 0.5 else ""),
        "versions": ", ".join(f"{name} {version}" for name, version in versions),
        "method": f"{rounds} rounds in turns, median of the rounds' minima",
    }
    for name, text in facts.items():
        print(f"{name + ':':10}{text}")
    for text in left_out:
        print(text)
    sys.stdout.flush()
    results: list[dict[str, Any]] = []

    def work() -> int:
        with _terminal.progress() as progress:
            task = progress.add_task("", total=len(cases) * (rounds + 1))
            for case in cases:
                progress.update(task, description=case.name)
                x, t = case.data()
                calls = _contenders.own(case, x, t)
                for peer in found:
                    calls |= peer.calls(case, x, t)
                expected = _contenders.reference(case, x, t)
                for name, call in calls.items():
                    _contenders.verify(case, name, call(), expected)
                del expected
                used = {name: additional_memory(call) for name, call in islice(calls.items(), 2)}
                progress.advance(task)
                calls |= _contenders.limit(case, x, t)
                times = measure(calls, rounds, share, lambda: progress.advance(task))
                results.append({"case": case.name, "seconds": times, "bytes": {"gradient": case.gradient_bytes, **used}})
        return 0

    status = _terminal.guarded(work, lambda: show(results))
    if args.json is not None and results:
        args.json.write_text(json.dumps({**facts, "left_out": left_out, "cases": results}, indent=1) + "\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
