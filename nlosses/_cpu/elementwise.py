"""Elementwise driver: one pass over input and target gives the value, its derivative, or both."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import prange, types

from . import _threads
from ._blocks import BLOCK, CHUNK, add, closed, compensated, pick, staged, total_of, weighted
from ._jit import array, build, name_of

#: An operand that is broadcast: element i of it is ``data[i // inner % period]``.
Operand = tuple[Any, int, int]


def make(function, with_value, parameters_taken, in_place, stamp):
    """The kernel of one scalar function: ``point`` (`with_value`) or one of its further derivatives."""

    def kernel(x, t, weight, upstream, vector, parameters, scale, values, out):
        stamp  # noqa: B018  a closure cell, and so a part of the cache key
        c = x.dtype.type(scale)
        n_blocks = (x.size + BLOCK - 1) // BLOCK
        partial = np.empty(n_blocks)
        for b in prange(n_blocks):
            start = np.int64(b) * BLOCK
            total = 0.0
            error = 0.0
            for lo in range(start, min(start + BLOCK, x.size), CHUNK):
                hi = min(lo + CHUNK, x.size)
                n = hi - lo
                # Loops over views vectorise; loops over a range of the whole array do not (index wrap-around).
                xs = x[lo:hi]
                ts = t[lo:hi]
                ws = staged(weight, lo, n)
                us = staged(upstream, lo, n)
                qs = staged(vector, lo, n)
                if parameters_taken > 0:
                    ps = staged(parameters[0], lo, n)
                if parameters_taken > 1:
                    rs = staged(parameters[1], lo, n)
                if values is not None:
                    vs = values[lo:hi]
                if out is not None:
                    gs = xs if in_place else out[lo:hi]
                s = x.dtype.type(0)
                for i in range(n):
                    if parameters_taken == 0:
                        result = function(xs[i], ts[i])
                    elif parameters_taken == 1:
                        result = function(xs[i], ts[i], pick(ps, i))
                    else:
                        result = function(xs[i], ts[i], pick(ps, i), pick(rs, i))
                    w = pick(ws, i)
                    if with_value:
                        v = weighted(w, result[0])
                        g = weighted(w, result[1])
                        if values is None:
                            s = add(s, v)
                        else:
                            vs[i] = v
                    else:
                        g = weighted(w, result)
                    if out is not None:
                        gs[i] = weighted(pick(qs, i), weighted(pick(us, i), g)) * c
                total, error = compensated(total, error, np.float64(s))
            partial[b] = closed(total, error)
        return total_of(partial)

    return kernel


@cache
def _kernel(
    function: Any, with_value: bool, dtype: Any, operands: tuple[bool, ...], taken: tuple[bool, ...], unreduced: bool,
    out: str, parallel: bool,
) -> Any:
    operand = types.Tuple((array(dtype), types.int64, types.int64))
    optional = [operand if present else types.none for present in operands]
    parameters = types.Tuple([operand if present else types.none for present in taken])
    signature = (
        array(dtype, writable=out == "input"), array(dtype), *optional, parameters, types.float64,
        array(dtype, writable=True) if unreduced else types.none,
        {"array": array(dtype, writable=True), "input": types.boolean, "": types.none}[out],
    )  # fmt: skip
    cells = {
        "function": function, "with_value": with_value, "parameters_taken": len(taken), "in_place": out == "input",
    }  # fmt: skip
    name = "_".join(
        [name_of(function), np.dtype(dtype).name]
        + ["".join("01"[p] for p in (*operands, *taken))]
        + (["none"] if unreduced else [])
        + ([out] if out else [])
        + (["parallel"] if parallel else [])
    )
    return build(make, name, cells, signature, parallel)


def run(
    function: Any,
    with_value: bool,
    x: np.ndarray,
    t: np.ndarray,
    weight: Operand | None = None,
    upstream: Operand | None = None,
    vector: Operand | None = None,
    parameters: tuple[Operand | None, ...] = (),
    scale: float = 1.0,
    values: np.ndarray | None = None,
    out: np.ndarray | None = None,
) -> float:
    """Sum of the values (0 where they go to `values`); the scaled derivative goes to `out`, which may be `x`."""
    key = (
        function, with_value, x.dtype, (weight is not None, upstream is not None, vector is not None),
        tuple([p is not None for p in parameters]) if parameters else (), values is not None,
        "" if out is None else "input" if out is x else "array",
    )  # fmt: skip
    return _threads.run(
        x.size, _kernel, key, x, t, weight, upstream, vector, parameters, scale, values, True if out is x else out
    )
