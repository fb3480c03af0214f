"""Classwise driver for class indices and rows of many classes: value and gradient, and no weights beside smoothing.

As `labels` has it for tiles: one pass over the logits takes their exponentials as they are, to where the gradient will be, or
to a buffer if that is where the logits are or if it goes past the caches (see `_streams`).  Meanwhile those of the row before
are multiplied by their factor.  A row with a large logit, or a factor that is no normal number, gets its exponentials in
the way of `rows`.

With L = log1p(sum of all others / the label's exponential), a class j has -log p_j = L + x_y - x_j.  So smoothing takes no more
than the sum of x_y - x_j, in which what cancels is small beside L.
"""

from __future__ import annotations

import numpy as np

from .._scalar import log1p, product
from .._softmax import gap, lifted
from . import _vector
from ._blocks import (
    CHUNK,
    LINE,
    WIDE,
    aligned,
    alive,
    as_in,
    bounds_of,
    closed,
    compensated,
    fetched,
    near,
    put,
    stack_buffer,
    uncounted,
    view,
)
from ._indices import as_expected
from ._jit import inlined, jitable, optional
from ._scalar import exp_kept
from ._streams import ROWS, fetch_far, lag, streams
from ._vector import (
    BYTES,
    farther,
    farthest,
    filled,
    lanes_of,
    late,
    load_part,
    load_short,
    pointer,
    prefetch,
    settle,
    short_lanes_of,
    store_part,
    stream,
    unknown_zero,
    where_from,
    where_not,
    widened,
)
from .labels import MODERATE
from .rows import careful_sums, clear
from .rows import per_block as rows_per_block
from .tiles import FOLD

#: Bytes that are fetched ahead into the first cache, where exponentials do not come and go in it.
AHEAD = 4096
WIDE_LANES = BYTES // WIDE.itemsize
#: Bytes of classes up to which results are written while the next row is read: longer ones would have left the first cache.
WAITING = 8192
#: Bytes of classes up to which large results go past the caches: beside them two rows of each thread wait.
FLOWING = 1 << 23


@inlined
def sums(x, start, classes, y, even, es, by_way, before):
    """Of a row the sum of the exponentials of all classes but the label, of x_y - x_j if `even` is given, and the largest
    magnitude of a logit.

    The exponentials go to `es`, if that is given, which is where the results will be unless they go `by_way` of a buffer, and
    the results of the row `before` are written.
    """
    step = lanes_of(x)
    zero, unknown = filled(x, 0.0), unknown_zero(x)
    whole = classes - classes % step
    line = step * LINE // BYTES
    ahead = AHEAD // LINE * line
    last = classes - step  # its first lanes are those of the vector before too
    last_x = _vector.load(x, start + last)
    last_e = exp_kept(last_x, unknown)
    reach = farther(last_x, zero)
    total = lost = below = widened(zero)
    top = filled(x, x[start + y])
    for lo in range(0, whole, FOLD * step):
        part = part_below = zero
        for j in range(lo, min(lo + FOLD * step, whole), step):
            logits = _vector.load(x, start + j)
            for i in range(j, j + step, line):
                if by_way:
                    fetch_far(x, start + i)
                else:
                    prefetch(x, start + i + ahead)
                    fetched(es, i + ahead)
            e = exp_kept(logits, unknown)
            put(es, j, e)
            write(before, j)
            reach = farther(logits, reach)
            part = where_not(y - j, part + e, part)
            if even is not None:
                part_below = part_below + (top - logits)
        if even is not None:
            below = below + widened(part_below)
        total, lost = grown(total, lost, part, step)
    for i in range(whole, classes, line):  # or every row would wait for a line
        fetch_far(x, start + i)
    put(es, last, last_e)
    write_rest(before, whole, classes)
    first_new = step - (classes - whole)
    rest = where_not(y - last, where_from(first_new, last_e, zero), zero)
    s = _vector.total(total) + _vector.total(lost + widened(rest))
    if even is not None:
        below = below + widened(where_from(first_new, top - last_x, zero))
    return s, _vector.total(below), farthest(reach)


