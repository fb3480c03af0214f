"""Memory of large results: what the caller lets go of serves the next call, whose pages the system need not make anew.

Making pages costs as much as a loss does, and at times ten times as much.  Smaller arrays are malloc's business, which keeps
memory in the same way (glibc's up to 32 MiB).  What is kept here is marked as free for the system, which takes it back when
anybody needs it (``MADV_FREE``), so that nothing is held at others' expense.
"""

from __future__ import annotations

import ctypes
import mmap
import weakref
from collections import deque
from contextlib import suppress
from math import prod
from typing import Any

import numpy as np

from ._arrays import Order

#: Bytes from which on memory is kept.
LARGE = 1 << 25
#: Mappings are multiples of it, so that the system need not take huge pages apart to mark their ends.
HUGE_PAGE = 1 << 21
#: Mappings that nothing uses, the latest at the right; of more than that the eldest goes, or in a race another one.  Threads
#: and finalizers, which interrupt anything, share it without a lock: each of its methods is one step for them.
_kept: deque[mmap.mmap] = deque(maxlen=4)
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
    return np.empty(shape, dtype, order)


def release_memory() -> None:
    """Give back to the system the memory of earlier results that is kept for later ones.

    Results of 32 MiB and more leave their memory behind, the last four of them, for results of the same size, to a quarter, in
    any thread.  The system may take it at any time, so that this is a matter of taste, and of what monitors show.
    """
    _kept.clear()


def _fitting(nbytes: int) -> mmap.mmap | None:
    """A kept mapping that is large enough, and not by more than a quarter too large."""
    found = None
    for _ in range(len(_kept)):  # all of them, so that they keep their order
        try:
            mapping = _kept.pop()
        except IndexError:  # another thread was faster
            break
        if found is None and nbytes <= len(mapping) <= nbytes + nbytes // 4:
            found = mapping
        else:
            _kept.appendleft(mapping)
    return found


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
