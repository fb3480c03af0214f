"""The verification suite of all losses, for a checker of gradients.

Made from the registry: every loss, reduction, option, precision, layout and derivative.  float64 is verified by finite
differences, float32 by comparison with float64, and what a GPU computes by comparison with the CPU's float64.  A case is a
plain dict of ``name``, ``check``, ``arguments``, ``labels`` and ``quick``; `suite` is offered in the entry-point group
``gradcheck.suites``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import product
from typing import Any

from .. import LOSSES, log_sigmoid, log_softmax, sigmoid, softmax
from .._functions import Classwise, Function
from .._loss import Loss
from . import _samples as samples
from ._functions import FunctionCase
from ._losses import LAYOUTS, LossCase

Case = dict[str, Any]

#: Shapes of the input, by family; the classwise ones reach every driver: a single row, few classes, many, inner axes.
SHAPES: dict[str, tuple[tuple[int, ...], ...]] = {
    "elementwise": ((24,), (4, 6), (2, 3, 4)),
    "classwise": ((12,), (7, 3), (3, 203), (2, 3, 4)),
}
DTYPES = {"cpu": ("float64", "float32"), "cuda": ("float64", "float32", "float16")}
#: Of a device, more: around its tiles and limits, and those of the simulator, whose blocks are smaller.
SIZES: dict[str, tuple[tuple[int, ...], ...]] = {
    "elementwise": ((0,), (127,), (129,), (2049,)),
    "classwise": ((2, 65), (2, 129), (2, 1025), (2, 9, 2), (2, 33, 2), (17, 4)),
}


def suite() -> Iterator[Case]:
    """All cases of the library."""
    for loss in LOSSES.values():
        yield from cases_of(loss)
    functions = (sigmoid, log_sigmoid, softmax, log_softmax)
    for function in functions:
        yield from _cases_of_function(function)
    for loss in LOSSES.values():
        yield from cases_of(loss, "cuda")
    for function in functions:
        yield from _cases_of_function(function, "cuda")


def cases_of(loss: Loss[Any], device: str = "cpu") -> Iterator[Case]:
    """All cases of one loss, which may be a user's own.

    Each combination of reduction, kind of target, dtype and derivative has the variants of `_variants`.  One of them is
    quick: that of which the quick cases before it have least.  Of another device than the CPU, one reduction is quick, each
    in turn, for a simulator takes its time.
    """
    seen: Counter[Any] = Counter()
    kinds = list(enumerate(product(_kinds_of_target(loss), DTYPES[device])))
    for (i, reduction), (j, (labelled, dtype)) in product(enumerate(loss.spec.reductions), kinds):
        for k, derivative in enumerate(_derivatives(loss, labelled)):
            variants = list(_variants(LossCase(loss, reduction, labelled, dtype, derivative, device=device)))
            chosen = None
            if device == "cpu" or i == (j + k) % len(loss.spec.reductions):
                chosen = min(variants, key=lambda variant: [seen[trait] for trait in variant.traits])
                seen.update(chosen.traits)
            yield from (variant.case(quick=variant is chosen) for variant in variants)
    yield from _edges(loss) if device == "cpu" else _sizes(loss, device)


def _kinds_of_target(loss: Loss[Any]) -> tuple[bool, ...]:
    """Whether targets are class indices."""
    spec = loss.spec
    return (True, False)[: 1 + spec.class_probabilities] if spec.family == "classwise" else (False,)


def _derivatives(loss: Loss[Any], labelled: bool) -> Iterator[str]:
    """Those that the loss has."""
    spec = loss.spec
    classwise = spec.family == "classwise"
    yield "input"
    if not labelled and (classwise or spec.math.target_slope):
        yield "target"
    if classwise or spec.math.curvature:
        yield from ("hvp", "hessian_diag")


def _variants(common: LossCase) -> Iterator[LossCase]:
    """All options in every layout, and every set of options in every shape; of a device, most sets in one shape only."""
    spec = common.loss.spec
    everything = samples.option_sets(spec, (2, 3), common.labelled)[-1]
    layouts = [layout for layout in LAYOUTS if layout != "read-only" or common.device == "cpu"]
    for k, layout in enumerate(layouts[1:]):
        yield replace(common, shape=SHAPES[spec.family][1 + k % 2], options=everything, layout=layout)
    for j, shape in enumerate(SHAPES[spec.family]):
        sets = samples.option_sets(spec, shape, common.labelled)
        for k, options in enumerate(sets):
            if common.device == "cpu" or k in (0, len(sets) - 1) or k % len(SHAPES[spec.family]) == j:
                yield replace(common, shape=shape, options=options)


def _edges(loss: Loss[Any]) -> Iterator[Case]:
    """Sizes around the blocks of the kernels, and every option where several threads work."""
    from .._cpu import _blocks, _threads, gather, labels, tiles

    labelled = _kinds_of_target(loss)[0]
    common = LossCase(loss, "none", labelled, "float64", "input")
    shapes: list[tuple[int, ...]]
    if not labelled:
        shapes = [(n + d,) for n in (_blocks.CHUNK, _blocks.BLOCK) for d in (-1, 0, 1)]
    elif loss.spec.log_probabilities:
        shapes = [(gather.BLOCK + 1, 3), (1, 3, gather.BLOCK + 1)]
    else:
        many = labels.FEW // 4 + 1
        shapes = [(tiles.BLOCK + 1, 3), (2, 3, tiles.BLOCK // 2 + 1), (_blocks.BLOCK // many + 1, many), (2, _blocks.CHUNK + 1)]
    for shape in shapes:
        yield replace(common, shape=shape).case(quick=False)
    rows = _threads.SMALL  # enough for all threading layers but workqueue; asking for the layer would start its threads
    shape = (rows, 3) if labelled else (rows,)
    for options in samples.option_sets(loss.spec, shape, labelled):
        yield replace(common, shape=shape, options=options, several_threads=True).case(quick=False)


def _sizes(loss: Loss[Any], device: str) -> Iterator[Case]:
    common = LossCase(loss, "none", _kinds_of_target(loss)[0], "float32", "input", device=device)
    for shape in SIZES[loss.spec.family]:
        yield replace(common, shape=shape).case(quick=False)


def _cases_of_function(function: Function, device: str = "cpu") -> Iterator[Case]:
    """Every shape, and every axis of it."""
    for dtype in DTYPES[device]:
        for shape in SHAPES["classwise"]:
            axes: Iterable[int | None] = range(len(shape)) if isinstance(function, Classwise) else (None,)
            for axis in axes:
                quick = len(shape) > 2 or axis == 1
                if device != "cpu":  # one row that threads share, one that a thread takes
                    quick = axis in (None, 1) and shape in SHAPES["classwise"][2 : 3 + (axis == 1)]
                yield FunctionCase(function, shape, axis, dtype, device).case(quick)
