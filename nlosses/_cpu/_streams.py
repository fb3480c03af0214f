"""Large results that go past the caches, which would read each line before they take it, and hardly hold it till it is used.

What goes past them are whole lines.  The ends of what is written, which share their lines with something else, go by way of
the caches as usual.
"""

from __future__ import annotations

from ._blocks import near
from ._jit import inlined, jitable
from ._vector import filled_short, late, short_lanes_of, store_part, stream

#: Bytes of a result from which on it goes past the caches: of images, whose lines are many at a time, and of rows.
IMAGES, ROWS = 1 << 23, 3 << 23


@jitable
def streams(out, x, least):
    """Whether a result of at least so many bytes should go past the caches: not where its lines are in them as the input's."""
    return (out.size * out.itemsize >= least) & (not near(out, x))


@inlined
def lines(target, to, n):
    """The first and the last of n elements, counted from `to`, between which there are whole lines alone."""
    step = short_lanes_of(target)
    first = min(n, (step - late(target, to)) % step)
    return first, n - (n - first) % step


@inlined
def flood(target, to, n):
    """Fill n elements with zeros."""
    zero = filled_short(target, 0.0)
    first, last = lines(target, to, n)
    store_part(target, to, first, zero)
    for k in range(first, last, short_lanes_of(target)):
        stream(target, to + k, zero)
    store_part(target, to + last, n - last, zero)
