"""Figures of whole processes: import, first gradient with and without what earlier processes left, and peak memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from . import _tables, _terminal

#: What keeps compiled code on disk, by peer; the same folder serves all.
CACHES = ("NUMBA_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "JAX_COMPILATION_CACHE_DIR")
#: JAX keeps nothing that compiles fast or is small unless told so.
KEEP = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "TORCHINDUCTOR_COMPILE_THREADS": "1"}
FIRST = {"torch": ("torch eager", "torch.compile"), "jax": ("jax",)}  # of the peers that have a first call to speak of
MODULES = {"torch": ("torch",), "jax": ("jax", "optax"), "scikit-learn": ("sklearn",), "numpy": ("numpy",)}
ROUNDS, QUICK_ROUNDS = 5, 1
FIGURES = ("import", "cold", "warm", "process")


def child(cache: Path | None, *arguments: str) -> dict[str, Any]:
    """Run a fresh process, perhaps with a folder of its own for compiled code; what it found."""
    environment = {**os.environ, **QUIET, **(dict.fromkeys(CACHES, str(cache)) | KEEP if cache else {})}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # installed packages have byte code
    command = [sys.executable, "-m", "benchmarks._child", *arguments]
    done = subprocess.run(command, env=environment, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ChildProcessError(f"{' '.join(arguments)}: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(found: dict[str, Any], left_out: list[str], peers: list[str], quick: bool, progress: Any) -> None:
    """All contenders in turns, each round with an empty folder that its second process finds filled.

    A quick run is without torch.compile, which takes longer than all others together.
    """
    peers = [peer for peer in peers if all(find_spec(module) for module in MODULES[peer])]
    names = ["nlosses", *(name for peer in peers for name in FIRST.get(peer, ()) if not quick or name != "torch.compile")]
    rounds = QUICK_ROUNDS if quick else ROUNDS
    task = progress.add_task("first gradient", total=(rounds + 1) * len(names) + len(peers) + 1)
    first, memory = found.setdefault("first", {}), found.setdefault("memory", {})
    for k in range(rounds + 1):
        for name in list(names):
            progress.update(task, description=f"first gradient, {name}")
            try:
                with TemporaryDirectory() as folder:
                    if k:
                        _first(first.setdefault(name, {figure: [] for figure in FIGURES}), Path(folder), name)
                    elif name != "torch.compile":  # files come into memory, byte code is written
                        child(Path(folder), "first", name)
            except ChildProcessError as error:
                left_out.append(f"{name} left out on first gradient: {error}")
                names.remove(name)
            progress.advance(task)
    for peer in ("nlosses", *peers) if Path("/proc/self/clear_refs").exists() else ():
        progress.update(task, description=f"memory, {peer}")
        try:
            for loss, needed in child(None, "memory", peer, *["--quick"] * quick).items():
                memory.setdefault(loss, {}).update(needed)
        except ChildProcessError as error:
            left_out.append(f"{peer} left out on memory: {error}")
        progress.advance(task)
    progress.remove_task(task)


def _first(figures: dict[str, list[float]], folder: Path, name: str) -> None:
    cold = child(folder, "first", name)
    began = time.perf_counter()
    warm = child(folder, "first", name)
    figures["process"].append(time.perf_counter() - began)
    figures["import"] += [cold["import"], warm["import"]]
    figures["cold"].append(cold["first"])
    figures["warm"].append(warm["first"])


def show(found: dict[str, Any]) -> None:
    """Print what there is."""
    console = _terminal.console()
    if first := found.get("first"):
        heads = ("import", "first gradient, cold", "first gradient, warm", "whole process, warm")
        made = _tables.table("Fresh processes: cross entropy of 32 x 10 float32", "", heads)
        for name, figures in first.items():
            made.add_row(name, *(_tables.duration(median(figures[figure])) if figures[figure] else "-" for figure in FIGURES))
        console.print(made)
        console.print("Imports beyond NumPy's; cold: no compiled code on disk; warm: that of an earlier process, of all alike.")
    if memory := found.get("memory"):
        names = [name for name in _tables.CONTENDERS if any(name in needed for needed in memory.values())]
        made = _tables.table("Additional memory at the peak of a call, in sizes of the gradient", "loss", names)
        for loss, needed in memory.items():
            made.add_row(loss, *(f"{needed[name]:.2f}" if name in needed else "-" for name in names))
        console.print(made)
