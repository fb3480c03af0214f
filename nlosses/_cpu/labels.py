"""Classwise driver for class indices and not too many classes: value and gradient, with no or moderate smoothing.

Tiles as in `tiles`, of exponentials of the logits as they are.  With e, the exponential of the label, and o, the sum of all
others, the loss is log1p(o / e), and the gradient is a factor times the exponentials, but -o for the label's.  A tile with a
large logit gets its exponentials in the way of `tiles`.

With smoothing, whose share of each class is `even`, the loss has even times the sum of x_y - x_j in addition, and the gradient
has even times (o + e) less in the place of each exponential.

Where other axes follow that of the classes, the results of a tile are written by `_planes` while the next one is read.
"""

from __future__ import annotations

import numpy as np

from .._scalar import log1p, product
from .._softmax import gap, others
from . import _vector
from ._blocks import LINE, WIDE, add, aligned, alive, closed, compensated, copy, fetched, placed, put, stack_buffer, uncounted
from ._derived import weights_of
from ._indices import as_expected
from ._jit import inlined, jitable, optional
from ._planes import entered, write_all
from ._scalar import exp_kept, log1p_all
from ._streams import IMAGES, streams
from ._vector import (
    BYTES,
    farther,
    farthest,
    filled,
    lanes_of,
    narrowed,
    pick,
    pointer,
    prefetch,
    settle,
    unknown_zero,
    where_other,
    widened,
)
from .tiles import BLOCK, FOLD, bounds, lanes_like, load, store
from .tiles import sums as careful_sums

#: Up to this many bytes of classes a tile of rows is quicker than row after row.
FEW = 508
#: Of more classes a tile would be too narrow.
MOST_CLASSES = 1024
#: Up to this much smoothing the loss is not much less than log1p(o / e), whose rounding error it has.
MODEST = 0.5
#: Logits up to this size, and factors of the gradient within these bounds, leave every product with an exponential of a logit,
#: and the quotient of two sums of them, within float32: so do just about MOST_CLASSES with the largest of them all.
MODERATE, LEAST, MOST = 40.0, 2.0**-50, 2.0**50
#: Up to this many classes it is quicker to ask each of them whether it is a position's label than to go to its place.
COMPARED = 8
#: The label of a position that is ignored, or of a lane that has none.
NONE = -1.0
#: Bytes of logits that are in some cache anyway.
CACHED = 1 << 19


@inlined
def taken(tiles, tile, x, first, inner, out):
    """Let the logits of a tile give way to their exponentials; the largest magnitude of them."""
    n, start, following = tile.size, first * tile.shape[0], (first + tile.shape[1]) * tile.shape[0]
    if (inner == 1) & (x.size * x.itemsize > CACHED):
        return exponentials(tiles, n, True, pointer(x), following, placed(out), start)
    return exponentials(tiles, n, False, pointer(x), following, placed(out), start)


