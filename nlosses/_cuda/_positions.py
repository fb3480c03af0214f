"""One position's classes, shared by a thread, lanes of a warp or a block: reductions, accesses, what is made of an element."""

from __future__ import annotations

import numpy as np

from .._scalar import product
from .._softmax import coefficient, gap, slope, spread
from ._backend import device, load, load16, store, store16
from ._blocks import WARP, block_sum, block_top, lane_sum, lane_top

# --- over the threads that share a position ----------------------------------------------------------------------------------


@device
def group_sum(x, lanes, mask, scratch):
    if lanes == 1:
        return x
    if lanes <= WARP:
        return lane_sum(x, lanes, mask)
    return block_sum(x, scratch, lanes)


@device
def group_top(x, lanes, mask, scratch):
    T = type(x)
    if lanes == 1:
        return x
    if lanes <= WARP:
        return lane_top(x, lanes, mask)
    return T(block_top(np.float64(x), scratch, lanes))


@device
def fetch(buffer, vectors, data, origin, step, start, stride, width, classes):
    """A thread's elements of a position whose class j stands at ``origin + j * step``.

    They come in runs of `width` classes, from `start`, `start + stride`, ... on; rows hold whole runs.
    """
    left = np.int32(classes - start)  # rows are shorter than that, and comparisons of 32 bits take half the instructions
    for v in range(vectors):
        j = start + v * stride
        if v * stride < left:
            if width > 1:
                load16(buffer, v * width, data, origin + j)
            else:
                buffer[v] = load(data, origin + j * step)


@device
def put(buffer, vectors, data, origin, step, start, stride, width, classes):
    """The inverse of `fetch`."""
    left = np.int32(classes - start)
    for v in range(vectors):
        j = start + v * stride
        if v * stride < left:
            if width > 1:
                store16(data, origin + j, buffer, v * width)
            else:
                store(data, origin + j * step, buffer[v])


# --- rows that are no whole number of accesses --------------------------------------------------------------------------------
# A row then begins `skew` elements after an aligned one, from which on it is read; what is not the row's is -inf.


@device
def fetch_slanted(buffer, vectors, data, base, start, stride, width, skew, classes):
    """As `fetch`, of a row whose first class stands at ``base + skew``, with `base` aligned."""
    T = buffer.dtype.type
    low = np.int32(skew - start)
    left = np.int32(skew + classes - start)
    for v in range(vectors):
        k = v * stride
        if k < left:
            if k >= low and k + width <= left:
                load16(buffer, v * width, data, base + start + k)
            else:
                for i in range(width):
                    if k + i >= low and k + i < left:
                        buffer[v * width + i] = load(data, base + start + k + i)
                    else:
                        buffer[v * width + i] = T(-np.inf)


@device
def put_slanted(buffer, vectors, data, base, start, stride, width, skew, classes):
    """The inverse of `fetch_slanted`."""
    low = np.int32(skew - start)
    left = np.int32(skew + classes - start)
    for v in range(vectors):
        k = v * stride
        if k < left:
            if k >= low and k + width <= left:
                store16(data, base + start + k, buffer, v * width)
            else:
                for i in range(width):
                    if k + i >= low and k + i < left:
                        store(data, base + start + k + i, buffer[v * width + i])


# --- through shared memory ---------------------------------------------------------------------------------------------------
# A block's rows stand there one after the other, with a gap after each round of the banks: then no two lanes of a warp that
# read the same class of their rows meet in one bank, or two at the most, and nothing has to be divided.


@device
def gathered(tile, x, begin, length, moved, wide, shift, thread, threads):
    """`length` elements from `begin` on to shared memory, `wide` of them at a time."""
    whole = length // wide * wide if wide > 1 else 0
    for q in range(thread * wide, whole, threads * wide):
        load16(moved, 0, x, begin + q)
        for i in range(wide):
            store(tile, q + (q >> shift) + i, moved[i])
    for q in range(whole + thread, length, threads):
        store(tile, q + (q >> shift), load(x, begin + q))


@device
def scattered(out, tile, begin, length, moved, wide, shift, thread, threads):
    """The inverse of `gathered`."""
    whole = length // wide * wide if wide > 1 else 0
    for q in range(thread * wide, whole, threads * wide):
        for i in range(wide):
            moved[i] = load(tile, q + (q >> shift) + i)
        store16(out, begin + q, moved, 0)
    for q in range(whole + thread, length, threads):
        store(out, begin + q, load(tile, q + (q >> shift)))


@device
def fetch_row(buffer, tile, begin, classes, shift):
    for j in range(classes):
        buffer[j] = load(tile, begin + j + ((begin + j) >> shift))


@device
def put_row(buffer, tile, begin, classes, shift):
    for j in range(classes):
        store(tile, begin + j + ((begin + j) >> shift), buffer[j])


# --- what may be absent: chosen beforehand, for compiled code with a branch on None would go on with a value that may be None


@device
def given(x):
    return x


@device
def absent(x):
    return None


@device
def times(k, c):
    return k * c


@device
def neither(k, c):
    return None


@device
def flat(u):
    """The curvature of a loss that is linear in u."""
    return None


# --- what is made of an element, once the sums are known ---------------------------------------------------------------------
# `x` is the logit or, where a mode does not need that, exp(x - m); own, S and R are as in `nlosses._softmax`.


@device
def slope_of(e, t, w, is_label, r, S, own, keep, even):
    """du/dx, without the care for the maximum that a gradient needs."""
    T = type(e)
    q = coefficient(w, t, keep, even) + (T(own) if is_label else T(0))
    return slope(T(S), q, e * r)


def grad(e, t, w, v, is_label, m, s, r, rest, S, own, keep, even, k, k2, at_label, at_peak, dot, along):
    T = type(e)
    factor = T(k * S) * r
    usual = factor * e if even is None else slope(factor, T(k) * coefficient(w, t, keep, even), e)
    g = at_label if is_label else usual
    at_top = (s < T(1)) & (e == T(1))
    return at_peak if at_top and (is_label or even is not None) else g


def hessian(e, t, w, v, is_label, m, s, r, rest, S, own, keep, even, k, k2, at_label, at_peak, dot, along):
    T = type(e)
    h = T(k * S) * spread(e, s, r)
    if k2 is None:
        return h
    g = slope_of(e, t, w, is_label, r, S, own, keep, even)
    return h + T(k2) * (g * g)


def hvp(e, t, w, v, is_label, m, s, r, rest, S, own, keep, even, k, k2, at_label, at_peak, dot, along):
    T = type(e)
    h = T(k * S) * (e * r) * (v - T(dot))
    if k2 is None:
        return h
    return h + T(k2 * along) * slope_of(e, t, w, is_label, r, S, own, keep, even)


def target_grad(x, t, w, v, is_label, m, s, r, rest, S, own, keep, even, k, k2, at_label, at_peak, dot, along):
    T = type(x)
    return T(k) * keep * product(w, gap(x, m) + rest)


def softmax(e, t, w, v, is_label, m, s, r, rest, S, own, keep, even, k, k2, at_label, at_peak, dot, along):
    return e * r


def log_softmax(x, t, w, v, is_label, m, s, r, rest, S, own, keep, even, k, k2, at_label, at_peak, dot, along):
    return -(gap(x, m) + rest)


FINISH = {f.__name__: f for f in (grad, hessian, hvp, target_grad, softmax, log_softmax)}
OF_LOGITS = ("target_grad", "log_softmax")
