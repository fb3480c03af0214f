"""Large results that go past the caches, which would read each line before they take it, and hardly hold it till it is used.

What goes past them are whole lines.  The ends of what is written, which share their lines with something else, go by way of
the caches as usual.
"""

from __future__ import annotations

from ._blocks import LINE, near
from ._jit import inlined, jitable, optional, overloaded
from ._vector import (
    BYTES,
    Vector,
    ended_by,
    filled_short,
    has_tables,
    lanes_of,
    late,
    offset,
    pointer,
    prefetch_far,
    short_lanes_of,
    store,
    store_part,
    stream,
)

#: Bytes of a result from which on it goes past the caches: of images, whose lines are many at a time; of values that are not
#: reduced, which gradients come with; and of all others.
IMAGES, VALUES, ROWS = 1 << 23, 3 << 22, 3 << 23
#: Bytes of a page, how near after what is read the place of what is written may not be, and how far before it is then.
PAGE, NEAR_BY, RESERVE = 4096, 1024, 256
#: Bytes of what is read that are fetched ahead into the second cache, where arithmetic is to go on meanwhile: the first cache
#: waits for few lines at a time, among them those that come and go there.
FAR_AHEAD = 8192


@jitable
def streams(out, x, least):
    """Whether a result of at least so many bytes should go past the caches: not where its lines are in them as the input's."""
    return (out.size * out.itemsize >= least) & (not near(out, x))


@inlined
def fetch_far(x, at):
    """Have the line fetched that is read a while after element `at`; it need not exist."""
    prefetch_far(x, at + FAR_AHEAD // LINE * short_lanes_of(x))


@inlined
def lag(x, start, target, to):
    """How many elements the writing of some must stay behind the reading of others, in whole vectors.

    What is read from one page waits for what is still being written to the same place of another.
    """
    step = lanes_of(x)
    page, near_by, reserve = PAGE // BYTES * step, NEAR_BY // BYTES * step, RESERVE // BYTES * step
    ahead = (offset(target, to) - offset(x, start)) % page
    return (ahead + reserve) // step * step if ahead < near_by else 0


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


# Vectors one after the other.  Where lines begin n elements before they do, past the caches goes the end of the one before with
# the begin of this one; or there is nothing before that could be had, and n must be 0.


@overloaded
def joins_vectors(before):
    """Whether lines may begin anywhere: by an instruction of this machine."""
    return (lambda before: True) if has_tables() and isinstance(before, Vector) else (lambda before: False)


@jitable
def streams_vectors(out, x, least, before):
    """Whether results of so many bytes that come vector by vector, from the first element on, should go past the caches."""
    return streams(out, x, least) & (joins_vectors(before) | (late(pointer(out), 0) == 0))


@optional
def held(before, results):
    return results


@optional
def write(target, to, results, flows, begins, before):
    """Write a vector, or if it `flows` the line where it begins, with the end of the one `before` unless it `begins` a run."""
    if not flows:
        store(target, to, results)
    elif before is None:
        stream(target, to, results)
    else:
        n = late(target, to)
        if begins & (n > 0):
            store_part(target, to, short_lanes_of(target) - n, results)
        else:
            stream(target, to - n, ended_by(before, results, n))


@optional
def write_end(before, target, to, flows, begins):
    """Write what is left of the vector `before`, where the next one would begin."""
    if target is not None:
        if flows & (not begins):
            n = late(target, to)
            store_part(target, to - n, n, ended_by(before, before, n))
