"""sigmoid, log_sigmoid, softmax, log_softmax and their vector-Jacobian products, of arrays on a GPU.

Forward passes and the products of each element by itself go through the kernels of the losses.  The products of rows have one
of their own, in which a thread, lanes of a warp or a block take a row as in `classwise`.
"""

from __future__ import annotations

from functools import cache
from math import prod
from typing import Any

import numpy as np

from .. import _arrays, _validate
from .._maps import CLASSWISE, ELEMENTWISE
from .._spec import identity
from . import arrays, classwise
from . import elementwise as losses
from ._backend import Kernel, build, cuda
from ._blocks import GRID, WARP, mask_of
from ._positions import fetch, group_sum, put


def make_backward(share, backward, planes, single, vectors, width, lanes, threads, warps, stamp):
    groups = threads // lanes
    elements = vectors * width
    stride = lanes * width

    def kernel(y, g, classes, inner, positions, out):
        stamp  # noqa: B018  a closure cell, and so a part of the cache key
        ys = cuda.local.array(elements, y.dtype)
        gs = cuda.local.array(elements, y.dtype)
        scratch = cuda.shared.array(warps, np.float64)
        thread = np.int64(cuda.threadIdx.x)
        lane = thread % lanes
        mask = mask_of(thread, lanes)
        reach = np.int64(elements * lanes)
        chunks = np.int64(1) if single else (classes + reach - 1) // reach
        for first in range(np.int64(cuda.blockIdx.x) * groups, positions, np.int64(cuda.gridDim.x) * groups):
            p = first + thread // lanes
            if p < positions:
                sample = p // inner if planes else p
                origin = sample * classes * inner + (p - sample * inner) if planes else p * classes
                step = inner if planes else np.int64(1)
                dot = 0.0
                for chunk in range(chunks):
                    start = chunk * reach + lane * width
                    fetch(ys, vectors, y, origin, step, start, stride, width, classes)
                    fetch(gs, vectors, g, origin, step, start, stride, width, classes)
                    left = np.int32(classes - start)
                    for v in range(vectors):
                        if v * stride < left:
                            for i in range(width):
                                e = v * width + i
                                dot += np.float64(gs[e]) * np.float64(share(ys[e]))
                dot = group_sum(dot, lanes, mask, scratch)
                for chunk in range(chunks):
                    start = chunk * reach + lane * width
                    if not single:
                        fetch(ys, vectors, y, origin, step, start, stride, width, classes)
                        fetch(gs, vectors, g, origin, step, start, stride, width, classes)
                    left = np.int32(classes - start)
                    for v in range(vectors):
                        if v * stride < left:
                            for i in range(width):
                                e = v * width + i
                                ys[e] = backward(ys[e], gs[e], dot)
                    put(ys, vectors, out, origin, step, start, stride, width, classes)

    return kernel


@cache
def kernel(name: str, plan: classwise.Plan, width: int) -> Kernel:
    share, backward = CLASSWISE[name]
    cells = {
        "share": share, "backward": backward, "planes": plan.planes, "single": plan.single, "vectors": plan.elements // width,
        "width": width, "lanes": plan.lanes, "threads": plan.threads, "warps": plan.threads // WARP,
    }  # fmt: skip
    parts = [name, f"{plan.lanes}x{plan.elements}", f"by{width}", *(n for n, flag in cells.items() if flag is True)]
    return build(make_backward, "_".join(parts), cells, plan.threads)


# --- from a caller's arrays to a launch, and back -------------------------------------------------------------------------


class _Call:
    """The arrays of one call: the first gives shape and type of the result."""

    def __init__(self, owner: str, given: dict[str, Any]) -> None:
        self.place = arrays.Place(owner, given)
        self.arrays = [self.place.real(name, value, f"{owner}: {name}") for name, value in given.items()]
        self.first = self.arrays[0]
        if len(self.arrays) > 1:
            _validate.same_shape(owner, self.arrays[1], self.first)
        self.shape = self.first.shape

    def flattened(self, dtype: np.dtype) -> list[Any]:
        """The arrays as kernels take them, and one for the result."""
        return [*(self.place.flat(a, dtype) for a in self.arrays), self.place.empty(prod(self.shape), dtype)]

    def result(self, out: Any) -> Any:
        return self.place.given(out, self.shape, self.place.result_dtype(self.first))


def elementwise(owner: str, direction: str, given: dict[str, Any]) -> Any:
    """Apply one of `ELEMENTWISE` to the input, or to output and upstream gradient."""
    call = _Call(owner, given)
    x, *upstream, out = call.flattened(_arrays.compute_dtype(call.first))
    if out.size:
        t = upstream[0] if upstream else x
        point = ELEMENTWISE[f"{owner}_{direction}"]
        none = (None, None, None, (), None)
        losses.run(call.place.queue, point, False, x, t, *none, 1.0, False, False, None, out)
    return call.result(out)


def forward(owner: str, given: dict[str, Any], layout: Any) -> Any:
    """softmax or log_softmax; `layout` makes (classes, inner) of an array."""
    call = _Call(owner, given)
    sizes = layout(call.first)
    x, out = call.flattened(_arrays.compute_dtype(call.first))
    if out.size:
        classwise.run(call.place.queue, identity, None, owner, x, sizes, reduced=False, out=out)
    return call.result(out)


def backward(owner: str, given: dict[str, Any], layout: Any) -> Any:
    """The vector-Jacobian product of softmax or log_softmax, of output and upstream gradient."""
    call = _Call(owner, given)
    classes, inner = layout(call.first)
    y, g, out = call.flattened(_arrays.compute_dtype(*call.arrays))
    if out.size:
        # Two arrays stay in registers, as with probabilities; short rows go without shared memory.
        plan = classwise.plan(classes, inner, y.dtype.itemsize, True)
        width = arrays.width(classes, y, g, out) if plan.lanes > 1 else 1
        positions = out.size // classes
        blocks = min(-(-positions // (plan.threads // plan.lanes)), GRID)
        compiled = kernel(f"{owner}_backward", plan, width)
        call.place.queue.launch(compiled, blocks, y, g, classes, inner, positions, out)
    return call.result(out)
