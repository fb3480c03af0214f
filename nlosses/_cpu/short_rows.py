"""Classwise driver for class indices and rows of not too many classes: value and gradient, without smoothing.

As `labels` has it, but rows stay as they lie, some at a time: exponentials and results are those of any piece of memory,
whatever row an element belongs to.  Between the two the label's exponential of each row is put aside, `_row_sums` adds the
others, and what the label's result will be made of takes its place.  The element k of a piece finds the factor of its row in a
vector of factors, by a table of k // classes.  For machines that have tables.
"""

from __future__ import annotations

import numpy as np

from . import _vector
from ._blocks import LINE, WIDE, aligned, alive, closed, copy, rounder_of, stack_buffer, uncounted
from ._indices import as_expected
from ._jit import inlined, optional
from ._row_sums import lay_out, row_sums
from ._scalar import exp_kept, log1p_all
from ._streams import ROWS, lag, lines, streams
from ._transpose import join
from ._vector import (
    BYTES,
    farther,
    farthest,
    filled,
    filled_short,
    lanes_of,
    load_part,
    load_short,
    permuted,
    pointer,
    prefetch,
    prefetch_far,
    settle,
    short_lanes_of,
    store_part,
    stream,
    unknown_zero,
)
from .labels import CACHED, FINISH, MODERATE, careful, derived, factors, per_block, quotients, summed  # noqa: F401
from .tiles import load

#: Bytes of classes from which on it is quicker to go row by row; `CHUNK` has room for twice as many classes.
MOST = 800
#: Bytes of exponentials at a time, which stay in the first cache beside what is read and written.
ROOM = 16384


@inlined
def tile_rows(lanes, classes, x):
    """Rows at a time: a part of the lanes of a tile, and a whole number of vectors."""
    n = lanes
    while (n > short_lanes_of(x)) & (n * classes * x.itemsize > ROOM):
        n //= 2
    return n


