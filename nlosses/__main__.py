"""``python -m nlosses`` tells what is installed and what will run where; ``python -m nlosses warm`` fills the kernel cache."""

from __future__ import annotations

import argparse
import ctypes
import platform
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from importlib import import_module, metadata, util
from itertools import product
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from . import LOSSES, Loss, __version__

FAILED, INTERRUPTED = 1, 130  # 128 + SIGINT, as shells report it
DTYPES = ("float32", "float64")
VECTORS = ("sse4.2", "avx", "fma", "neon", "asimd", "sve", "altivec", "vsx", "rvv")
DRIVERS = ("libcuda.so.1", "nvcuda.dll")

#: What to show, and a call that compiles what it needs.
Job = tuple[str, Callable[[], Any]]


# --- the report ------------------------------------------------------------------------------------------------------


def report() -> None:
    facts = {
        "nlosses": f"{__version__}  {Path(__file__).parent}",
        "Python": f"{platform.python_version()}  {sys.executable}",
        **{name: version(name) for name in ("numpy", "numba", "llvmlite", "scipy")},
        "CPU": processor(),
        "threads": threads(),
        "cache": cache(),
        "CUDA": cuda(),
    }
    for name, fact in facts.items():
        print(f"{name:<9} {fact}")
    rows = [("loss", "class", "family", "")]
    for name, loss in LOSSES.items():
        rows.append((name, loss.spec.module or "", loss.spec.family, str(loss.__doc__).strip().partition("\n")[0]))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)][:-1]
    print()
    for *cells, last in rows:
        print(*(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True)), last, sep="  ")


def version(package: str) -> str:
    with suppress(metadata.PackageNotFoundError):
        return metadata.version(package)
    return "not installed"


def processor() -> str:
    import llvmlite.binding as llvm

    features = llvm.get_host_cpu_features()
    vectors = sorted(name for name, present in features.items() if present and name.startswith(VECTORS))
    return f"{llvm.get_host_cpu_name()}  {' '.join(vectors)}"


def threads() -> str:
    import numba

    try:
        return f"{numba.get_num_threads()}  {import_module('._cpu._threads', __package__).layer()}"
    except ValueError as error:  # NUMBA_THREADING_LAYER names one that is not there
        return f"none: {str(error).partition(chr(10))[0]}"


def cache_folder() -> Path | None:
    """Where Numba keeps the kernels: one folder, for their drivers are in one; None if it can write nowhere."""
    from numba.core.caching import FunctionCache

    with suppress(RuntimeError):
        return Path(FunctionCache(import_module("._cpu.elementwise", __package__).make).cache_path)
    return None


def cache() -> str:
    folder = cache_folder()
    if folder is None:
        return "none that can be written: kernels are compiled anew in each process; set NUMBA_CACHE_DIR"
    size = sum(file.stat().st_size for file in folder.glob("*.nb[ci]"))
    return f"{count(folder)} kernels, {size / 1e6:.1f} MB  {folder}"


def count(folder: Path) -> int:
    return len(list(folder.glob("*.nbc")))


def cuda() -> str:
    target = f"numba-cuda {version('numba-cuda')}" if util.find_spec("numba_cuda") else "numba-cuda is not installed"
    for driver in DRIVERS:
        with suppress(OSError):
            ctypes.CDLL(driver)
            return f"{target}; a driver is installed"
    return f"{target}; no driver"


# --- the cache -------------------------------------------------------------------------------------------------------


def warm(names: list[str], dtypes: list[str]) -> int:
    folder = cache_folder()
    if folder is None:
        print("There is no folder for the cache that can be written: set NUMBA_CACHE_DIR to one.", file=sys.stderr)
        return FAILED
    before, start = count(folder), perf_counter()
    work = [job for name, dtype in product(names, dtypes) for job in jobs(LOSSES[name], dtype)]
    work.append(("threads", import_module("._cpu._shares", __package__).launcher))
    try:
        for _, call in shown(work):
            call()
    except KeyboardInterrupt:
        print("Interrupted: what was compiled until then stays in the cache.", file=sys.stderr)
        return INTERRUPTED
    print(f"{count(folder) - before} kernels compiled in {perf_counter() - start:.1f} s; the cache holds {cache()}")
    return 0


def jobs(loss: Loss[Any], dtype: str) -> Iterator[Job]:
    """The calls that users begin with."""
    for (x, t), method, reduction in product(arguments(loss, dtype), (loss, loss.value_and_grad), ("mean", "none")):
        yield f"{loss.__name__} {dtype}", partial(method, x, t, reduction=reduction)


def arguments(loss: Loss[Any], dtype: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Inputs and targets for all kernels of the first calls."""
    spec = loss.spec
    if spec.family == "elementwise":
        x, t = (np.full(1, np.clip(0.5, kind.low, kind.high), dtype) for kind in (spec.input, spec.target))
        yield x, t
    else:
        for classes in (3, 10, 1000):
            yield np.zeros((1, classes), dtype), np.zeros(1, np.int64)
        yield np.zeros((2, 3, 8, 8), dtype), np.zeros((2, 8, 8), np.int64)


def shown(work: list[Job]) -> Iterator[Job]:
    """The jobs one after the other, with a bar and the time left; with lines where there is no terminal or no rich."""
    if sys.stderr.isatty() and util.find_spec("rich"):
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        text = [TextColumn("{task.description}"), TextColumn("left")]
        columns = text[0], BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), text[1]
        with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task("", total=len(work))
            for job in work:
                progress.update(task, description=job[0])
                yield job
                progress.advance(task)
        return
    start, label = perf_counter(), ""
    for done, job in enumerate(work):
        if job[0] != label:
            label = job[0]
            left = f", about {(perf_counter() - start) / done * (len(work) - done):.0f} s left" if done else ""
            print(f"[{done:>{len(str(len(work)))}}/{len(work)}] {label}{left}", file=sys.stderr, flush=True)
        yield job


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m nlosses", description="Tell what is installed and what will run where.")
    commands = parser.add_subparsers(dest="command", metavar="warm")
    help_ = "compile the kernels that calls meet first into the disk cache, so that no later process waits for them"
    warming = commands.add_parser("warm", help=help_, description=help_.capitalize() + ".")
    warming.add_argument("--dtype", nargs="+", choices=DTYPES, default=DTYPES, help="precisions (default: both)")
    names = f"losses (default: all): {', '.join(LOSSES)}"
    warming.add_argument("--loss", nargs="+", choices=LOSSES, default=LOSSES, metavar="NAME", help=names)
    options = parser.parse_args(arguments)
    if options.command == "warm":
        return warm(list(options.loss), list(options.dtype))
    report()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
