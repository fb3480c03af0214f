"""What the drivers of log-probabilities share: values and derivatives of positions, from the elements of their labels."""

from __future__ import annotations

import numpy as np

from .._scalar import product
from ._jit import inlined
from ._vector import pick, pointer


@inlined
def derive(point, curvature, scale, xs, n, us, gs):
    """Values and scaled derivatives of n positions that nothing distinguishes but their elements."""
    T = gs.dtype.type
    for i in range(n):
        u = -np.float64(xs[i])
        value, slope = point(u)
        us[i] = value
        gs[i] = T((-slope if curvature is None else curvature(u)) * scale)


@inlined
def derive_each(point, curvature, scale, xs, ws, weighted, upstream, n, us, gs, own, ups):
    """The same of positions that have weights, or gradients upstream that are theirs alone."""
    T = gs.dtype.type
    for i in range(n):
        own[i] = np.float64(ws[i]) if weighted else 1.0
        ups[i] = 1.0
    if upstream.size > 0:
        for i in range(n):
            ups[i] = np.float64(upstream[i])
    for i in range(n):
        u = product(own[i], -np.float64(xs[i]))
        value, slope = point(u)
        derivative = -own[i] * slope if curvature is None else own[i] * own[i] * curvature(u)
        us[i] = value
        gs[i] = T(product(ups[i], derivative * scale))


@inlined
def weights_of(weight, y, ignored, ws):
    """The weights of the labels, and any where a position is ignored."""
    for i in range(y.size):
        ws[i] = pick(weight, y[i] if y[i] != ignored else 0)


@inlined
def clear_ignored(y, ignored, us, gs):
    """Nothing comes of positions that are ignored, whose logits may be anything."""
    T = gs.dtype.type
    for i in range(y.size):
        us[i] = us[i] if y[i] != ignored else 0.0
        gs[i] = gs[i] if y[i] != ignored else T(0)


@inlined
def derive_run(point, curvature, scale, y, ignored, skipped, weight, upstream, first, xs, ws, us, gs, own, ups, values):
    """Values `us` and scaled derivatives `gs` of a run of positions from `first` on, whose elements are `xs`, so many of them
    ignored; values go to `values` too, if there is room.  The other buffers are to work in.
    """
    T, n = gs.dtype.type, y.size
    weighted = weight.size > 0
    if weighted | (upstream.size > 0):
        if weighted:
            weights_of(pointer(weight), y, ignored, ws)
        up = upstream[first : first + n] if upstream.size > 0 else upstream
        derive_each(point, curvature, scale, xs, ws, weighted, up, n, us, gs, own, ups)
    else:
        derive(point, curvature, scale, xs, n, us, gs)
    if skipped > 0:
        clear_ignored(y, ignored, us, gs)
    if values.size > 0:
        for i in range(n):
            values[first + i] = T(us[i])
