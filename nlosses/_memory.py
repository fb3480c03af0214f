"""Memory of large results: what the caller lets go of serves the next call, whose pages the system need not make anew.

Making pages costs as much as a loss does, and at times ten times as much.  malloc keeps memory too, but not much of it: glibc
gives all back as soon as more than twice its largest array is free, so that a function that returns a gradient, and had an
array as large for itself, pays for new pages in each call.

There are two ways.  Up to 32 MiB a few blocks are held, each of which serves again when nothing but this module refers to it.
What is larger is marked as free for the system as soon as nobody has it, and the system takes it back when anybody needs it
(``MADV_FREE``), so that nothing large is held at others' expense; that takes a while, and pays for large arrays alone.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from math import prod
from typing import Any, TypeVar

import numpy as np

from ._arrays import Order

T = TypeVar("T")

#: Bytes from which on blocks are held, and from which on memory is kept that is marked as free.
HELD, LARGE = 1 << 18, 1 << 25
#: Results in blocks begin with a cache line.
LINE = 64
#: Mappings are multiples of it, so that the system need not take huge pages apart to mark their ends.
HUGE_PAGE = 1 << 21
#: Mappings that nothing uses, the latest at the right; of more than that the eldest goes, or in a race another one.  Threads
#: and finalizers, which interrupt anything, share it without a lock: each of its methods is one step for them.
_kept: deque[mmap.mmap] = deque(maxlen=4)
#: Blocks, and where in them results begin, the latest used at the right.
_held: deque[tuple[np.ndarray, int]] = deque(maxlen=4)
_FREE, _HUGE = getattr(mmap, "MADV_FREE", -1), getattr(mmap, "MADV_HUGEPAGE", -1)  # not every system has them


def empty(shape: tuple[int, ...], dtype: np.dtype, order: Order = "C") -> np.ndarray:
    """As `numpy.empty`."""
    nbytes = prod(shape) * dtype.itemsize
    if nbytes >= LARGE and _FREE != -1:
        mapping = _fitting(nbytes) or _mapped(nbytes)
        if mapping is not None:
            # All that sees the memory, views and their bases and buffers, holds this object and not the mapping itself.
            owner: Any = (ctypes.c_char * nbytes).from_buffer(mapping)
            weakref.finalize(owner, _keep, mapping).atexit = False
            return np.ndarray(shape, dtype, owner, order=order)
    elif HELD <= nbytes < LARGE:
        block, begin = _unused(nbytes) or _block(nbytes)
        return np.ndarray(shape, dtype, block, begin, order=order)
    return np.empty(shape, dtype, order)


def _latest(blocks: deque[T], fits: Callable[[T], bool]) -> T | None:
    """Take out the latest one that fits, if any, and leave the others in their order; no other thread has one that is asked."""
    for others in range(len(blocks)):
        try:
            block = blocks.pop()
        except IndexError:  # another thread was faster
            return None
        if fits(block):
            blocks.rotate(-others)
            return block
        blocks.appendleft(block)
    return None


def _unused(nbytes: int) -> tuple[np.ndarray, int] | None:
    """A block that nobody has, which is large enough, and not by more than a quarter too large."""
    least, most = nbytes + LINE, nbytes + nbytes // 4 + LINE
    held = _latest(_held, lambda held: least <= held[0].size <= most and _references(held) == _references_alone())
    if held is not None:
        _held.append(held)  # no thread that takes it out counts as few before a result refers to it
    return held


def _block(nbytes: int) -> tuple[np.ndarray, int]:
    block = np.empty(nbytes + LINE, np.uint8)
    held = block, -block.ctypes.data % LINE
    _held.append(held)
    return held


def _references(held: tuple[np.ndarray, int]) -> int:
    """How many there are to a block and to the pair that it is in, which is what other threads hold while they use it.

    How many of them are those of the functions that ask is another matter in each version of Python, and under a debugger.
    """
    return sys.getrefcount(held) + sys.getrefcount(held[0])


def _references_alone() -> int:
    """As many as there are, here and now, where nobody else has the block."""
    counts: list[int] = []

    def count(held: tuple[np.ndarray, int]) -> bool:
        counts.append(_references(held))
        return True

    _latest(deque([(np.empty(0, np.uint8), 0)]), count)
    return counts[0]


def release_memory() -> None:
    """Give back to the system the memory of earlier results that is kept for later ones.

    Results of 256 KiB and more leave their memory behind for results of the same size, to a quarter, in any thread: the last
    four below 32 MiB, and the last four others, whose memory the system may take at any time.
    """
    _kept.clear()
    _held.clear()


def _fitting(nbytes: int) -> mmap.mmap | None:
    """A kept mapping that is large enough, and not by more than a quarter too large."""
    return _latest(_kept, lambda mapping: nbytes <= len(mapping) <= nbytes + nbytes // 4)


def _mapped(nbytes: int) -> mmap.mmap | None:
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    try:
        try:
            mapping = mmap.mmap(-1, nbytes + -nbytes % HUGE_PAGE, flags=flags)
        except OSError:  # it may be what is kept that leaves no room
            release_memory()
            mapping = mmap.mmap(-1, nbytes + -nbytes % HUGE_PAGE, flags=flags)
    except (OSError, OverflowError):
        return None  # let NumPy try, and say what is wrong
    with suppress(OSError):  # a system without huge pages
        mapping.madvise(_HUGE)
    return mapping


def _keep(mapping: mmap.mmap) -> None:
    with suppress(OSError):  # where pages are locked they cannot be marked, and are not kept
        mapping.madvise(_FREE)
        _kept.append(mapping)
