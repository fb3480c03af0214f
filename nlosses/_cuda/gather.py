"""Kernel of log-probabilities: only the label's own element counts, and only there is a gradient."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from .._cpu._jit import name_of
from .._scalar import product
from ._backend import Kernel, build, cuda, load, store
from ._blocks import DENOMINATOR, GRID, TOTAL, WARP, finish, threads_of

THREADS = threads_of(256)
WARPS = THREADS // WARP


def make_gather(
    point, second, bent, unsigned, weighted, upstreamed, normalised, with_vector, with_values, with_out, threads, warps, stamp
):
    def kernel(
        x,
        labels,
        weight,
        vector,
        upstream,
        classes,
        inner,
        positions,
        ignored,
        scale,
        values,
        out,
        partial,
        counter,
        results,
        seen,
    ):
        stamp  # noqa: B018
        T = x.dtype.type
        scratch = cuda.shared.array(warps, np.float64)
        last = cuda.shared.array(1, np.bool_)
        c = scale / results[DENOMINATOR] if normalised else scale
        total = 0.0
        bad = 0.0
        start = np.int64(cuda.blockIdx.x) * threads + np.int64(cuda.threadIdx.x)
        for p in range(start, positions, np.int64(cuda.gridDim.x) * threads):
            y = np.int64(load(labels, p))
            if unsigned and y < 0:
                y = classes
            value = 0.0
            if y != ignored:
                if y < 0 or y >= classes:
                    bad += 1.0
                else:
                    i = (p // inner * classes + y) * inner + p % inner
                    own = np.float64(load(weight, y) if weighted else T(1))
                    u = product(own, -np.float64(load(x, i)))
                    value, d = point(u)
                    if with_out:
                        derivative = own * own * second(u) if bent else -own * d
                        up = np.float64(load(upstream, p)) if upstreamed else 1.0
                        g = T(product(up, derivative * c))
                        store(out, i, g * load(vector, i) if with_vector else g)
            total += value
            if with_values:
                store(values, p, T(value))
        finish(total, bad, TOTAL, scratch, last, threads, partial, counter, results, seen)

    return kernel


@cache
def _gather(point: Any, curvature: Any, *flags: bool) -> Kernel:
    names = ("unsigned", "weighted", "upstreamed", "normalised", "with_vector", "with_values", "with_out")
    cells = {
        "point": point, "second": curvature or point, "bent": curvature is not None, **dict(zip(names, flags, strict=True)),
        "threads": THREADS, "warps": WARPS,
    }  # fmt: skip
    parts = [name_of(point), "gather", *(name for name, flag in cells.items() if flag is True)]
    return build(make_gather, "_".join(parts), cells, THREADS)


def run(
    queue: Any, point: Any, curvature: Any, x: Any, layout: tuple[int, int], labels: Any, weight: Any, vector: Any,
    upstream: Any, ignored: int, scale: float, normalised: bool, values: Any, out: Any,
) -> None:  # fmt: skip
    """As `classwise.run`, for log-probabilities; `out` must hold zeros.

    With `curvature`, `out` is the diagonal of the Hessian.
    """
    unsigned = labels.dtype.kind == "u"
    flags = (unsigned, *(a is not None for a in (weight, upstream)), normalised)
    flags += tuple(a is not None for a in (vector, values, out))
    arrays = [x if a is None else a for a in (weight, vector, upstream)]
    results = [x if a is None else a for a in (values, out)]
    n = labels.size
    queue.launch(
        _gather(point, curvature, *flags), min(max(-(-n // THREADS), 1), GRID), x, labels, *arrays, *layout, n, ignored,
        np.float64(scale), *results, *queue.summing,
    )  # fmt: skip
