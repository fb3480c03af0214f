"""The limit: loops that move the bytes that a loss must move, with as many threads and ordinary stores, and compute nothing."""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import numba
import numpy as np

from ._cases import Problem
from ._tables import LIMIT
from ._timing import Call, seconds

BLOCK = 4096  # words of eight bytes, as many as a kernel's block has
SERIAL_BELOW = 10_000  # words; a launch of threads costs more than to move them
READS, WRITES = 4, 2  # the most that a loss has; absent ones are empty, so that one kernel serves all
STREAM = 20_000_000  # words of each array, far more than a cache holds


def _move(reads: Any, writes: Any, blocks: int) -> None:
    """Read everything once and write everything once, share by share; the sum keeps the reads from being removed."""
    for block in numba.prange(blocks):
        b = np.int64(block)
        s = np.uint64(b)
        for a in reads:
            part = a[a.size * b // blocks : a.size * (b + 1) // blocks]
            for i in range(part.size):
                s ^= part[i]
        for a in writes:
            part = a[a.size * b // blocks : a.size * (b + 1) // blocks]
            for i in range(part.size):
                part[i] = s


def _copy(a: Any, b: Any, c: Any, blocks: int) -> None:
    for block in numba.prange(blocks):
        lo = np.int64(block) * BLOCK
        xs, ys = a[lo : lo + BLOCK], c[lo : lo + BLOCK]
        for i in range(xs.size):
            ys[i] = xs[i]


def _triad(a: Any, b: Any, c: Any, blocks: int) -> None:
    for block in numba.prange(blocks):
        lo = np.int64(block) * BLOCK
        xs, ys, zs = a[lo : lo + BLOCK], b[lo : lo + BLOCK], c[lo : lo + BLOCK]
        for i in range(xs.size):
            zs[i] = xs[i] + 3.0 * ys[i]


@cache
def _compiled(loop: Any, parallel: bool) -> Any:
    return numba.njit(loop, parallel=parallel)


def words(a: np.ndarray) -> np.ndarray:
    """The array's bytes, less a last half word."""
    flat = a.reshape(-1).view(np.uint8)
    return flat[: flat.size // 8 * 8].view(np.uint64)


def calls(problem: Problem) -> dict[str, Call]:
    """The loop, with results in memory that it keeps."""
    reads = [words(a) for a in problem.reads]
    sizes = [n // 8 for n in problem.written]
    nothing = np.empty(0, np.uint64)
    inputs = (*reads, *[nothing] * (READS - len(reads)))
    blocks = max(1, max(sizes) // BLOCK)
    move = _compiled(_move, sum(sizes) + sum(a.size for a in reads) >= SERIAL_BELOW)
    results = tuple([np.empty(n, np.uint64) for n in sizes])
    return {LIMIT: lambda: move(inputs, results, blocks)}


def rates(share: float) -> dict[str, float]:
    """Bytes per second that all threads move, counted as STREAM does: copy two words an element, triad three."""
    a, b, c = (np.full(STREAM, k, float) for k in range(3))
    found = {}
    for name, loop, count in (("copy", _copy, 2), ("triad", _triad, 3)):
        call = partial(_compiled(loop, True), a, b, c, -(-STREAM // BLOCK))
        call()
        found[name] = 8 * count * STREAM / seconds(call, 1, share)
    return found
