"""When to use several threads: launch costs, threading layers that cannot be shared, and forked children."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

import numba

from ._shares import ALONE, launcher

#: Below these many elements a launch (2 to 7 us for omp and tbb, 30 to 70 us for workqueue) costs more than it saves.
SERIAL_BELOW = {"omp": 20_000, "tbb": 20_000, "workqueue": 200_000}
SMALL = min(SERIAL_BELOW.values())

_one_at_a_time = threading.Lock()
_forked = False


def _after_fork() -> None:
    global _forked, _one_at_a_time
    _forked = True
    _one_at_a_time = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def layer() -> str:
    """Name of the threading layer, which asking for the number of threads has started."""
    numba.get_num_threads()
    return str(numba.threading_layer())


def wants_parallel(size: int) -> bool:
    """Whether a kernel over `size` elements, which are enough for some layer, should run on several threads."""
    # GNU OpenMP ends a process that was forked after its first use; one thread gives the same bits.
    if _forked or numba.get_num_threads() < 2:
        return False
    return size >= SERIAL_BELOW.get(layer(), SMALL)


def run(size: int, kernel: Callable[..., Any], *arguments: Any) -> Any:
    """Call a kernel, on several threads where that is safe and pays."""
    if size < SMALL or not wants_parallel(size):
        return kernel(ALONE, *arguments)
    if layer() != "workqueue":
        return kernel(launcher(), *arguments)
    # The workqueue layer aborts the process when two threads enter it; the second one goes alone.
    if not _one_at_a_time.acquire(blocking=False):
        return kernel(ALONE, *arguments)
    try:
        return kernel(launcher(), *arguments)
    finally:
        _one_at_a_time.release()
