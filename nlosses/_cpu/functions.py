"""Kernels of sigmoid, log_sigmoid, and of the vector-Jacobian products of softmax and log_softmax."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import types

from .._maps import CLASSWISE, ELEMENTWISE
from . import _threads
from ._blocks import BLOCK
from ._jit import array, build
from ._shares import gathered, own_blocks, spread


def make_elementwise(function, stamp):
    def kernel(told, x, g, out):
        stamp  # noqa: B018  a closure cell, and so a part of the cache key
        n_blocks = (x.size + BLOCK - 1) // BLOCK
        if told > 0:
            return spread(told, n_blocks)
        first, last, room = own_blocks(told, n_blocks)
        for b in range(first, last):
            lo = b * BLOCK
            hi = min(lo + BLOCK, x.size)
            xs = x[lo:hi]
            gs = g[lo:hi]
            os = out[lo:hi]
            for i in range(hi - lo):
                os[i] = function(xs[i], gs[i])
            gathered(0.0, 0.0, room, b, 0.0)  # of which nothing comes, but threads add it up
        return 0.0

    return kernel


@cache
def _elementwise(name: str, dtype: Any) -> Any:
    signature = (types.int64, array(dtype), array(dtype), array(dtype, writable=True))
    return build(make_elementwise, f"{name}_{np.dtype(dtype).name}", {"function": ELEMENTWISE[name]}, signature)


def elementwise(name: str, x: np.ndarray, g: np.ndarray, out: np.ndarray) -> None:
    """Apply one of `ELEMENTWISE` to each element of flat arrays."""
    _threads.run(x.size, _elementwise(name, x.dtype), x, g, out)


def make_classwise(share, backward, stamp):
    def kernel(told, g, y, classes, inner, out):
        stamp  # noqa: B018  a closure cell, and so a part of the cache key
        positions = y.size // classes
        per_block = max(1, BLOCK // classes)
        n_blocks = (positions + per_block - 1) // per_block
        if told > 0:
            return spread(told, n_blocks)
        first, last, room = own_blocks(told, n_blocks)
        for b in range(first, last):
            for i in range(b * per_block, min((b + 1) * per_block, positions)):
                n = i // inner
                lo = n * classes * inner + (i - n * inner)
                dot = 0.0
                for j in range(lo, lo + classes * inner, inner):
                    dot += np.float64(g[j]) * np.float64(share(y[j]))
                for j in range(lo, lo + classes * inner, inner):
                    out[j] = backward(y[j], g[j], dot)
            gathered(0.0, 0.0, room, b, 0.0)  # of which nothing comes, but threads add it up
        return 0.0

    return kernel


@cache
def _classwise(name: str, dtype: Any) -> Any:
    signature = (types.int64, array(dtype), array(dtype), types.int64, types.int64, array(dtype, writable=True))
    share, backward = CLASSWISE[name]
    return build(make_classwise, f"{name}_{np.dtype(dtype).name}", {"share": share, "backward": backward}, signature)


def classwise(name: str, g: np.ndarray, y: np.ndarray, layout: tuple[int, int], out: np.ndarray) -> None:
    """Apply one of `CLASSWISE` to each row of flat arrays of the shape (N, classes, inner)."""
    _threads.run(y.size, _classwise(name, y.dtype), g, y, *layout, out)
