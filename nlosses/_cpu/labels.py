"""Classwise driver for class indices and not too many classes: value and gradient, without smoothing.

Tiles as in `tiles`, but one pass over the logits takes the exponentials as they are, with all that it keeps of a position in
registers.  Each class adds to the sum the smaller one of its own exponential and of the largest so far: that is the sum of all
but the largest, which keeps what a sum with it would lose.  A tile with a large logit then goes the way of `tiles`.

Where other axes follow that of the classes, a tile is computed while the next one is read and the one before is written.
There a position of all classes may well lie in one set of every cache, which holds fewer lines than there are classes: what is
fetched must be used soon, and whole lines be written at a time.  So they move class by class, in runs as long as a tile.
"""

from __future__ import annotations

import numpy as np

from .._scalar import exp_moderate, log1p, product
from .._softmax import gap, others
from . import _vector
from ._blocks import LINE, WIDE, add, aligned, closed, compensated, fetched, placed, stack_buffer
from ._jit import inlined, optional
from ._vector import BYTES, filled, lanes_of, larger, pointer, prefetch, prefetch_to_write, smaller, where_equal, widened
from .tiles import FOLD, bounds, load, per_block, store  # noqa: F401  a driver has `block`, `per_block` and `FINISH`
from .tiles import sums as careful_sums

#: Up to this many bytes of classes a tile of rows is quicker than row after row.
FEW = 512
#: More classes take longer this way, in which each class asks each position whether it is its label.
MOST_CLASSES = 256
#: Logits up to this size, and factors of the gradient within these bounds, leave every product with an exponential of a logit
#: far from the ends of float32.
MODERATE, LEAST, MOST = 40.0, 2.0**-50, 2.0**50
#: Classes that are fetched ahead.
AHEAD = 3
#: Bytes of logits that are in some cache anyway.
CACHED = 1 << 19
#: The label of a position that is ignored, or of a lane that has none.
NONE = -1.0