@inlined
def grown(total, lost, part, step):
    """A sum in float64 with one part more, and what has been lost in it so far."""
    wide = widened(part)
    sum_of_both = total + wide
    if step == WIDE_LANES:  # parts that were float32 have bits to spare
        added = sum_of_both - total
        lost = lost + ((total - (sum_of_both - added)) + (wide - added))
    return sum_of_both, lost


@optional
def write(before, j):
    """Write the results of a row from class j on, a vector of them, unless they flow past the caches and are to wait."""
    waits, flow, finish, es, target, to, factor = before
    flows, behind, joins, _, edge = flow
    if waits & flows:
        if j >= behind:
            write_lines(finish, es, target, to, factor, j - behind, j - behind + lanes_of(es), joins, edge)
    elif waits:
        _vector.store(target, to + j, finish(_vector.load(es, j), factor))


@inlined
def write_lines(finish, es, target, to, factor, begin, end, joins, edge):
    """Write, past the caches, the lines in which results from `begin` to `end` begin.

    The first line has its begin from the row before, if that `joins` this one.
    """
    n, step = late(target, to), short_lanes_of(es)
    for k in range(begin, end, step):
        if (k == 0) & (n > 0):
            results = finish(load_short(es, 0), factor)
            if joins:
                _vector.store(edge, n, results)
                stream(target, to - n, load_short(edge, 0))
            else:
                store_part(target, to, step - n, results)
        else:
            stream(target, to + k - n, finish(load_short(es, k - n), factor))


@optional
def write_rest(before, first, classes):
    """Write the results of a row that are no whole vector, or have waited.

    Those that flow, and fill no line, are left to the next row if that follows.
    """
    waits, flow, finish, es, target, to, factor = before
    flows, behind, joins, follows, edge = flow
    if waits & flows:
        write_lines(finish, es, target, to, factor, max(0, first - behind), first, joins, edge)
        step = short_lanes_of(es)
        at = first - late(target, to)
        last = classes - (classes - at) % step
        for k in range(at, last, step):
            stream(target, to + k, finish(load_short(es, k), factor))
        results = finish(load_part(es, last, classes - last), factor)
        if follows:
            _vector.store(edge, 0, results)
        else:
            store_part(target, to + last, classes - last, results)
    elif waits:
        for j in range(first, classes):
            target[to + j] = finish(es[j], factor)


@optional
def write_all(before, classes):
    """Write the results of a row that none follows."""
    es = before[3]
    for j in range(0, classes - classes % lanes_of(es), lanes_of(es)):
        write(before, j)
    write_rest(before, classes - classes % lanes_of(es), classes)


@inlined
def exponential_of(x, start, classes, y, room):
    """The exponential of one class, with the bits that it has among all of them."""
    first = min(y, classes - lanes_of(x))
    _vector.store(room, 0, exp_kept(_vector.load(x, start + first), unknown_zero(x)))
    return room[y - first]


@inlined
def normal(factor, product, x):
    """Whether a factor of exponentials is a normal number in the precision of x, or 0 because the product in it is."""
    T = x.dtype.type
    reach = abs(factor)
    return (product == 0.0) | ((reach >= np.finfo(T).tiny) & (reach <= np.finfo(T).max))


@optional
def share_of(even, k):
    """k times what smoothing gives to a class, and None without it."""
    return even * k


@optional
def kept(out, es):
    """Where exponentials are kept, and None where there are no results to make of them."""
    return es


@optional
def waiting(out, waits, flow, finish, es, to, factor):
    """A row whose results are still to be written, and None where there are none.

    Of the flow: whether they go past the caches; how many classes they stay behind; whether the row joins the one before, and
    is itself followed by one; and where what is between two rows is kept.
    """
    return waits, flow, finish, es, pointer(out), to, factor


