"""Classwise losses of logits on the CPU: which driver serves which layout."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any

import numpy as np
from numba import types

from .._spec import identity
from . import _threads, columns, label_rows, rows, short_rows, soft_rows, tiles, weighted_columns
from . import labels as of_labels
from ._blocks import as_in, closed, uncounted
from ._indices import CHECKED, worthwhile
from ._jit import array, build, name_of
from ._row_sums import LEAST
from ._shares import ALONE, gathered, own_blocks, spread
from ._vector import has_tables

#: Up to this many bytes of classes a tile of rows is quicker than row after row.
FEW = 192


@lru_cache(maxsize=64)
def ones(classes: int, dtype: Any) -> np.ndarray:
    """Weights where there are none; and what else is absent, of no classes."""
    return np.ones(classes, dtype)


def driver_of(
    layout: tuple[int, int],
    itemsize: int,
    plain: bool = False,
    even: float | None = None,
    soft: bool = False,
    linear: bool = False,
    apart: bool = False,
) -> Any:
    """The module of the driver for a layout of (classes, inner); `plain` is the gradient or value of class indices, which may
    be smoothed as if all classes had one weight, with an `even` share for each, and `soft` that of class probabilities without
    weights.  What is `linear` is surprisals, whose classes or positions may have to be told `apart`.
    """
    classes, inner = layout
    if soft and inner == 1 and classes * itemsize > FEW:
        return soft_rows
    if plain and even is None and inner == 1 and has_tables():
        if linear and 1 < classes <= columns.MOST and (not apart or classes * itemsize <= weighted_columns.MOST):
            return weighted_columns if apart else columns
        if classes > LEAST and classes * itemsize <= short_rows.MOST:
            return short_rows
    if plain and inner == 1 and classes * itemsize > of_labels.FEW:
        return label_rows
    modest = even is None or (classes > 1 and even * classes <= of_labels.MODEST)
    if plain and modest and (inner == 1 or classes <= of_labels.MOST_CLASSES):
        return of_labels
    return tiles if inner > 1 or classes * itemsize <= FEW else rows


def make(point, curvature, finish, block, per_block, stamp):
    """The kernel of one loss, one derivative (`finish`, or None for the value alone) and one driver (`block`)."""

    def kernel(
        told, x, labels, expected, probabilities, weight, vector, upstream, classes, inner, lanes, keep, even, ignored, scale,
        values, out,
    ):  # fmt: skip
        stamp  # noqa: B018  a closure cell, and so a part of the cache key
        x, labels, probabilities, weight = uncounted(x), uncounted(labels), uncounted(probabilities), uncounted(weight)
        vector, upstream, values, out = uncounted(vector), uncounted(upstream), uncounted(values), uncounted(out)
        positions = x.size // classes
        size = per_block(positions, classes, lanes)
        n_blocks = (positions + size - 1) // size
        if told > 0:
            return spread(told, n_blocks)
        kept = as_in(keep, x)
        evenly = as_in(even, x)
        total = 0.0
        error = 0.0
        first, last, room = own_blocks(told, n_blocks)
        for b in range(first, last):
            start = b * size
            block_sum = np.nan
            if worthwhile(expected, total):
                block_sum = block(
                    point, curvature, finish, start, min(start + size, positions), x, labels, expected, probabilities, weight,
                    vector, upstream, classes, inner, lanes, kept, evenly, ignored, scale, values, out,
                )  # fmt: skip
            total, error = gathered(total, error, room, b, block_sum)
        return closed(total, error)

    return kernel


@cache
def _kernel(point: Any, curvature: Any, mode: str, dtype: Any, driver: Any, labelled: bool | None, smooth: bool) -> Any:
    finish = driver.FINISH.get(mode)
    read, written = array(dtype), array(dtype, writable=True)
    signature = (
        types.int64, read,
        array(np.int64) if labelled is True else types.none, types.int64,
        read if labelled is False else types.none,
        read, read if mode == "hvp" else types.none, read,
        types.int64, types.int64, types.int64,
        types.float64, types.float64 if smooth else types.none, types.int64, types.float64,
        written, types.none if finish is None else written,
    )  # fmt: skip
    cells = {
        "point": point, "curvature": curvature if mode in ("hessian", "hvp") else None, "finish": finish,
        "block": driver.block, "per_block": driver.per_block,
    }  # fmt: skip
    parts = [name_of(point), mode, np.dtype(dtype).name, driver.__name__.rpartition(".")[2]]
    parts += ["labels"] * (labelled is True) + ["probabilities"] * (labelled is False) + ["smooth"] * smooth
    return build(make, "_".join(parts), cells, signature)


def serial(
    point: Any, curvature: Any, dtype: Any, classes: int
) -> Callable[[np.ndarray, np.ndarray, int, int, float, np.ndarray], float]:
    """What `run` would do on one thread for rows of class indices that are all alike: a function of x, target, what is
    expected of that, ignored, scale and out.
    """
    driver = driver_of((classes, 1), dtype.itemsize, True, linear=point is identity)
    one, none = ones(classes, dtype), ones(0, dtype)
    kernel = _kernel(point, curvature, "grad", dtype, driver, True, False)

    def sum_of(x: np.ndarray, target: np.ndarray, expected: int, ignored: int, scale: float, out: np.ndarray) -> float:
        lanes = tiles.lanes_for(classes, target.size, 1, dtype.itemsize)
        layout = classes, 1, lanes
        return kernel(ALONE, x, target, expected, None, one, None, none, *layout, 1.0, None, ignored, scale, none, out)

    return sum_of


def run(
    point: Any,
    curvature: Any,
    mode: str,
    x: np.ndarray,
    layout: tuple[int, int],
    target: np.ndarray | None = None,
    weight: np.ndarray | None = None,
    vector: np.ndarray | None = None,
    upstream: np.ndarray | None = None,
    keep: float = 1.0,
    even: float | None = None,
    ignored: int = -1,
    scale: float = 1.0,
    values: np.ndarray | None = None,
    out: np.ndarray | None = None,
    expected: int = CHECKED,
) -> float:
    """Sum of the values of all rows, which go to `values` too if that is given; the scaled derivative goes to `out`, which may
    be `x`.  NaN if class indices are not as they are `expected`.

    `layout` is (classes, inner): `x` is flat and of the shape (N, classes, inner).  The modes are the functions of
    `rows.FINISH`, and "value".
    """
    classes, inner = layout
    labelled = None if target is None else target.dtype.kind == "i"
    plain = bool(labelled) and (even is None or weight is None) and mode in of_labels.MODES
    soft = labelled is False and weight is None and mode in of_labels.MODES
    apart = weight is not None or upstream is not None or values is not None
    driver = driver_of(layout, x.itemsize, plain, even, soft, point is identity, apart)
    none = ones(0, x.dtype)
    kernel = _kernel(point, curvature, mode, x.dtype, driver, labelled, even is not None)
    return _threads.run(
        x.size, kernel, x, target if labelled is True else None, expected, target if labelled is False else None,
        ones(classes, x.dtype) if weight is None else weight, vector, none if upstream is None else upstream,
        classes, inner, tiles.lanes_for(classes, x.size // classes, inner, x.itemsize), keep, even, ignored, scale,
        none if values is None else values, out,
    )  # fmt: skip
