"""Kernels of sigmoid, log_sigmoid, and of the vector-Jacobian products of softmax and log_softmax."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import prange, types

from .. import _scalar
from .._scalar import exp, expm1
from . import _threads
from ._blocks import BLOCK
from ._jit import array, build, jitable


def identity(u):
    return u, type(u)(1)


def sigmoid_forward(x, g):
    return _sigmoid(x)


def sigmoid_backward(y, g):
    return g * (y * (type(y)(1) - y))


def log_sigmoid_forward(x, g):
    return _log_sigmoid(x)


def log_sigmoid_backward(y, g):
    return -g * expm1(y)


_sigmoid = _scalar.sigmoid
_log_sigmoid = _scalar.log_sigmoid

ELEMENTWISE = {f.__name__: f for f in (sigmoid_forward, sigmoid_backward, log_sigmoid_forward, log_sigmoid_backward)}


def make_elementwise(function, stamp):
    def kernel(x, g, out):
        stamp  # noqa: B018  a closure cell, and so a part of the cache key
        for b in prange((x.size + BLOCK - 1) // BLOCK):
            lo = np.int64(b) * BLOCK
            hi = min(lo + BLOCK, x.size)
            xs = x[lo:hi]
            gs = g[lo:hi]
            os = out[lo:hi]
            for i in range(hi - lo):
                os[i] = function(xs[i], gs[i])

    return kernel


@cache
def _elementwise(name: str, dtype: Any, parallel: bool) -> Any:
    signature = (array(dtype), array(dtype), array(dtype, writable=True))
    full = "_".join([name, np.dtype(dtype).name] + ["parallel"] * parallel)
    return build(make_elementwise, full, {"function": ELEMENTWISE[name]}, signature, parallel)


def elementwise(name: str, x: np.ndarray, g: np.ndarray, out: np.ndarray) -> None:
    """Apply one of `ELEMENTWISE` to each element of flat arrays."""
    _threads.run(x.size, _elementwise, (name, x.dtype), x, g, out)


@jitable
def softmax_backward(g, y, out, lo, classes, inner):
    """Positions lo, lo + inner, ... of one row: y (g - sum(g y))."""
    dot = 0.0
    for c in range(classes):
        dot += np.float64(g[lo + c * inner]) * np.float64(y[lo + c * inner])
    total = y.dtype.type(dot)
    for c in range(classes):
        i = lo + c * inner
        out[i] = y[i] * (g[i] - total)


@jitable
def log_softmax_backward(g, y, out, lo, classes, inner):
    """Positions lo, lo + inner, ... of one row: g - exp(y) sum(g), without the cancellation of g where exp(y) is near 1."""
    dot = 0.0
    for c in range(classes):
        dot += np.float64(g[lo + c * inner])
    for c in range(classes):
        i = lo + c * inner
        others = y.dtype.type(dot - np.float64(g[i]))
        out[i] = -g[i] * expm1(y[i]) - exp(y[i]) * others


CLASSWISE = {f.__name__: f for f in (softmax_backward, log_softmax_backward)}


def make_classwise(row, stamp):
    def kernel(g, y, classes, inner, out):
        stamp  # noqa: B018  a closure cell, and so a part of the cache key
        positions = y.size // classes
        per_block = max(1, BLOCK // classes)
        for b in prange((positions + per_block - 1) // per_block):
            first = np.int64(b) * per_block
            for i in range(first, min(first + per_block, positions)):
                n = i // inner
                row(g, y, out, n * classes * inner + (i - n * inner), classes, inner)

    return kernel


@cache
def _classwise(name: str, dtype: Any, parallel: bool) -> Any:
    signature = (array(dtype), array(dtype), types.int64, types.int64, array(dtype, writable=True))
    full = "_".join([name, np.dtype(dtype).name] + ["parallel"] * parallel)
    return build(make_classwise, full, {"row": CLASSWISE[name]}, signature, parallel)


def classwise(name: str, g: np.ndarray, y: np.ndarray, layout: tuple[int, int], out: np.ndarray) -> None:
    """Apply one of `CLASSWISE` to each row of flat arrays of the shape (N, classes, inner)."""
    _threads.run(y.size, _classwise, (name, y.dtype), g, y, *layout, out)