@inlined
def sums(tiles, room, classes, lanes, g, y, high, low, top, s, own, own_e, moving, coming):
    """One pass over the classes for a vector of positions, from lane g on: bounds of the logits; their exponentials, which take
    their place; the largest of these, and the sum of all others; and the label's logit and exponential.

    For each vector of it another one is moved: see `move`.
    """
    step = lanes_of(tiles)
    vectors = g // step * classes
    moved = vectors // (lanes // step)
    lane = (vectors - moved * (lanes // step)) * step
    label = _vector.load(y, g)
    most, least, zero = filled(y, -np.inf), filled(y, np.inf), filled(y, 0.0)
    largest, mine, mine_e = zero, zero, zero
    total = widened(zero)
    for first in range(0, classes, FOLD):
        part = zero
        for c in range(first, min(first + FOLD, classes)):
            at = room + c * lanes + g
            x = _vector.load(tiles, at)
            e = exp_moderate(x)
            _vector.store(tiles, at, e)
            most, least = larger(x, most), smaller(x, least)
            part = part + smaller(largest, e)
            largest = larger(e, largest)
            mine, mine_e = where_equal(label, c, x, mine), where_equal(label, c, e, mine_e)
            move(moving, tiles, moved, lanes, lane)
            fetch(coming, (vectors + c) * step)
            lane += step
            if lane == lanes:
                lane = 0
                moved += 1
        total = total + widened(part)
    _vector.store(high, g, most)
    _vector.store(low, g, least)
    _vector.store(top, g, largest)
    _vector.store(s, g, total)
    _vector.store(own, g, mine)
    _vector.store(own_e, g, mine_e)


@optional
def move(moving, tiles, c, lanes, g):
    """Read a vector of class c of the tile to come, and write one of the tile before."""
    x, place, inner, room, finish, old, old_room, target, old_place, stride = moving
    k = c * lanes + g
    write(finish, old, tiles, old_room + k, c, g, target, old_place + c * stride + g)
    for i in range(0, lanes_of(x), lanes_of(x) * LINE // BYTES):
        prefetch(x, place + (c + AHEAD) * inner + g + i)
        prefetch_to_write(target, old_place + (c + AHEAD) * stride + g + i)
    _vector.store(tiles, room + k, _vector.load(x, place + c * inner + g))


@optional
def fetch(coming, k):
    """Fetch a vector of the rows to come, and the place of one of the results, k elements from where they begin."""
    x, at, target, to, far = coming
    if far:
        for i in range(k, k + lanes_of(x), lanes_of(x) * LINE // BYTES):
            prefetch(x, at + i)
            fetched(target, to + i)


@optional
def write(finish, old, tiles, at, c, g, target, to):
    """Make the result of a vector of exponentials of class c, from lane g on."""
    _vector.store(target, to, finish(_vector.load(tiles, at), c, g, *old))


@inlined
def write_all(finish, old, tiles, room, classes, lanes, target, place, stride):
    for c in range(classes):
        for g in range(0, lanes, lanes_of(tiles)):
            write(finish, old, tiles, room + c * lanes + g, c, g, target, place + c * stride + g)


@inlined
def grad(e, c, g, y, factor, at_label):
    """The gradient of class c."""
    return where_equal(_vector.load(y, g), c, _vector.load(at_label, g), e * _vector.load(factor, g))


@inlined
def read_labels(ys, ignored, weight, weighted, scale, upstream, first, y, w, k, lanes):
    """Labels as numbers, their weights and the factors of du/dx; how many are ignored."""
    T = y.dtype.type
    skipped = 0
    for p in range(lanes):
        y[p] = T(NONE)
    for p in range(ys.size):
        kept = ys[p] != ignored
        skipped += not kept
        y[p] = T(ys[p]) if kept else T(NONE)
    for p in range(lanes):
        w[p] = 0.0 if y[p] == T(NONE) else 1.0
    if weighted:
        for p in range(ys.size):
            w[p] *= np.float64(weight[ys[p] if ys[p] != ignored else 0])
    for p in range(lanes):
        k[p] = scale * w[p]
    if upstream.size > 0:
        for p in range(ys.size):
            k[p] = product(np.float64(upstream[first + p]), k[p])
    return skipped


@inlined
def block(
    point, curvature, finish, start, stop, x, labels, probabilities, weight, vector, upstream, classes, inner, lanes, keep,
    even, ignored, scale, values, out,
):  # fmt: skip
    """Work on the positions start to stop, and return the sum of their values."""
    T = x.dtype.type
    size = classes * lanes
    tiles = aligned(3 * size, x)  # the one before, this one and the next, in turn
    three = tiles.reshape((3, classes, lanes))
    logits = aligned(size, x).reshape((classes, lanes))
    old_y, factor, at_label = stack_buffer(x.dtype), stack_buffer(x.dtype), stack_buffer(x.dtype)
    old = pointer(old_y), pointer(factor), pointer(at_label)
    y, own, own_e = stack_buffer(x.dtype), stack_buffer(x.dtype), stack_buffer(x.dtype)
    high, low, top = stack_buffer(x.dtype), stack_buffer(x.dtype), stack_buffer(x.dtype)
    s, n, part = stack_buffer(x.dtype), stack_buffer(x.dtype), stack_buffer(x.dtype)
    rest, inverse = stack_buffer(x.dtype), stack_buffer(x.dtype)
    s_wide, u, w, k = stack_buffer(WIDE), stack_buffer(WIDE), stack_buffer(WIDE), stack_buffer(WIDE)
    room = (
        pointer(y), pointer(high), pointer(low), pointer(top), pointer(s_wide), pointer(own), pointer(own_e),
    )  # fmt: skip
    weighted = False
    for c in range(classes):
        weighted |= weight[c] != T(1)
    before, now, following = 2 * size, 0, size
    loaded = pending = False  # whether this tile has been read, and the one before is to be written
    old_place = 0
    total = 0.0
    error = 0.0
    for first in range(start, stop, lanes):
        count = min(lanes, stop - first)
        skipped = read_labels(labels[first : first + count], ignored, weight, weighted, scale, upstream, first, y, w, k, lanes)
        group = first // inner
        d = first - group * inner
        place = group * classes * inner + d
        in_one = (inner > 1) & (d + lanes <= inner) & (count == lanes)  # each class lies in one piece
        tile = three[now // size]
        if not loaded:
            load(tile, x, first, count, inner)
        if in_one:
            loaded = (d + 2 * lanes <= inner) & (first + 2 * lanes <= stop)
            # Where nothing is to be written, what is read next comes over it.
            target, to, stride = pointer(tiles), following, lanes
            if out is not None:
                if pending:
                    target, to, stride = pointer(out), old_place, inner
            moving = (pointer(x), place + lanes if loaded else place, inner, following, finish, old, before, target, to, stride)
            for g in range(0, lanes, lanes_of(x)):
                sums(pointer(tiles), now, classes, lanes, g, *room, moving, None)
        else:
            loaded = False
            if pending:
                write_all(finish, old, tiles, before, classes, lanes, out, old_place, inner)
            far = (inner == 1) & (x.size * x.itemsize > CACHED)
            coming = pointer(x), (first + lanes) * classes, placed(out), first * classes, far
            for g in range(0, lanes, lanes_of(x)):
                sums(pointer(tiles), now, classes, lanes, g, *room, None, coming)
        pending = False
        beyond = 0
        for p in range(lanes):
            reach = abs(k[p])
            beyond |= not ((reach == 0.0) | ((reach >= LEAST) & (reach <= MOST)))
            beyond |= not ((high[p] <= T(MODERATE)) & (low[p] >= T(-MODERATE)))
        for p in range(lanes):
            s[p] = T(s_wide[p])
        if beyond:
            load(logits, x, first, count, inner)
            bounds(logits, high, low)
            careful_sums(logits, None, weight, high, None, T(1), None, tile, part, s_wide, n, u, u, u)
            for p in range(lanes):
                s[p] = others(T(s_wide[p]), n[p], high[p])
                top[p] = T(1)
                c = np.int64(max(y[p], T(0)))
                own[p] = logits[c, p]
                own_e[p] = tile[c, p]
        for p in range(lanes):
            inverse[p] = T(1) / (top[p] + s[p])
            rest[p] = log1p(s[p] / top[p])
        for p in range(lanes):
            value, slope = point(product(w[p], np.float64(gap(own[p], high[p])) + np.float64(rest[p])))
            u[p] = 0.0 if y[p] == T(NONE) else value
            k[p] *= slope
        tile_sum = 0.0
        for p in range(count):
            tile_sum = add(tile_sum, u[p])
        total, error = compensated(total, error, tile_sum)
        if values.size > 0:
            for p in range(count):
                values[first + p] = T(u[p])
        if out is not None:
            for p in range(lanes):
                narrow = T(k[p])
                complement = s[p] * inverse[p] if own[p] == high[p] else T(1) - own_e[p] * inverse[p]
                at_label[p] = -narrow * complement
                factor[p] = narrow * inverse[p]
                old_y[p] = y[p]
            if skipped > 0:  # whose logits may be anything
                for p in range(lanes):
                    factor[p] = T(0) if y[p] == T(NONE) else factor[p]
                for c in range(classes):
                    line = tile[c]
                    for p in range(lanes):
                        line[p] = T(0) if y[p] == T(NONE) else line[p]
            if in_one:
                pending = True
                old_place = place
            else:
                write_all(finish, old, tiles, now, classes, lanes, tiles, now, lanes)
                store(tile, out, first, count, inner)
        if in_one:
            before, now, following = now, following, before
    if pending:
        write_all(finish, old, tiles, before, classes, lanes, out, old_place, inner)
    return closed(total, error)


FINISH = {"grad": grad}
MODES = ("value", *FINISH)
