"""Class indices, of which kernels make sure where nobody has: some at a time, just before they use them."""

from __future__ import annotations

import numpy as np
from numba import types

from ._jit import inlined, overloaded

#: What a kernel takes its labels for: checked before; for classes, all of them, so that every position counts; or for classes
#: and indices that are ignored.  If they are not, its result is NaN, and what it has written means nothing.
CHECKED, COUNTING, ALLOWED = 0, 1, 2
#: Up to this many classes the labels are a large part of what is read, and hardly ever ignored.
FEW = 8


@inlined
def worthwhile(expected, total):
    """Whether a kernel should go on that has come to a sum: what has come to NaN is done again, unless labels were checked."""
    return (expected == CHECKED) | (total == total)


@inlined
def within(y, classes):
    return np.uint64(y) < np.uint64(classes)  # a negative one is huge without its sign


@inlined
def all_within(labels, classes):
    beyond = 0
    for i in range(labels.size):
        beyond |= not within(labels[i], classes)
    return beyond == 0


@inlined
def all_allowed(labels, classes, ignored):
    beyond = 0
    for i in range(labels.size):
        beyond |= not (within(labels[i], classes) | (labels[i] == ignored))
    return beyond == 0


@overloaded
def as_expected(labels, first, stop, classes, ignored, expected):
    """Whether the labels of some positions are what a kernel takes them for; it may have none."""
    if isinstance(labels, types.NoneType):
        return lambda labels, first, stop, classes, ignored, expected: True

    def of_labels(labels, first, stop, classes, ignored, expected):
        if expected == COUNTING:
            return all_within(labels[first:stop], classes)
        return expected == CHECKED or all_allowed(labels[first:stop], classes, ignored)

    return of_labels
