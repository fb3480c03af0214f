"""Classwise kernel: one position's classes are shared by one thread, a warp, or a block, and stay in registers.

Up to `Limits.few` classes side by side in memory, the positions of a block come through shared memory, and a thread takes
one.  More classes are a row for some lanes of a warp, for a warp or for a block, read and written 16 bytes at a time.
Classes with further axes behind them have a thread for each position, so that the lanes of a warp read along the inner axes.
What does not fit into the registers is read twice, chunk after chunk, in which each thread keeps sums of its own.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np

from .._cpu._jit import name_of
from .._scalar import log1p, maximum, product
from .._softmax import coefficient, gap, lifted, others, raised, slope, slope_at_peak
from ._backend import SIMULATED, Kernel, build, cuda, load, store
from ._blocks import DENOMINATOR, GRID, TOTAL, WARP, finish, mask_of, threads_of
from ._positions import (
    FINISH,
    OF_LOGITS,
    absent,
    fetch,
    fetch_row,
    fetch_slanted,
    flat,
    gathered,
    given,
    group_sum,
    group_top,
    neither,
    put,
    put_row,
    put_slanted,
    scattered,
    slope_of,
    softmax,
    times,
)
from .arrays import width as width_of


class Limits(NamedTuple):
    """Where one driver gives way to the next: as far as all that a thread keeps stays in its registers."""

    few: int  #: classes of a row that one thread takes, through shared memory
    planes: int  #: classes that one thread keeps, where further axes follow
    warp: tuple[tuple[int, int], ...]  #: lanes of a warp that take a row, and the elements that each keeps
    blocks: tuple[tuple[int, int], ...]  #: threads, and the elements that each keeps, for longer rows
    chunk: tuple[int, int]  #: the same for rows that do not fit, chunk after chunk


#: By bytes of an element, and by whether every class has a coefficient of its own (smoothing, probabilities).
LIMITS = {
    (4, False): Limits(
        16, 32, ((4, 8), (8, 8), (8, 16), (16, 16), (WARP, 16), (WARP, 32)), ((128, 16), (128, 32), (256, 32), (512, 32)),
        (256, 32),
    ),
    (4, True): Limits(
        16, 32, ((4, 8), (8, 8), (16, 8), (16, 16), (WARP, 16)), ((128, 16), (256, 16)), (256, 16)
    ),
    (8, False): Limits(
        16, 32, ((4, 8), (8, 8), (16, 8), (WARP, 8), (WARP, 16)), ((128, 16), (256, 16), (512, 16)), (256, 8)
    ),
    (8, True): Limits(8, 16, ((4, 8), (8, 8), (16, 8), (WARP, 8)), ((128, 8), (256, 8), (512, 8)), (256, 8)),
}  # fmt: skip
if SIMULATED:  # few threads, and small problems that cross every limit
    LIMITS = dict.fromkeys(LIMITS, Limits(4, 8, ((2, 4), (4, 4), (WARP, 4), (WARP, 8)), ((2 * WARP, 8),), (2 * WARP, 4)))


# --- the kernel --------------------------------------------------------------------------------------------------------------


def make(
    point, second, k2_of, of_element, of_logits, even_of, t_of, with_out, with_values, with_vector, with_dots, labelled,
    unsigned, probable, smooth, weighted, upstreamed, normalised, reduced, fixed, staged, planes, slanted, single, vectors,
    width, wide, shift, lanes, threads, warps, stamp,
):  # fmt: skip
    groups = threads // lanes
    elements = vectors * width
    stride = lanes * width
    room = threads * fixed + (threads * fixed >> shift) if staged else 1

    def kernel(
        x,
        labels,
        probabilities,
        weight,
        vector,
        upstream,
        classes,
        inner,
        positions,
        keep,
        even,
        ignored,
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
        xs = cuda.local.array(elements, x.dtype)
        ts = cuda.local.array(elements, x.dtype)
        vs = cuda.local.array(elements, x.dtype)
        tile = cuda.shared.array(room, x.dtype)
        moved = cuda.local.array(wide, x.dtype)
        scratch = cuda.shared.array(warps, np.float64)
        last = cuda.shared.array(1, np.bool_)
        thread = np.int64(cuda.threadIdx.x)
        lane = thread % lanes
        mask = mask_of(thread, lanes)
        C = np.int64(fixed) if fixed > 0 else classes
        reach = np.int64(elements * lanes)  # classes of one chunk
        longest = C + np.int64(width - 1) if slanted else C
        chunks = np.int64(1) if single else (longest + reach - 1) // reach
        kept = T(keep)
        evenly = even_of(T(even))
        c = scale / results[DENOMINATOR] if normalised else scale
        total = 0.0
        bad = 0.0
        for first in range(np.int64(cuda.blockIdx.x) * groups, positions, np.int64(cuda.gridDim.x) * groups):
            count = min(np.int64(groups), positions - first)
            if staged:
                gathered(tile, x, first * C, count * C, moved, wide, shift, thread, threads)
                cuda.syncthreads()
            p = first + thread // lanes
            inside = p < positions
            sample = p // inner if planes else p
            origin = sample * C * inner + (p - sample * inner) if planes else p * C
            step = inner if planes else np.int64(1)
            skew = origin % width if slanted else np.int64(0)
            base = origin - skew
            y = np.int64(-1)
            counts = inside
            if labelled and inside:
                y = np.int64(load(labels, p))
                if unsigned and y < 0:
                    y = C  # too large for a signed number
                if y == ignored:
                    counts = False
                elif y < 0 or y >= C:
                    counts = False
                    bad += 1.0 if lane == 0 else 0.0
            if counts:
                x_own = T(0)
                if labelled:
                    x_own = load(x, origin + y * step)
                m = T(-np.inf)
                n = T(0)
                s = 0.0
                u = 0.0
                S = 0.0
                R = 0.0
                for chunk in range(chunks):
                    start = chunk * reach + lane * width
                    if staged:
                        fetch_row(xs, tile, thread * C, C, shift)
                    elif slanted:
                        fetch_slanted(xs, vectors, x, base, start, stride, width, skew, C)
                    else:
                        fetch(xs, vectors, x, origin, step, start, stride, width, C)
                    if probable:
                        fetch(ts, vectors, probabilities, origin, step, start, stride, width, C)
                    top = T(-np.inf)
                    left = np.int32(skew + C - start)
                    for v in range(vectors):
                        if v * stride < left:
                            for i in range(width):
                                top = maximum(top, xs[v * width + i])
                    if single:
                        top = group_top(top, lanes, mask, scratch)
                    ns = T(0)
                    ss = 0.0
                    uu = 0.0
                    SS = 0.0
                    RR = 0.0
                    for v in range(vectors):
                        if v * stride < left:
                            some = T(0)
                            for i in range(width):
                                e = v * width + i
                                a = xs[e]
                                lift = lifted(a, top, None)
                                below = a != top
                                some += lift if below else T(0)
                                ns += T(0) if below else T(1)
                                if smooth:
                                    w = load(weight, start + v * stride + i) if weighted else T(1)
                                    q = coefficient(w, t_of(ts[e]), kept, evenly)
                                    uu += np.float64(product(q, gap(a, top)))
                                    SS += np.float64(q)
                                    RR += np.float64(q if below else T(0))
                                if single and not of_logits:
                                    xs[e] = lift
                            ss += np.float64(some)  # the few of one access are added in their own precision
                    if single:
                        m, n, s, u, S, R = top, ns, ss, uu, SS, RR
                    else:  # each thread for itself, until all of its chunks are seen
                        both = maximum(m, top)
                        s, wide_n, u, S, R = raised(s, np.float64(n), u, S, R, m, both)
                        ss, wide_nn, uu, SS, RR = raised(ss, np.float64(ns), uu, SS, RR, top, both)
                        m, n, s, u, S, R = both, T(wide_n + wide_nn), s + ss, u + uu, S + SS, R + RR
                if not single and lanes > 1:
                    both = group_top(m, lanes, mask, scratch)
                    s, wide_n, u, S, R = raised(s, np.float64(n), u, S, R, m, both)
                    m, n = both, T(wide_n)
                n = T(group_sum(n, lanes, mask, scratch))
                s = group_sum(s, lanes, mask, scratch)
                if smooth:
                    u = group_sum(u, lanes, mask, scratch)
                    S = group_sum(S, lanes, mask, scratch)
                    R = group_sum(R, lanes, mask, scratch)
                narrow_s = others(T(s), n, m)
                rest = log1p(narrow_s)
                r = T(1) / (T(1) + narrow_s)
                own = 0.0
                if labelled:
                    own = np.float64(load(weight, y) if weighted else T(1)) * np.float64(kept)
                    S += own
                    R += own if x_own != m else 0.0
                    u += product(own, np.float64(gap(x_own, m)))
                u += product(S, np.float64(rest))
                value, d = point(u)
                if lane == 0:
                    total += value
                    if with_values:
                        store(values, p, T(value))
                if with_out:
                    k = product(np.float64(load(upstream, p)), c) if upstreamed else c
                    k2 = k2_of(k, second(u))
                    k = k * d
                    at_label = T(0)
                    if labelled:
                        q = coefficient(load(weight, y) if weighted else T(1), None, kept, evenly)
                        e_own = np.float64(lifted(x_own, m, None))
                        at_label = T(k * slope(S, own + np.float64(q), e_own * np.float64(r)))
                    at_peak = T(k * slope_at_peak(R, S, np.float64(narrow_s), np.float64(r)))
                    dot = 0.0
                    along = 0.0
                    v_top = 0.0  # p (v - p.v) would cancel where p is nearly 1: v and p.v are taken less v there
                    if with_vector:
                        for chunk in range(chunks):
                            start = chunk * reach + lane * width
                            fetch(vs, vectors, vector, origin, step, start, stride, width, C)
                            if not single:
                                fetch(xs, vectors, x, origin, step, start, stride, width, C)
                                if probable:
                                    fetch(ts, vectors, probabilities, origin, step, start, stride, width, C)
                            left = np.int32(skew + C - start)
                            at = np.int32(skew + y - start)
                            for v in range(vectors):
                                if v * stride < left:
                                    for i in range(width):
                                        e = v * width + i
                                        j = start + v * stride + i
                                        lift = xs[e] if single else lifted(xs[e], m, None)
                                        at_top = (narrow_s < T(1)) & (lift == T(1))
                                        dot += 0.0 if at_top else np.float64(lift * r) * np.float64(vs[e])
                                        v_top += np.float64(vs[e]) if at_top else 0.0
                                        if with_dots:
                                            w = load(weight, j) if smooth and weighted else T(1)
                                            g = slope_of(lift, t_of(ts[e]), w, v * stride + i == at, r, S, own, kept, evenly)
                                            along += np.float64(g) * np.float64(vs[e])
                        v_top = group_sum(v_top, lanes, mask, scratch)
                        dot = group_sum(dot, lanes, mask, scratch) - v_top * (np.float64(narrow_s) * np.float64(r))
                        if with_dots:
                            along = group_sum(along, lanes, mask, scratch)
                    for chunk in range(chunks):
                        start = chunk * reach + lane * width
                        if not single:
                            if slanted:
                                fetch_slanted(xs, vectors, x, base, start, stride, width, skew, C)
                            else:
                                fetch(xs, vectors, x, origin, step, start, stride, width, C)
                            if probable:
                                fetch(ts, vectors, probabilities, origin, step, start, stride, width, C)
                            if with_vector:
                                fetch(vs, vectors, vector, origin, step, start, stride, width, C)
                        left = np.int32(skew + C - start)
                        at = np.int32(skew + y - start)
                        for v in range(vectors):
                            if v * stride < left:
                                for i in range(width):
                                    e = v * width + i
                                    j = start + v * stride + i
                                    a = xs[e] if single or of_logits else lifted(xs[e], m, None)
                                    w = load(weight, j) if smooth and weighted else T(1)
                                    xs[e] = of_element(
                                        a, t_of(ts[e]), w, vs[e] - T(v_top) if with_vector else T(0), v * stride + i == at, m,
                                        narrow_s, r, rest, S, own, kept, evenly, k, k2, at_label, at_peak, dot, along,
                                    )  # fmt: skip
                        if not single:
                            if slanted:
                                put_slanted(xs, vectors, out, base, start, stride, width, skew, C)
                            else:
                                put(xs, vectors, out, origin, step, start, stride, width, C)
            elif inside:  # its logits are not even looked at
                if with_values and lane == 0:
                    store(values, p, T(0))
                if with_out:
                    for e in range(elements):
                        xs[e] = T(0)
                    if not single:
                        for j in range(lane, C, lanes):
                            store(out, origin + j * step, T(0))
            if with_out and single and inside:
                if staged:
                    put_row(xs, tile, thread * C, C, shift)
                elif slanted:
                    put_slanted(xs, vectors, out, base, lane * width, stride, width, skew, C)
                else:
                    put(xs, vectors, out, origin, step, lane * width, stride, width, C)
            if staged:
                cuda.syncthreads()
                if with_out:
                    scattered(out, tile, first * C, count * C, moved, wide, shift, thread, threads)
                    cuda.syncthreads()
        if reduced or labelled:
            finish(total, bad, TOTAL, scratch, last, threads, partial, counter, results, seen)

    return kernel


#: Places in a row are numbers of 32 bits.
MOST = 2**31 - 4096


class Plan(NamedTuple):
    """Which driver serves a layout."""

    threads: int
    lanes: int
    elements: int
    fixed: int  #: the number of classes, where a kernel is made for it alone
    staged: bool
    planes: bool
    single: bool
    shift: int = 5  #: 2^shift elements of a row make a round of shared memory's banks


def residency(plan: Plan, itemsize: int, plain: bool) -> int:
    """Blocks of 128 threads that a processor holds at once, for the compiler to find registers for.

    As many as leave it enough to keep everything: the more there are, the more accesses are under way.
    """
    if itemsize == 8 or not plain or plan.threads > threads_of(128) or not plan.single:
        return 1
    if plan.elements <= 8 or plan.staged or (plan.planes and plan.elements <= 12):
        return 8
    return 6 if plan.elements <= 24 else 1


@cache
def plan(classes: int, inner: int, itemsize: int, smooth: bool) -> Plan:
    if classes >= MOST:
        raise ValueError(f"input must have fewer than {MOST} classes on a device, got {classes}")
    limits = LIMITS[itemsize, smooth]
    threads = threads_of(128)
    block, elements = limits.chunk
    if inner > 1:
        if classes <= limits.planes:
            return Plan(threads, 1, classes, classes, False, True, True)
        return Plan(threads, 1, min(elements, 16), 0, False, True, False)
    if classes <= limits.few:
        return Plan(threads, 1, classes, classes, True, False, True, 5 if itemsize == 4 else 4)
    for lanes, kept in (*limits.warp, *limits.blocks):
        if classes <= lanes * kept:
            return Plan(max(lanes, threads) if lanes <= WARP else lanes, lanes, kept, 0, False, False, True)
    return Plan(block, block, elements, 0, False, False, False)


@cache
def kernel(
    point: Any, curvature: Any, mode: str, plan: Plan, width: int, labelled: bool, unsigned: bool, probable: bool,
    smooth: bool, weighted: bool, upstreamed: bool, normalised: bool, reduced: bool, with_values: bool, itemsize: int,
    slanted: bool = False,
) -> Kernel:  # fmt: skip
    """The kernel of one loss, one derivative (`mode`: a key of `FINISH`, or "value"), one driver and one set of options."""
    bent = curvature is not None and mode in ("hessian", "hvp")
    cells = {
        "point": point, "second": curvature if bent else flat,
        "k2_of": times if bent else neither, "of_element": FINISH.get(mode, softmax),
        "of_logits": mode in OF_LOGITS, "even_of": given if smooth else absent, "t_of": given if probable else absent,
        "with_out": mode != "value", "with_values": with_values, "with_vector": mode == "hvp",
        "with_dots": bent and mode == "hvp", "labelled": labelled, "unsigned": unsigned, "probable": probable,
        "smooth": smooth, "weighted": weighted, "upstreamed": upstreamed, "normalised": normalised, "reduced": reduced,
        "fixed": plan.fixed, "staged": plan.staged, "planes": plan.planes, "slanted": slanted, "single": plan.single,
        "vectors": plan.elements if plan.staged else plan.elements // width, "width": 1 if plan.staged else width,
        "wide": width if plan.staged else 1, "shift": plan.shift, "lanes": plan.lanes, "threads": plan.threads,
        "warps": plan.threads // WARP,
    }  # fmt: skip
    parts = [name_of(point), mode, f"{plan.lanes}x{plan.elements}", f"by{width}"]
    parts += [name for name, flag in cells.items() if flag is True]
    plain = mode in ("value", "grad") and not smooth
    return build(make, "_".join(parts), cells, plan.threads, residency(plan, itemsize, plain))


def run(
    queue: Any,
    point: Any,
    curvature: Any,
    mode: str,
    x: Any,
    layout: tuple[int, int],
    labels: Any = None,
    probabilities: Any = None,
    weight: Any = None,
    vector: Any = None,
    upstream: Any = None,
    keep: float = 1.0,
    even: float | None = None,
    ignored: int = -1,
    scale: float = 1.0,
    normalised: bool = False,
    reduced: bool = True,
    values: Any = None,
    out: Any = None,
) -> None:
    """Launch on `queue`: values to `values`, their sum to the queue's results, the scaled derivative to `out`.

    `layout` is (classes, inner): `x` is flat and of the shape (N, classes, inner).  With `normalised` the scale is divided
    by the denominator among the queue's results.
    """
    classes, inner = layout
    itemsize, slanted = x.dtype.itemsize, False
    chosen = plan(classes, inner, itemsize, even is not None)
    if chosen.staged:
        width = width_of(0, x, *(() if out is None else (out,)))
    else:
        moved = [a for a in (x, probabilities, vector, out) if a is not None]
        width = width_of(classes, *moved) if chosen.lanes > 1 else 1
        if width == 1 < chosen.lanes and even is None and mode in ("value", "grad"):
            width = width_of(0, *moved)
            slanted = width > 1
            chosen = plan(classes + width - 1, inner, itemsize, False)
    compiled = kernel(
        point, curvature, mode, chosen, width, labels is not None, labels is not None and labels.dtype.kind == "u",
        probabilities is not None, even is not None, weight is not None, upstream is not None, normalised, reduced,
        values is not None, itemsize, slanted,
    )  # fmt: skip
    positions = x.size // classes
    groups = chosen.threads // chosen.lanes
    arrays = [x if a is None else a for a in (labels, probabilities, weight, vector, upstream)]
    results = [x if a is None else a for a in (values, out)]
    queue.launch(
        compiled, min(max(-(-positions // groups), 1), GRID), x, *arrays, classes, inner, positions, np.float64(keep),
        np.float64(0.0 if even is None else even), ignored, np.float64(scale), *results, *queue.summing,
    )  # fmt: skip
