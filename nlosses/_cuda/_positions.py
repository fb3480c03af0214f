"""One position's classes, shared by a thread, a warp or a block: reductions, accesses, and what is made of each element."""

from __future__ import annotations

import numpy as np

from .._scalar import product
from .._softmax import coefficient, gap, slope, spread
from ._backend import device, load, load16, store, store16
from ._blocks import WARP, block_sum, block_top, warp_sum, warp_top

# --- over the threads that share a position ----------------------------------------------------------------------------------


@device
def group_sum(x, lanes, scratch):
    if lanes == 1:
        return x
    if lanes == WARP:
        return warp_sum(x)
    return block_sum(x, scratch, lanes)


@device
def group_top(x, lanes, scratch):
    T = type(x)
    if lanes == 1:
        return x
    if lanes == WARP:
        return warp_top(x)
    return T(block_top(np.float64(x), scratch, lanes))


@device
def fetch(buffer, vectors, data, origin, step, start, stride, width, classes):
    """A thread's elements of a position whose class j stands at ``origin + j * step``.

    They come in runs of `width` classes, from `start`, `start + stride`, ... on; rows hold whole runs.
    """
    for v in range(vectors):
        j = start + v * stride
        if j < classes:
            if width > 1:
                load16(buffer, v * width, data, origin + j)
            else:
                buffer[v] = load(data, origin + j * step)


@device
def put(buffer, vectors, data, origin, step, start, stride, width, classes):
    """The inverse of `fetch`."""
    for v in range(vectors):
        j = start + v * stride
        if j < classes:
            if width > 1:
                store16(data, origin + j, buffer, v * width)
            else:
                store(data, origin + j * step, buffer[v])


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
