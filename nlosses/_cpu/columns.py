"""Classwise driver for class indices and rows of very few classes: the plainest losses alone, in registers.

The rows of a few vectors of positions become vectors of one class each.  With e, the exponential of the label, and o, the sum
of all others, the loss is log1p(o / e), and few logarithms are taken, as in `sums`.  There are no weights, no smoothing, no
gradients upstream, and nothing but the sum of the losses is asked for.  What holds a large logit, or seems to hold a label that
is no class, goes the way of `labels`.  For machines that have tables.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numba import types

from .._spec import Scalar
from . import _vector
from ._blocks import CHUNK, LINE, WIDE, aligned, alive, closed, compensated, copy, near, stack_buffer, uncounted
from ._columns import columns, rows
from ._indices import ALLOWED, COUNTING, as_expected
from ._jit import inlined, jitable, optional, overloaded
from ._scalar import exp_kept
from ._streams import ROWS, fetch_far, streams
from ._vector import (
    farther,
    farthest,
    filled_short,
    indices,
    late,
    load_short,
    pointer,
    prefetch,
    settle,
    short_lanes_of,
    store_part,
    stream,
    unknown_zero,
    where_other,
)
from .labels import FINISH, MODERATE, careful, derived, fits  # noqa: F401  a driver has what to make of the sums
from .labels import per_block as per_block_of_labels
from .sums import joined, sum_of_logarithms
from .tiles import BLOCK, INDEX, load

#: Up to this many classes rows are quicker as columns than as they lie.
MOST = 8
#: Positions whose losses are one product, and of two classes; `BLOCK` and `CHUNK` are whole numbers of groups.
GROUP, GROUP_OF_TWO = 64, 128
#: Vectors of positions whose groups' products may be one.
JOINED = 16
#: Bytes of two classes that are fetched ahead into the first cache.
AHEAD = 4096


@overloaded
def of_positions(number, at):
    """A number that is the same for all positions, or from an array those of a vector of them."""
    if isinstance(number, types.Number):
        return lambda number, at: number
    return lambda number, at: load_short(number, at)


@cache
def _of_classes(classes: int) -> tuple[Callable[..., Any], ...]:
    """What is done of tuples with so many vectors, one after the other; the first of them is class c."""
    if classes == 0:
        return (
            inlined(lambda x, at: ()),
            inlined(lambda xs, reach: reach),
            inlined(lambda xs, zero: ()),
            inlined(lambda es, label, c, o, e: (o, e)),
            inlined(lambda es, label, c, factor, own: ()),
            inlined(lambda vectors, out, at: None),
        )
    load_next, reach_next, exp_next, sum_next, result_next, store_next = _of_classes(classes - 1)

    def loaded(x, at):
        return (load_short(x, at), *load_next(x, at + short_lanes_of(x)))

    def reach_of(xs, reach):
        return reach_next(xs[1:], farther(xs[0], reach))

    def exponentials(xs, zero):
        return (exp_kept(xs[0], zero), *exp_next(xs[1:], zero))

    def sums(es, label, c, o, e):
        return sum_next(es[1:], label, c + 1, where_other(label, c, o + es[0], o), where_other(label, c, e, es[0]))

    def results(es, label, c, factor, own):
        return (where_other(label, c, es[0] * factor, own), *result_next(es[1:], label, c + 1, factor, own))

    def stored(vectors, out, at):
        _vector.store(out, at, vectors[0])
        store_next(vectors[1:], out, at + short_lanes_of(out))

    functions: tuple[Callable[..., Any], ...] = (loaded, reach_of, exponentials, sums, results, stored)
    return tuple([inlined(function) for function in functions])


@inlined
def with_labels(reach, label, mark, classes, most):
    """The farthest numbers, with those that are more than `most` where a label is neither a class nor the mark of those that
    are ignored, and less where it is.
    """
    T = type(reach)
    middle, scale = T(0.5) * T(classes - 1), T(2.0 * most) / T(classes)
    return farther(where_other(label, mark, (label - middle) * scale, T(0)), reach)


def _group_of(classes: int) -> Callable[..., Any]:
    """The kernel of a few vectors of rows of so many classes.

    Their gradients, `k` times those of the losses, go to a `place`, if there is a k, which `of_positions` takes, and o / e to
    `ratios`.  Returned are the product of all 1 + o / e, less 1, and the largest magnitude of a logit, or something between
    that and `MODERATE`; but more than `MODERATE` if a label is neither a class nor the `mark` of those that are ignored.  The
    exponentials are `kept` meanwhile: from logits to gradients it is a long way, and of several short ones more go on side by
    side.
    """
    loaded, reach_of, exponentials, sums, results_of, stored = _of_classes(classes)

    def write_gradients(k, es, label, mark, o, reciprocal, place, q):
        zero = type(o)(0)
        factor = where_other(label, mark, reciprocal * of_positions(k, q), zero)
        stored(rows(results_of(es, label, 0, factor, zero - o * factor)), place[0], place[1] + q * classes)

    gradients = optional(write_gradients)

    def group(x, at, ys, p, n, mark, k, place, ratios, kept):
        zero = filled_short(x, 0.0)
        unknown, one, product, reach = unknown_zero(zero), filled_short(x, 1.0), zero, zero
        step = short_lanes_of(x)
        for q in range(0, GROUP, step):
            xs = loaded(x, at + q * classes)
            for i in range(0, classes * step, step):
                fetch_far(x, at + q * classes + i)
            reach = reach_of(xs, reach)
            stored(columns(exponentials(xs, unknown)), kept, q * classes)
        for q in range(0, GROUP, step):
            label = indices(ys, p + q, zero) + unknown  # else LLVM compares whole numbers, in three instructions each
            reach = with_labels(reach, label, mark, classes, MODERATE)
            es = loaded(kept, q * classes)
            o, e = sums(es, label, 0, zero, zero)
            z = o + e
            reciprocal = one / (z * e)  # one division for both quotients
            ratio = where_other(label, mark, o * (z * reciprocal), zero)
            gradients(k, es, label, mark, o, e * reciprocal, place, q)
            _vector.store(ratios, q, ratio)
            product = joined(product, ratio)
        return product, farthest(reach)

    return inlined(group)


@inlined
def half_of(x):
    return x * type(x)(0.5)


def _group_of_two() -> Callable[..., Any]:
    """The same for two classes, where the exponential of the difference is all that is needed.

    What its rounding has lost is made up for: of a large one it would be many units in the last place of the exponential.
    In the place of the largest magnitude of a logit there is half of the largest difference, which may be as large.
    """
    loaded, _, _, _, _, stored = _of_classes(2)

    def write_gradients(k, label, mark, p, place, q):
        zero = type(p)(0)
        other = where_other(label, mark, p * of_positions(k, q), zero)
        own = zero - other
        stored(rows((where_other(label, 1, own, other), where_other(label, 1, other, own))), place[0], place[1] + 2 * q)

    gradients = optional(write_gradients)

    def group(x, at, ys, p, n, mark, k, place, ratios, kept):
        zero = filled_short(x, 0.0)
        unknown, one, product, reach = unknown_zero(zero), filled_short(x, 1.0), zero, zero
        step = short_lanes_of(x)
        for q in range(0, GROUP_OF_TWO, step):
            a, b = columns(loaded(x, at + 2 * q))
            for i in range(0, 2 * step, step):
                prefetch(x, at + 2 * q + i + AHEAD // LINE * step)
            label = indices(ys, p + q, zero)
            d = b - a
            v = d - b
            lost = (b - (d - v)) - (a + v)
            reach = with_labels(farther(d, reach), label, mark, 2, 2 * MODERATE)
            e = exp_kept(where_other(label, 1, d, -d), unknown)
            _vector.store(kept, q, e + e * where_other(label, 1, lost, -lost))
            _vector.store(kept, GROUP_OF_TWO + q, label)
        for q in range(0, GROUP_OF_TWO, step):
            e, label = load_short(kept, q), load_short(kept, GROUP_OF_TWO + q)
            ratio = where_other(label, mark, e, zero)
            gradients(k, label, mark, e * (one / (one + e)), place, q)
            _vector.store(ratios, q, ratio)
            product = joined(product, ratio)
        return product, half_of(farthest(reach))

    return inlined(group)


def _groups(classes: int = 2) -> Callable[..., Any]:
    """The same for any number of classes from this one on."""
    group = _group_of(classes) if classes > 2 else _group_of_two()
    if classes == MOST:
        return group
    wider = _groups(classes + 1)

    def groups(x, at, ys, p, n, mark, k, place, ratios, kept):
        if n == classes:
            return group(x, at, ys, p, n, mark, k, place, ratios, kept)
        return wider(x, at, ys, p, n, mark, k, place, ratios, kept)

    return inlined(groups)


_worked_on = _groups()


@optional
def given(out, slopes):
    """The factors of the gradient, and None where there is none."""
    return slopes


@optional
def target_of(out, at, straight, results):
    """Where gradients are written, and from which element on: to the output `straight`, or to results on their way."""
    return (pointer(out), at) if straight else (results, 0)


@optional
def write(out, to, n, flows, joins, results):
    """Write n results, from element `to` of the output on: past the caches, if they flow, but for those that fill no line.

    These are left before the results, where those that follow and `joins` find them.
    """
    target, step = pointer(out), short_lanes_of(out)
    if flows:
        behind = late(target, to)
        first = 0
        if (behind > 0) & (not joins):
            store_part(target, to, step - behind, load_short(results, 0))
            first = step
        for k in range(first, n, step):
            stream(target, to + k - behind, load_short(results, k - behind))
        _vector.store(results, -step, load_short(results, n - step))
    else:
        for k in range(0, n, step):
            _vector.store(target, to + k, load_short(results, k))


@optional
def finish(out, to, results):
    """Write what has been left before the results, where the next ones would begin."""
    target = pointer(out)
    behind = late(target, to)
    store_part(target, to - behind, behind, load_short(results, -behind))


@jitable
def per_block(positions, classes, lanes):
    """Positions of one unit of parallel work: whole groups."""
    return per_block_of_labels(positions, classes, BLOCK)


# What is made of a group's quotients: their product goes with others, and few logarithms are taken.


@inlined
def begun(like):
    """The product of some groups, how many they are, and how many products are kept by now."""
    return filled_short(like, 0.0), 0, 0


@inlined
def added(state, product, ratios, logs, size, positions, weights, values, total, error):
    """The running sums, and what is kept, with one group more."""
    pending, groups, taken = state
    step, most = short_lanes_of(logs), np.finfo(logs.dtype).max
    both = joined(pending, product)
    if ((groups + 1) * size <= JOINED * step) & (farthest(both) <= most):
        pending = both
        groups += 1
    else:
        _vector.store(logs, taken, pending)
        taken += step
        pending = product
        groups = 1
        if not farthest(product) <= most:
            for q in range(0, size, step):
                _vector.store(logs, taken, load_short(ratios, q))
                taken += step
            pending = filled_short(logs, 0.0)
            groups = 0
    if taken + size + step > CHUNK:
        total, error = compensated(total, error, sum_of_logarithms(logs, taken))
        taken = 0
    return (pending, groups, taken), total, error


@inlined
def ended(state, logs, total, error):
    """The sums with all that is kept."""
    pending, _, taken = state
    _vector.store(logs, taken, pending)
    return compensated(total, error, sum_of_logarithms(logs, taken + short_lanes_of(logs)))


# Weights and factors of the gradient: there are none, and there is one.


@inlined
def of_classes(weight, scale, like):
    """The weights and the factors of the classes, whether these fit, and whether those do."""
    return None, like.dtype.type(scale), fits(scale), True


@inlined
def of_group(slopes, fit, upstream, positions, size, ks):
    """The factors of a group, and whether they fit."""
    return slopes, fit


@inlined
def carefully(ys, ignored, weight, scale, upstream, first, of_class, w, k):
    """Tell weights and factors in float64; whether all positions have the same."""
    return True


def block_of(
    module: str, begun: Scalar, added: Scalar, ended: Scalar, of_classes: Scalar, of_group: Scalar, carefully: Scalar
) -> Scalar:
    """The `block` of a module, from what it makes of quotients and weights."""

    def block(
        point, curvature, finish_one, start, stop, x, labels, expected, probabilities, weight, vector, upstream, classes,
        inner, lanes, keep, even, ignored, scale, values, out,
    ):  # fmt: skip
        """Work on the positions start to stop, and return the sum of their values."""
        T = x.dtype.type
        step = short_lanes_of(x)
        size = GROUP if classes > 2 else GROUP_OF_TWO
        n = size * classes
        memory = aligned(step + 4 * n, x)
        room = uncounted(memory)
        results = pointer(room[step:])
        logits, es = room[step + n :][:n].reshape((classes, size)), room[step + 2 * n :][:n].reshape((classes, size))
        inputs, targets = room[step + 3 * n :], stack_buffer(INDEX)
        ratios, logs, ks = stack_buffer(x.dtype), stack_buffer(x.dtype), stack_buffer(x.dtype)
        # For large logits, or a factor that does not fit, as in `labels`.
        u, w, k = stack_buffer(WIDE), stack_buffer(WIDE), stack_buffer(WIDE)
        rest, factor, own = stack_buffer(x.dtype), stack_buffer(x.dtype), stack_buffer(x.dtype)
        distance, high, low, e = stack_buffer(x.dtype), stack_buffer(x.dtype), stack_buffer(x.dtype), stack_buffer(x.dtype)
        parts, part, wide, spare = stack_buffer(x.dtype), stack_buffer(x.dtype), stack_buffer(WIDE), stack_buffer(WIDE)
        weights, slopes, all_fit, modest = of_classes(weight, scale, x)
        flows = joins = straight = False  # how results are written: not where logits are still to be read
        if out is not None:
            flows = streams(out, x, ROWS)
            straight = not (flows | near(out, x))
        total = 0.0
        error = 0.0
        state = begun(x)
        for first in range(start, stop, size):
            count = min(size, stop - first)
            at = first * classes
            whole = count == size
            if (expected == ALLOWED) | (not whole):
                if not as_expected(labels, first, first + count, classes, ignored, expected):
                    total = np.nan
                    break
            xs, begin, ys, p = pointer(x), at, pointer(labels), first
            if not whole:
                copy(inputs, x[at:], count * classes)
                copy(targets, labels[first:], count)
                for i in range(count * classes, n):
                    inputs[i] = T(0)
                for i in range(count, size):
                    targets[i] = ignored
                xs, begin, ys, p = pointer(inputs), 0, pointer(targets), 0
            positions = ys, p, first, count, ignored
            written = straight & whole
            place = target_of(out, at, written, results)
            k_of_group, fit = of_group(slopes, all_fit, upstream, positions, size, ks)
            kept = pointer(room[step + 2 * n :])
            mark = T(np.inf) if whole & (expected == COUNTING) else T(ignored)  # of labels that are ignored
            product, reach = _worked_on(
                xs, begin, ys, p, classes, mark, given(out, k_of_group), place, pointer(ratios), kept
            )  # fmt: skip
            moderate = modest & (reach <= T(MODERATE))
            if moderate:
                state, total, error = added(state, product, ratios, logs, size, positions, weights, values, total, error)
            if not (moderate & (fit | (out is None))):
                if not as_expected(labels, first, first + count, classes, ignored, expected):
                    total = np.nan
                    break
                load(logits, x, first, count, 1)
                labelled = labels[first : first + count]
                careful(
                    logits, labelled, ignored, weight, keep, None, high, low, part, wide, spare, parts, es, room,
                    step + 2 * n, size, distance, e, rest, factor, own, None, None,
                )  # fmt: skip
                same = carefully(labelled, ignored, weight, scale, upstream, first, e, w, k)
                derived(point, same, scale, w, k, rest, None, count, size, u, factor)
                written = False
                for i in range(count):
                    y = labelled[i]
                    for c in range(classes):
                        number = es[c, i] if c != y else own[i]
                        room[step + i * classes + c] = number * factor[i] if y != ignored else T(0)
                    if not moderate:  # else the value is there already, and the same without a gradient
                        value = u[i] if y != ignored else 0.0
                        total, error = compensated(total, error, value)
                        if values.size > 0:
                            values[first + i] = T(value)
            if not written:
                if whole:
                    write(out, at, n, flows, joins, results)
                    joins = flows
                else:
                    if joins:
                        finish(out, at, results)
                        joins = False
                    if out is not None:
                        copy(out[at:], room[step:], count * classes)
        if joins:
            finish(out, stop * classes, results)
        if flows:
            settle()
        alive(memory)
        total, error = ended(state, logs, total, error)
        return closed(total, error)

    block.__module__, block.__qualname__ = module, "block"  # where it is found again, as the cache of kernels asks
    return inlined(block)


block = block_of(__name__, begun, added, ended, of_classes, of_group, carefully)