@inlined
def entered(x, first, n, tile, far, before):
    """Fill a tile with the exponentials of n logits while results of the one `before` are written; whether all of these logits
    are of a moderate size.

    Of an array that is `far`, fetch as much of what follows, into the second cache: the first has no room beside two tiles.
    """
    T, reach, zero = type(x[0]), filled(x, 0.0), unknown_zero(x)
    step, short = lanes_of(x), short_lanes_of(x)
    whole = n - n % step
    state = begun(before)
    for k in range(0, whole, step):
        if far:
            for i in range(first + n + k, first + n + k + step, step * LINE // BYTES):
                prefetch_far(x, i)
        logits = _vector.load(x, first + k)
        reach = farther(logits, reach)
        _vector.store(tile, k, exp_kept(logits, zero))
        state = written_behind(before, state, k, step)
    rest, zero = filled_short(x, 0.0), unknown_zero(filled_short(x, 0.0))
    for k in range(whole, n, short):
        logits = load_part(x, first + k, n - k)
        rest = farther(logits, rest)
        _vector.store(tile, k, exp_kept(logits, zero))
    write_rest(before, state, whole)
    return (farthest(reach) <= T(MODERATE)) & (farthest(rest) <= T(MODERATE))


@inlined
def take_out(ys, ignored, skipped, tile, classes, e):
    """Put aside the exponential of each row's label, and leave 0 for it."""
    if skipped == 0:
        for p in range(ys.size):
            taken(tile, p * classes + ys[p], e, p)
    else:
        for p in range(ys.size):
            taken(tile, p * classes + (ys[p] if ys[p] != ignored else 0), e, p)


@inlined
def taken(tile, at, e, p):
    e[p] = tile[at]
    tile[at] = 0


@inlined
def put_in(ys, ignored, skipped, tile, classes, own):
    """Put a number in the place of each row's label; nothing comes of a row that is ignored."""
    if skipped == 0:
        for p in range(ys.size):
            tile[p * classes + ys[p]] = own[p]
    else:
        for p in range(ys.size):
            if ys[p] != ignored:
                tile[p * classes + ys[p]] = own[p]
            else:
                for k in range(p * classes, (p + 1) * classes):
                    tile[k] = 0


@inlined
def sums(tile, classes, lanes, e, places, rest, factor, own):
    """Of each row log1p(o / e), the reciprocal of the sum of all exponentials, and -o."""
    for g in range(0, lanes, short_lanes_of(e)):
        quotients(row_sums(tile, g * classes, classes, places), load_short(e, g), g, rest, factor, own, None)
    log1p_all(rest, lanes)


@optional
def waiting(out, x, waits, first, n, flows, finish, tile, factor, rows, classes):
    """A tile of n elements, from `first` on, whose results are still to be written, if it waits: in whole lines if they flow
    past the caches, and so far `behind` the reading of the next tile as `lag` has it.  None where nothing is to be written.
    """
    target, step = pointer(out), short_lanes_of(out)
    begin, stop = lines(target, first, n) if flows else (0, n - n % step)
    if not waits:
        begin = stop = n = 0
    behind = lag(pointer(x), first + n, target, first + begin)
    further, more = step // classes, step % classes
    return target, first, begin, stop, n, flows, behind, finish, tile, factor, rows, classes, further, more


@optional
def begun(before):
    """Write what comes before the whole vectors of a tile; the row and the class with which these begin."""
    target, first, begin, _, _, _, _, finish, tile, factor, rows, classes, _, _ = before
    store_part(target, first, begin, results_of(finish, tile, factor, rows, 0, 0, 0))
    return begin // classes, begin % classes


@optional
def written_behind(before, state, k, n):
    """Write n elements, whole vectors, as far behind the one that is k elements after the first as they must stay; what
    `written` returns of the last one.
    """
    behind = before[6]
    if k >= behind:
        for i in range(k - behind, k - behind + n, short_lanes_of(before[8])):
            state = written(before, state, i)
    return state


@optional
def written(before, state, k):
    """Write the whole vector that is k elements after the first, if there is one; the row and class of the next one."""
    target, first, begin, stop, _, flows, _, finish, tile, factor, rows, classes, further, more = before
    row, c = state
    if begin + k < stop:
        results = results_of(finish, tile, factor, rows, begin + k, row, c)
        if flows:
            stream(target, first + begin + k, results)
        else:
            _vector.store(target, first + begin + k, results)
        c += more
        beyond = c >= classes
        row += further + beyond
        c -= classes if beyond else 0
    return row, c


@optional
def write_rest(before, state, k):
    """Write what `written_behind` has left when it has come to the element that is k after the first, and what follows the
    whole vectors.
    """
    target, first, begin, stop, n, _, behind, finish, tile, factor, rows, _, _, _ = before
    for i in range(max(0, k - behind), stop - begin, short_lanes_of(tile)):
        state = written(before, state, i)
    row, c = state
    store_part(target, first + stop, n - stop, results_of(finish, tile, factor, rows, stop, row, c))


@inlined
def results_of(finish, tile, factor, rows, k, row, c):
    """The results of a vector of elements from k on, which is class c of a row."""
    return finish(load_short(tile, k), permuted(load_short(factor, row), load_short(rows, c)))


@inlined
def block(
    point, curvature, finish, start, stop, x, labels, expected, probabilities, weight, vector, upstream, classes, inner,
    lanes, keep, even, ignored, scale, values, out,
):  # fmt: skip
    """Work on the positions start to stop, and return the sum of their values."""
    if not as_expected(labels, start, stop, classes, ignored, expected):
        return np.nan
    T = x.dtype.type
    lanes = tile_rows(lanes, classes, x)
    size, margin = lanes * classes, BYTES // x.itemsize
    # Two tiles in turn, each with its factors, and room for large logits.
    memory = aligned(2 * (size + lanes + 2 * margin) + 2 * size, x)
    tiles = uncounted(memory)
    apart = size + lanes + 2 * margin
    logits = tiles[2 * apart :][:size].reshape((classes, lanes))
    es = tiles[2 * apart + size :][:size].reshape((classes, lanes))
    now = 0
    waits = False
    # As in `labels`.
    rest, factor, own = stack_buffer(x.dtype), stack_buffer(x.dtype), stack_buffer(x.dtype)
    u, w, k = stack_buffer(WIDE), stack_buffer(WIDE), stack_buffer(WIDE)
    distance, high, low, e = stack_buffer(x.dtype), stack_buffer(x.dtype), stack_buffer(x.dtype), stack_buffer(x.dtype)
    n, part, wide, spare = stack_buffer(x.dtype), stack_buffer(x.dtype), stack_buffer(WIDE), stack_buffer(WIDE)
    source, inside, rows = stack_buffer(x.dtype), stack_buffer(x.dtype), stack_buffer(x.dtype)
    lay_out(classes, source, inside)
    places = load_short(source, 0), load_short(inside, 0) > T(0)
    for c in range(classes + short_lanes_of(x)):
        rows[c] = T(c // classes) + rounder_of(x)
    weighted = False
    for c in range(classes):
        weighted |= weight[c] != T(1)
    far = x.size * x.itemsize > CACHED
    flows = False
    if out is not None:
        flows = streams(out, x, ROWS)
    total = 0.0
    error = 0.0
    at = count = 0
    for first in range(start, stop, lanes):
        count = min(lanes, stop - first)
        ys = labels[first : first + count]
        at = first * classes
        for p in range(first + lanes, first + 2 * lanes, LINE // labels.itemsize):
            prefetch(pointer(labels), p)
        tile, old = pointer(tiles[now:]), tiles[apart - now :]
        before = waiting(
            out, x, waits, at - size, size, flows, finish, pointer(old), pointer(old[size + margin :]), pointer(rows), classes
        )  # fmt: skip
        moderate = fit = entered(pointer(x), at, count * classes, tile, far, before)
        skipped = 0
        for p in range(count):
            skipped += ys[p] == ignored
        same = not (weighted | (upstream.size > 0) | (skipped > 0))  # as most have it: one factor for all positions
        if not same:
            factors(ys, ignored, weight, weighted, scale, upstream, first, e, w, k)
        if moderate:
            take_out(ys, ignored, skipped, tile, classes, e)
            sums(tile, classes, lanes, e, places, rest, factor, own)
            fit = derived(point, same, scale, w, k, rest, None, count, lanes, u, factor)
        if not (fit | (moderate & (out is None))):
            load(logits, x, first, count, 1)
            careful(
                logits, ys, ignored, weight, keep, None, high, low, part, wide, spare, n, es, tiles, 2 * apart + size, lanes,
                distance, e, rest, factor, own, None, None,
            )  # fmt: skip
            join(es, tiles[now:][: count * classes], count)
            unread = spare if moderate else u  # the values are there already, and the same without a gradient
            derived(point, same, scale, w, k, rest, None, count, lanes, unread, factor)
        if skipped > 0:
            for p in range(count):
                u[p] = 0.0 if ys[p] == ignored else u[p]
                factor[p] = T(0) if ys[p] == ignored else factor[p]
        if out is not None:
            put_in(ys, ignored, skipped, tile, classes, own)
            copy(tiles[now + size + margin :], factor, lanes)
            waits = True
            now = apart - now
        total, error = summed(total, error, u, count, values, first)
    old = tiles[apart - now :]
    before = waiting(
        out, x, waits, at, count * classes, flows, finish, pointer(old), pointer(old[size + margin :]), pointer(rows), classes,
    )  # fmt: skip
    write_rest(before, begun(before), 0)
    if flows:
        settle()
    alive(memory)
    return closed(total, error)