@jitable
def per_block(positions, classes, lanes):
    """Rows of one unit of parallel work: of many more than one, since what the last one writes nothing overlaps."""
    return min(max(rows_per_block(positions, classes, lanes), positions // 64), CHUNK // 8)


@inlined
def block(
    point, curvature, finish, start, stop, x, labels, expected, probabilities, weight, vector, upstream, classes, inner,
    lanes, keep, even, ignored, scale, values, out,
):  # fmt: skip
    """Work on the rows start to stop, and return the sum of their values."""
    if not as_expected(labels, start, stop, classes, ignored, expected):
        return np.nan
    T = x.dtype.type
    by_way = flows = False  # whether the exponentials are elsewhere than the results will be
    if out is not None:
        flows = streams(out, x, ROWS) & (classes * x.itemsize <= FLOWING)
        by_way = flows | near(out, x)
    width = -(-classes * x.itemsize // LINE) * LINE // x.itemsize
    memory = aligned(2 * width if by_way else 1, x)  # for those of two rows, in turn
    rooms = uncounted(memory)
    one = stack_buffer(x.dtype)
    ratio, shift, w = stack_buffer(WIDE), stack_buffer(WIDE), stack_buffer(WIDE)
    waiting_pays = flows | (classes * x.itemsize <= WAITING)
    room = 0
    waits = joins = False
    edge = pointer(stack_buffer(x.dtype))
    old_es = pointer(rooms)
    old_lo = start * classes
    share = 0.0 if even is None else np.float64(even)  # of each class in all labels
    S = np.float64(keep) + share * classes
    factor = T(0), even
    for i in range(start, stop):
        lo = i * classes
        xs = x[lo : lo + classes]
        y = labels[i]
        r = i - start
        w[r] = ratio[r] = shift[r] = 0.0
        if y == ignored:  # its logits are not even looked at
            clear(view(out, lo, lo + classes))
            continue
        w[r] = np.float64(weight[y])
        k = scale * w[r]
        if upstream.size > 0:
            k = product(np.float64(upstream[i]), k)
        row = rooms[room:]
        if out is not None and not by_way:
            row = out[lo:]
        es = pointer(row)
        behind = 0
        if out is not None and flows:
            behind = lag(pointer(x), lo, pointer(out), old_lo)
        follows = lo == old_lo + classes
        before = waiting(out, waits, (flows, behind, joins, follows, edge), finish, old_es, old_lo, factor)
        others, below, reach = sums(pointer(x), lo, classes, y, even, kept(out, es), by_way, before)
        d = 0.0
        moderate = fits = reach <= T(MODERATE)
        if moderate:
            own = np.float64(exponential_of(pointer(x), lo, classes, y, one) if out is None else es[y])
            ratio[r] = others / own
            if even is not None:
                shift[r] = share * below
            if out is not None:
                _, d = point(product(w[r], shift[r] + S * log1p(ratio[r])))
                fits = normal(k * d * S / (own + others), k * d, x)
        if not fits:
            m, reach = bounds_of(xs)
            s, gaps, _, _ = careful_sums(xs, None, weight, m, reach, keep, even, view(kept(out, row), 0, classes))
            gaps += product(np.float64(keep), gap(np.float64(xs[y]), np.float64(m)))
            own = np.float64(lifted(xs[y], m, None))
            others = s + (1.0 - own)
            if not moderate:  # else the value is there already, and the same without a gradient
                ratio[r], shift[r] = s, gaps
            if out is not None:
                _, d = point(product(w[r], gaps + S * log1p(s)))
        if out is not None:
            k *= d
            es[y] = T(share * classes * (own + others) / S - others)
            factor = T(k * S / (own + others)), as_in(share_of(even, k), x)
            joins = waits & follows
            old_es, old_lo = es, lo
            if waiting_pays:
                waits = True
                room = width - room
            else:
                write_all(waiting(out, True, (False, 0, False, False, edge), finish, es, lo, factor), classes)
    write_all(waiting(out, waits, (flows, 0, joins, False, edge), finish, old_es, old_lo, factor), classes)
    if flows:
        settle()
    for r in range(stop - start):
        ratio[r] = log1p(ratio[r])
    total = 0.0
    error = 0.0
    for r in range(stop - start):
        value, _ = point(product(w[r], shift[r] + S * ratio[r]))
        value = value if labels[start + r] != ignored else 0.0
        total, error = compensated(total, error, value)
        if values.size > 0:
            values[start + r] = T(value)
    alive(memory)
    return closed(total, error)


@inlined
def lowered(results, less):
    return results if less is None else results - less


def grad(e, factor):
    slope, less = factor
    return lowered(e * slope, less)


FINISH = {"grad": grad}
