"""Where and with what a benchmark ran: processor, load, threads, versions."""

from __future__ import annotations

import os
import platform
import time
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

#: What the libraries read when they are loaded; XLA takes the size of its pool from NPROC.
VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "NPROC")
PACKAGES = ("numpy", "scipy", "numba", "llvmlite", "torch", "jax", "optax", "scikit-learn")
QUIET = 0.5  # processes; with a higher load something else takes part of the machine
SAMPLES, PAUSE = 20, 0.025  # of the number of processes that run, and seconds between two
BUSY = "so other programs are running: quote no figure of this run"


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def set_threads(threads: int) -> None:
    """The same number for all contenders; to be called before any of them is imported."""
    os.environ.update(dict.fromkeys(VARIABLES, str(threads)))


def cpu() -> str:
    """Name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def cache() -> int:
    """Bytes of the largest cache, that of the first processor; 32 MiB where the system does not say."""
    sizes = [file.read_text().strip() for file in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")]
    return max((int(size.removesuffix("K")) << 10 for size in sizes if size.endswith("K")), default=32 << 20)


def load() -> float:
    """Other processes that run now, on average of half a second; of the last minute, or 0, where the system does not say."""
    try:
        total = 0
        for _ in range(SAMPLES):
            time.sleep(PAUSE)
            total += int(Path("/proc/loadavg").read_text().split()[3].partition("/")[0]) - 1  # not this one
        return total / SAMPLES
    except (OSError, ValueError, IndexError):
        return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def free_memory() -> int:
    """Bytes that can be taken without swapping, as far as the system says."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return 1 << 62


def versions() -> str:
    """Those of everything that is measured, as far as it is installed."""
    import nlosses

    found = [f"nlosses {nlosses.__version__}", f"Python {platform.python_version()}"]
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


def facts(threads: int) -> dict[str, str]:
    """What every table, file and plot is labelled with."""
    busy = load()
    return {
        "machine": f"{cpu()}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}",
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "threads": str(threads),
        "cache": f"{cache() / 2**20:.3g} MiB",
        "load": f"{busy:.2f}" + (f", {BUSY}" if busy > QUIET else ""),
        "versions": versions(),
    }