@inlined
def exponentials(tiles, n, far, x, following, target, to):
    """Let the first n logits give way to their exponentials; the largest magnitude of them.

    Of arrays that are `far`, fetch as much of the logits that follow, and of the place of the results.
    """
    reach, zero = filled(tiles, 0.0), unknown_zero(tiles)
    step = lanes_of(tiles)
    for k in range(0, n, step):
        if far:
            for i in range(k, k + step, step * LINE // BYTES):
                prefetch(x, following + i)
                fetched(target, to + i)
        logits = _vector.load(tiles, k)
        reach = farther(logits, reach)
        _vector.store(tiles, k, exp_kept(logits, zero))
    return farthest(reach)


@inlined
def read_labels(ys, ignored, y, lanes):
    """The labels as numbers of the caller's precision, `NONE` where a position is ignored or a lane has none.

    The result is how many positions are ignored.
    """
    T = y.dtype.type
    skipped = 0
    for p in range(lanes):
        y[p] = T(NONE)
    for p in range(ys.size):
        kept = ys[p] != ignored
        skipped += not kept
        y[p] = T(ys[p]) if kept else T(NONE)
    return skipped


@optional
def distances(even, source, at, step, classes, lanes, ys, ignored, label, shift):
    """Of each position `even` times the sum of all differences between the `label`'s logit and the others."""
    T = label.dtype.type
    zero = filled(source, 0.0)
    for p in range(lanes):
        label[p] = T(0)
    for p in range(ys.size):
        label[p] = pick(source, at + (ys[p] if ys[p] != ignored else 0) * step + p)
    for g in range(0, lanes, lanes_of(source)):
        x_y, total = _vector.load(label, g), widened(zero)
        for first in range(0, classes, FOLD):
            part = zero
            for c in range(first, min(first + FOLD, classes)):
                part = part + (x_y - _vector.load(source, at + c * step + g))
            total = total + widened(part)
        _vector.store(shift, g, total * np.float64(even))


@inlined
def loss_of(rest, shift, p):
    if shift is None:
        return np.float64(rest[p])
    return shift[p] + np.float64(rest[p])


@inlined
def sums(tiles, room, stride, classes, lanes, y, rest, factor, own, wholes):
    """Of each position log1p(o / e), the reciprocal of the sum of all exponentials, and -o: sums of four parts, each of few
    terms, and then in float64.
    """
    zero, one = filled(tiles, 0.0), filled(tiles, 1.0)
    for g in range(0, lanes, lanes_of(tiles)):
        label = _vector.load(y, g)
        c, e, total = zero, zero, widened(zero)
        for first in range(0, classes, 4 * FOLD):
            last = min(first + 4 * FOLD, classes)
            whole = last - (last - first) % 4
            q, r, s, t = zero, zero, zero, zero
            for i in range(first, whole, 4):
                at = room + i * stride + g
                q, e = beside(tiles, at, label, c, q, e)
                c = c + one
                r, e = beside(tiles, at + stride, label, c, r, e)
                c = c + one
                s, e = beside(tiles, at + 2 * stride, label, c, s, e)
                c = c + one
                t, e = beside(tiles, at + 3 * stride, label, c, t, e)
                c = c + one
            for i in range(whole, last):
                r, e = beside(tiles, room + i * stride + g, label, c, r, e)
                c = c + one
            total = total + widened((q + r) + (s + t))
        quotients(narrowed(total, y), e, g, rest, factor, own, wholes)
    log1p_all(rest, lanes)


@inlined
def quotients(o, e, at, rest, factor, own, wholes):
    """Of the sums of all others and the label's exponentials o / e, the reciprocal of both together, and -o."""
    z = o + e
    reciprocal = type(z)(1) / (z * e)  # one division for both quotients
    _vector.store(rest, at, o * (z * reciprocal))
    _vector.store(factor, at, e * reciprocal)
    _vector.store(own, at, -o)
    put(wholes, at, z)


@inlined
def beside(tiles, at, label, c, part, own):
    """The sum of what is not the label's with one class more, and the label's."""
    x = _vector.load(tiles, at)
    return where_other(label, c, part + x, part), where_other(label, c, own, x)


@inlined
def put_own(ys, ignored, skipped, tiles, room, stride, classes, lanes, y, own):
    """Put a number in the place of each position's label."""
    if classes <= COMPARED:
        for g in range(0, lanes, lanes_of(tiles)):
            label, number = _vector.load(y, g), _vector.load(own, g)
            for c in range(classes):
                to = room + c * stride + g
                _vector.store(tiles, to, where_other(label, c, _vector.load(tiles, to), number))
    elif skipped > 0:
        for p in range(ys.size):
            c = ys[p] if ys[p] != ignored else 0
            tiles[room + c * stride + p] = own[p]
    else:
        for p in range(ys.size):
            tiles[room + ys[p] * stride + p] = own[p]


@optional
def spread(even, tiles, room, stride, classes, lanes, y, own, wholes):
    """As `put_own`, with smoothing: it takes its share from each class, and from the label's all that the others get."""
    T = y.dtype.type
    for g in range(0, lanes, lanes_of(tiles)):
        label, whole = _vector.load(y, g), _vector.load(wholes, g)
        share = whole * even
        number = _vector.load(own, g) + whole * (even * T(classes - 1))  # the difference of the two is exact as it stands
        for c in range(classes):
            to = room + c * stride + g
            _vector.store(tiles, to, where_other(label, c, _vector.load(tiles, to) - share, number))


@inlined
def factors(ys, ignored, weight, weighted, scale, upstream, first, of_class, w, k):
    """Weights of the positions, and the factors of du/dx; positions that are ignored have none."""
    if weighted:
        weights_of(pointer(weight), ys, ignored, of_class)
        for p in range(ys.size):
            w[p] = np.float64(of_class[p]) if ys[p] != ignored else 0.0
    else:
        for p in range(ys.size):
            w[p] = 1.0 if ys[p] != ignored else 0.0
    for p in range(ys.size):
        k[p] = scale * w[p]
    if upstream.size > 0:
        for p in range(ys.size):
            k[p] = product(np.float64(upstream[first + p]), k[p])


@inlined
def fits(k):
    """Whether a factor is 0 or neither very small nor very large."""
    reach = abs(k)
    return (reach == 0.0) | ((reach >= LEAST) & (reach <= MOST))


@inlined
def clear_ignored(ys, ignored, tiles, room, stride, classes, lanes, y, u):
    """Nothing comes of positions that are ignored, whose logits may be anything."""
    for p in range(ys.size):
        u[p] = 0.0 if ys[p] == ignored else u[p]
    zero = filled(tiles, 0.0)
    for g in range(0, lanes, lanes_of(tiles)):
        label = _vector.load(y, g)
        for c in range(classes + 1):
            to = room + c * stride + g
            _vector.store(tiles, to, where_other(label, NONE, _vector.load(tiles, to), zero))


@inlined
def derived(point, same, scale, w, k, rest, shift, count, lanes, u, factor):
    """The values, and the factors of the exponentials times those of the gradient; whether all these fit."""
    T = factor.dtype.type
    beyond = 0
    if same:
        for p in range(lanes):
            value, slope = point(loss_of(rest, shift, p))
            u[p] = value
            factor[p] *= T(scale * slope)
            beyond |= (p < count) & (not fits(scale * slope))
    else:
        for p in range(count):
            value, slope = point(product(w[p], loss_of(rest, shift, p)))
            u[p] = value
            factor[p] *= T(k[p] * slope)
            beyond |= not fits(k[p] * slope)
    return beyond == 0


@optional
def waiting(out, waits, finish, room, place, begins, flows):
    """The tile before as `_planes` wants to know of it, and None where nothing is to be written."""
    return waits, finish, room, pointer(out), place, begins, flows


@inlined
def careful(
    logits, ys, ignored, weight, keep, even, high, low, part, wide, scratch, n, es, tiles, room, stride, distance, e, rest,
    factor, own, wholes, shift,
):  # fmt: skip
    """As `sums`, of exponentials as `tiles` has them, less the largest logit, and with the distance from it to the label's.

    These exponentials are in `es`, and in `tiles` too, which may be the same.
    """
    T = logits.dtype.type
    classes, lanes = logits.shape
    bounds(logits, high, low)
    if even is None:
        careful_sums(logits, None, weight, high, keep, None, es, part, wide, n, wide, wide, wide)
    else:
        careful_sums(logits, None, weight, high, keep, even, es, part, wide, n, shift, scratch, scratch)
    for c in range(classes):
        copy(tiles[room + c * stride :], es[c], lanes)
    for p in range(lanes):
        rest[p] = others(T(wide[p]), n[p], high[p])
        e[p] = T(0)
        distance[p] = T(0)
    for p in range(ys.size):
        c = ys[p] if ys[p] != ignored else 0
        distance[p] = gap(logits[c, p], high[p])
        e[p] = es[c, p]
    for p in range(lanes):
        own[p] = -(rest[p] + (T(1) - e[p]))
        factor[p] = T(1) / (rest[p] + T(1))
        if wholes is not None:
            wholes[p] = rest[p] + T(1)
    for p in range(lanes):
        if shift is None:
            rest[p] = distance[p] + log1p(rest[p])
        else:
            shift[p] += product(np.float64(keep), np.float64(distance[p]))
            rest[p] = log1p(rest[p])


@inlined
def summed(total, error, u, count, values, first):
    """A compensated sum with the values of a tile, which go to `values` too, if there is room."""
    tile_sum = 0.0
    for p in range(count):
        tile_sum = add(tile_sum, u[p])
    if values.size > 0:
        for p in range(count):
            values[first + p] = values.dtype.type(u[p])
    return compensated(total, error, tile_sum)


@jitable
def per_block(positions, classes, lanes):
    """Positions of one unit of parallel work, in whole tiles: of many more, since what the last one writes nothing overlaps."""
    return max(1, min(max(BLOCK, positions // 64), 8 * BLOCK) // lanes) * lanes


@inlined
def block(
    point, curvature, finish, start, stop, x, labels, expected, probabilities, weight, vector, upstream, classes, inner,
    lanes, keep, even, ignored, scale, values, out,
):  # fmt: skip
    """Work on the positions start to stop, and return the sum of their values."""
    if not as_expected(labels, start, stop, classes, ignored, expected):
        return np.nan
    T = x.dtype.type
    margin = LINE // x.itemsize
    size = (classes + 1) * (lanes + margin)  # of a tile with its factors as the last row, and a margin before each row
    memory = aligned(2 * size + 2 * margin + 2 * classes * lanes, x)
    tiles = uncounted(memory)
    tile = tiles[: classes * lanes].reshape((classes, lanes))  # where others do not lie in one piece
    logits = tiles[2 * size + 2 * margin :][: classes * lanes].reshape((classes, lanes))
    es = tiles[2 * size + 2 * margin + classes * lanes :].reshape((classes, lanes))
    # Of each position: the label; the loss for a weight of 1, but for `shift`; the factor of the gradient, and by what it is
    # multiplied in the place of the label.
    y, rest, factor, own = stack_buffer(x.dtype), stack_buffer(x.dtype), stack_buffer(x.dtype), stack_buffer(x.dtype)
    # The value, the weight, and the factor of du/dx.
    u, w, k = stack_buffer(WIDE), stack_buffer(WIDE), stack_buffer(WIDE)
    # For logits that are large; `e` also holds logits and weights of the labels before.
    distance, high, low, e = stack_buffer(x.dtype), stack_buffer(x.dtype), stack_buffer(x.dtype), stack_buffer(x.dtype)
    n, part, wide, spare = stack_buffer(x.dtype), stack_buffer(x.dtype), stack_buffer(WIDE), stack_buffer(WIDE)
    # With smoothing: the sum of all exponentials, and the loss beside `rest`.
    wholes, shift = lanes_like(even, x.dtype), lanes_like(even, WIDE)
    weighted = False
    for c in range(classes):
        weighted |= weight[c] != T(1)
    flows = False
    if out is not None:
        flows = streams(out, x, IMAGES)
    now = margin
    waits = begins = False  # whether the tile before is still to be written, and whether none is before that
    total = 0.0
    error = 0.0
    for first in range(start, stop, lanes):
        count = min(lanes, stop - first)
        ys = labels[first : first + count]
        group = first // inner
        d = first - group * inner
        place = group * classes * inner + d
        pieces = (inner > 1) & (d + lanes <= inner) & (count == lanes)  # each class lies in one piece
        room, stride = (now, lanes + margin) if pieces else (0, lanes)
        shape = classes, inner, lanes, stride
        for p in range(first + lanes, first + 2 * lanes, LINE // labels.itemsize):
            prefetch(pointer(labels), p)
        if pieces:
            before = waiting(out, waits, finish, size + 2 * margin - now, place - lanes, begins, flows)
            reach = entered(pointer(x), place, pointer(tiles), room, shape, before)
            distances(even, pointer(x), place, inner, classes, lanes, ys, ignored, e, shift)
        else:
            load(tile, x, first, count, inner)
            distances(even, pointer(tiles), 0, lanes, classes, lanes, ys, ignored, e, shift)
            reach = taken(pointer(tiles), tile, x, first, inner, out)
        skipped = read_labels(ys, ignored, y, lanes)
        same = not (weighted | (upstream.size > 0) | (skipped > 0))  # as most have it: one factor for all positions
        if not same:
            factors(ys, ignored, weight, weighted, scale, upstream, first, e, w, k)
        moderate = fit = reach <= T(MODERATE)
        if moderate:
            sums(pointer(tiles), room, stride, classes, lanes, y, rest, factor, own, placed(wholes))
            fit = derived(point, same, scale, w, k, rest, shift, count, lanes, u, factor)
        if not (fit | (moderate & (out is None))):
            load(logits, x, first, count, inner)
            careful(
                logits, ys, ignored, weight, keep, even, high, low, part, wide, spare, n, es, tiles, room, stride, distance, e,
                rest, factor, own, wholes, shift,
            )  # fmt: skip
            unread = spare if moderate else u  # the values are there already, and the same without a gradient
            derived(point, same, scale, w, k, rest, shift, count, lanes, unread, factor)
        if out is not None:
            if even is None:
                put_own(ys, ignored, skipped, pointer(tiles), room, stride, classes, lanes, y, own)
            else:
                spread(even, pointer(tiles), room, stride, classes, lanes, y, own, wholes)
            copy(tiles[room + classes * stride :], factor, lanes)
        if skipped > 0:
            clear_ignored(ys, ignored, pointer(tiles), room, stride, classes, lanes, y, u)
        total, error = summed(total, error, u, count, values, first)
        if out is not None:
            if not pieces:
                write_all(finish, pointer(tiles), 0, (classes, lanes, lanes, lanes), pointer(tiles), 0, False, False)
                store(tile, out, first, count, inner)
            elif (d + 2 * lanes <= inner) & (first + 2 * lanes <= stop):
                begins = not waits
                waits = True
                now = size + 2 * margin - now
            else:
                write_all(finish, pointer(tiles), room, shape, pointer(out), place, not waits, flows)
                waits = False
    if flows:
        settle()
    alive(memory)
    return closed(total, error)


def grad(e, factor):
    return e * factor


FINISH = {"grad": grad}
MODES = ("value", *FINISH)
