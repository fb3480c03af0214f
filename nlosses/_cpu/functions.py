"""Kernels of sigmoid, log_sigmoid, and of the vector-Jacobian products of softmax and log_softmax."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import prange, types

from .._maps import CLASSWISE, ELEMENTWISE
from . import _threads
from ._blocks import BLOCK
from ._jit import array, build


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


def make_classwise(share, backward, stamp):
    def kernel(g, y, classes, inner, out):
        stamp  # noqa: B018  a closure cell, and so a part of the cache key
        positions = y.size // classes
        per_block = max(1, BLOCK // classes)
        for b in prange((positions + per_block - 1) // per_block):
            first = np.int64(b) * per_block
            for i in range(first, min(first + per_block, positions)):
                n = i // inner
                lo = n * classes * inner + (i - n * inner)
                dot = 0.0
                for j in range(lo, lo + classes * inner, inner):
                    dot += np.float64(g[j]) * np.float64(share(y[j]))
                for j in range(lo, lo + classes * inner, inner):
                    out[j] = backward(y[j], g[j], dot)

    return kernel


@cache
def _classwise(name: str, dtype: Any, parallel: bool) -> Any:
    signature = (array(dtype), array(dtype), types.int64, types.int64, array(dtype, writable=True))
    full = "_".join([name, np.dtype(dtype).name] + ["parallel"] * parallel)
    share, backward = CLASSWISE[name]
    return build(make_classwise, full, {"share": share, "backward": backward}, signature, parallel)


def classwise(name: str, g: np.ndarray, y: np.ndarray, layout: tuple[int, int], out: np.ndarray) -> None:
    """Apply one of `CLASSWISE` to each row of flat arrays of the shape (N, classes, inner)."""
    _threads.run(y.size, _classwise, (name, y.dtype), g, y, *layout, out)
