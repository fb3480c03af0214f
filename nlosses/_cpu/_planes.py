"""Tiles whose classes each lie in one piece in memory, as those of an image do: read while the tile before is written.

There a position of all classes may well lie in one set of every cache, which holds fewer lines than there are classes: what is
fetched must be used soon, and whole lines be written at a time.  So they move class by class, in runs as long as a tile.

Large results go past the caches (see `_streams`).  That needs whole lines, and where these begin is another matter for each
class: so a tile leaves its last few elements to the next one, which finds them in the margin before its rows.  A tile holds
exponentials and as its last row factors, whose products are the results.
"""

from __future__ import annotations

from . import _vector
from ._blocks import LINE
from ._jit import inlined, optional
from ._scalar import exp_kept
from ._vector import (
    BYTES,
    farther,
    farthest,
    filled,
    lanes_of,
    late,
    load_short,
    prefetch_far,
    short_lanes_of,
    store_part,
    stream,
    unknown_zero,
)

#: Classes that are fetched ahead.
AHEAD = 12


@inlined
def entered(x, place, tiles, room, shape, before):
    """Fill a tile with exponentials while results of the one `before` are written; the largest magnitude of the logits."""
    classes, inner, lanes, stride = shape
    ahead = min(AHEAD, classes)
    reach, zero = filled(x, 0.0), unknown_zero(x)
    line = lanes_of(x) * LINE // BYTES
    for c in range(classes):
        coming = place + (c + ahead) * inner if c + ahead < classes else place + lanes + (c + ahead - classes) * inner
        for g in range(0, lanes, lanes_of(x)):
            for i in range(coming + g, coming + g + lanes_of(x), line):
                prefetch_far(x, i + line - 1)  # vectors may lie across lines, of which the tile before has read the first
            logits = _vector.load(x, place + c * inner + g)
            reach = farther(logits, reach)
            _vector.store(tiles, room + c * stride + g, exp_kept(logits, zero))
            write_part(before, tiles, shape, c, g)
        leave_row(before, tiles, room, shape, c)
    return farthest(reach)


@optional
def write_part(before, tiles, shape, c, g):
    """Write the results of class c of a tile about lane g on, as many as a vector has, if the tile waits for that."""
    waits, finish, room, target, place, begins, flows = before
    if waits:
        classes, inner, _, stride = shape
        row, factors, step = room + c * stride, room + classes * stride, short_lanes_of(tiles)
        for k in range(g, g + lanes_of(tiles), step):
            write(finish, tiles, row, factors, k, target, place + c * inner, begins, flows)


@optional
def leave_row(before, tiles, following, shape, c):
    """Leave the last results of class c to the tile that follows, if they are not written yet."""
    waits, _, room, _, _, _, flows = before
    if waits & flows:
        classes, _, lanes, stride = shape
        leave(tiles, room + c * stride + lanes, following + c * stride)
        leave(tiles, room + classes * stride + lanes, following + classes * stride)


@inlined
def leave(tiles, end, following):
    """Copy what stands before the end of a row to the margin of another."""
    step = short_lanes_of(tiles)
    _vector.store(tiles, following - step, load_short(tiles, end - step))


@inlined
def write_all(finish, tiles, room, shape, target, place, begins, flows):
    """Write the results of a tile that none follows."""
    classes, inner, lanes, stride = shape
    factors = room + classes * stride
    for c in range(classes):
        row, to = room + c * stride, place + c * inner
        for k in range(0, lanes, short_lanes_of(tiles)):
            write(finish, tiles, row, factors, k, target, to, begins, flows)
        if flows:
            n = late(target, to)
            store_part(target, to + lanes - n, n, product(finish, tiles, row + lanes - n, factors + lanes - n))


@inlined
def write(finish, tiles, row, factors, k, target, to, begins, flows):
    """Write the results of a row from lane k on, a short vector, where `to` is the place of the first one.

    Those that flow past the caches are the line in which lane k is.  The first line has its begin from the tile before, unless
    the row `begins` with this tile.
    """
    if flows:
        n = late(target, to)
        if (k == 0) & begins & (n > 0):
            store_part(target, to, short_lanes_of(tiles) - n, product(finish, tiles, row, factors))
        else:
            stream(target, to + k - n, product(finish, tiles, row + k - n, factors + k - n))
    else:
        _vector.store(target, to + k, product(finish, tiles, row + k, factors + k))


@inlined
def product(finish, tiles, row, factors):
    return finish(load_short(tiles, row), load_short(tiles, factors))
