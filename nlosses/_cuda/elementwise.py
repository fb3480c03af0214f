"""Elementwise kernel: one pass over input and target gives the value, its derivative, or both, in one launch.

A thread takes `VECTORS` accesses of 16 bytes at a time.  All loads stand before the first use, so that they are under way
together.  Values are added in float64 one by one: two instructions beside the dozens of a loss, and no overflow to look out
for.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from .._cpu._jit import name_of
from .._scalar import product
from ._backend import Kernel, build, cuda, load, load16, store, store16
from ._blocks import ABSENT, DENOMINATOR, FULL, GRID, TOTAL, WARP, finish, stage, stage16, threads_of
from .arrays import Operand
from .arrays import width as width_of

THREADS = threads_of(256)
VECTORS = 2
WARPS = THREADS // WARP


def make(
    function, with_value, parameters_taken, p_kind, r_kind, w_kind, u_kind, v_kind, width, domains, reduced, normalised,
    with_values, with_out, threads, vectors, warps, none, stamp,
):  # fmt: skip
    elements = vectors * width
    x_low, x_high, t_low, t_high = domains or (0.0, 0.0, 0.0, 0.0)
    checked = domains is not None

    def kernel(
        x,
        t,
        n,
        p,
        p_inner,
        p_period,
        r,
        r_inner,
        r_period,
        weight,
        w_inner,
        w_period,
        upstream,
        u_inner,
        u_period,
        vector,
        scale,
        values,
        out,
        partial,
        counter,
        results,
        seen,
    ):
        stamp  # noqa: B018  a closure cell, and so a part of the cache key
        T = x.dtype.type
        tile = threads * elements
        xs = cuda.local.array(elements, x.dtype)
        ts = cuda.local.array(elements, x.dtype)
        ps = cuda.local.array(elements, x.dtype)
        rs = cuda.local.array(elements, x.dtype)
        ws = cuda.local.array(elements, x.dtype)
        us = cuda.local.array(elements, x.dtype)
        qs = cuda.local.array(elements, x.dtype)
        thread = np.int64(cuda.threadIdx.x)
        c = T(scale / results[DENOMINATOR]) if normalised else T(scale)
        total = 0.0
        bad = 0.0
        for base in range(np.int64(cuda.blockIdx.x) * tile, n, np.int64(cuda.gridDim.x) * tile):
            whole = base + tile <= n
            if width > 1 and whole:
                for k in range(vectors):
                    i = base + (k * threads + thread) * width
                    load16(xs, k * width, x, i)
                    load16(ts, k * width, t, i)
                    if p_kind != ABSENT:
                        stage16(ps, k * width, p, p_inner, p_period, p_kind, i, width)
                    if r_kind != ABSENT:
                        stage16(rs, k * width, r, r_inner, r_period, r_kind, i, width)
                    if w_kind != ABSENT:
                        stage16(ws, k * width, weight, w_inner, w_period, w_kind, i, width)
                    if u_kind != ABSENT:
                        stage16(us, k * width, upstream, u_inner, u_period, u_kind, i, width)
                    if v_kind != ABSENT:
                        load16(qs, k * width, vector, i)
            else:
                for e in range(elements):
                    i = base + (e // width * threads + thread) * width + e % width
                    i = i if i < n else n - 1
                    xs[e] = load(x, i)
                    ts[e] = load(t, i)
                    if p_kind != ABSENT:
                        stage(ps, e, p, p_inner, p_period, p_kind, i, 1)
                    if r_kind != ABSENT:
                        stage(rs, e, r, r_inner, r_period, r_kind, i, 1)
                    if w_kind != ABSENT:
                        stage(ws, e, weight, w_inner, w_period, w_kind, i, 1)
                    if u_kind != ABSENT:
                        stage(us, e, upstream, u_inner, u_period, u_kind, i, 1)
                    if v_kind != ABSENT:
                        qs[e] = load(vector, i)
            for e in range(elements):
                i = base + (e // width * threads + thread) * width + e % width
                if checked:
                    fits = (xs[e] >= T(x_low)) & (xs[e] <= T(x_high)) & (ts[e] >= T(t_low)) & (ts[e] <= T(t_high))
                    bad += 0.0 if fits else 1.0
                if parameters_taken == 0:
                    result = function(xs[e], ts[e])
                elif parameters_taken == 1:
                    if p_kind == ABSENT:
                        result = function(xs[e], ts[e], none)
                    else:
                        result = function(xs[e], ts[e], ps[e])
                elif p_kind == ABSENT:
                    if r_kind == ABSENT:
                        result = function(xs[e], ts[e], none, none)
                    else:
                        result = function(xs[e], ts[e], none, rs[e])
                elif r_kind == ABSENT:
                    result = function(xs[e], ts[e], ps[e], none)
                else:
                    result = function(xs[e], ts[e], ps[e], rs[e])
                if with_value:
                    v = result[0]
                    g = result[1]
                    if w_kind != ABSENT:
                        v = product(ws[e], v)
                    if reduced:
                        total += np.float64(v) if whole or i < n else 0.0
                    if with_values:
                        ts[e] = v
                else:
                    g = result
                if with_out:
                    if w_kind != ABSENT:
                        g = product(ws[e], g)
                    if u_kind != ABSENT and v_kind != ABSENT:
                        g = product(us[e] * qs[e], g)
                    elif u_kind != ABSENT:
                        g = product(us[e], g)
                    elif v_kind != ABSENT:
                        g = product(qs[e], g)
                    xs[e] = g * c
            if width > 1 and whole:
                for k in range(vectors):
                    i = base + (k * threads + thread) * width
                    if with_values:
                        store16(values, i, ts, k * width)
                    if with_out:
                        store16(out, i, xs, k * width)
            else:
                for e in range(elements):
                    i = base + (e // width * threads + thread) * width + e % width
                    if i < n:
                        if with_values:
                            store(values, i, ts[e])
                        if with_out:
                            store(out, i, xs[e])
        if reduced or checked:
            scratch = cuda.shared.array(warps, np.float64)
            last = cuda.shared.array(1, np.bool_)
            finish(total, bad, TOTAL, scratch, last, threads, partial, counter, results, seen)

    return kernel


@cache
def _kernel(
    function: Any, with_value: bool, kinds: tuple[int, ...], width: int, domains: Any, reduced: bool, normalised: bool,
    with_values: bool, with_out: bool,
) -> Kernel:  # fmt: skip
    taken, p_kind, r_kind, w_kind, u_kind, v_kind = kinds
    cells = {
        "function": function, "with_value": with_value, "parameters_taken": taken, "p_kind": p_kind, "r_kind": r_kind,
        "w_kind": w_kind, "u_kind": u_kind, "v_kind": v_kind, "width": width, "domains": domains, "reduced": reduced,
        "normalised": normalised, "with_values": with_values, "with_out": with_out, "threads": THREADS, "vectors": VECTORS,
        "warps": WARPS, "none": None,
    }  # fmt: skip
    parts = [name_of(function), *map(str, kinds), f"by{width}"]
    parts += ["checked"] * bool(domains) + ["sum"] * reduced + ["normalised"] * normalised
    parts += ["values"] * with_values + ["out"] * with_out
    return build(make, "_".join(parts), cells, THREADS)


def run(
    queue: Any,
    function: Any,
    with_value: bool,
    x: Any,
    t: Any,
    weight: Operand | None,
    upstream: Operand | None,
    vector: Operand | None,
    parameters: tuple[Operand | None, ...],
    domains: tuple[float, float, float, float] | None,
    scale: float,
    normalised: bool,
    reduced: bool,
    values: Any,
    out: Any,
) -> None:
    """Launch on `queue`: values to `values`, their sum to the queue's results, the scaled derivative to `out`.

    With `normalised` the scale is divided by the denominator among the queue's results.
    """
    empty: Operand = (x, 1, 1, ABSENT)
    p, r = (*[o or empty for o in parameters], empty, empty)[:2]
    w, u, v = weight or empty, upstream or empty, vector or empty
    n = x.size
    arrays = [x, t, *(a for a in (values, out) if a is not None), *(o[0] for o in (p, r, w, u, v) if o[3] == FULL)]
    width = width_of(0, *arrays)
    kinds = (len(parameters), p[3], r[3], w[3], u[3], v[3])
    kernel = _kernel(
        function, with_value, kinds, width, domains, reduced, normalised, values is not None, out is not None
    )  # fmt: skip
    tile = THREADS * VECTORS * width
    queue.launch(
        kernel, min(max(-(-n // tile), 1), GRID), x, t, n, *p[:3], *r[:3], *w[:3], *u[:3], v[0], np.float64(scale),
        x if values is None else values, x if out is None else out, *queue.summing,
    )  # fmt: skip
