"""What is measured: problems made from the registry of losses, and the right result of each in double precision."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import numpy as np

import nlosses as nl
from nlosses._spec import UNIT, Interval, Spec
from nlosses._verification import _samples as samples

Shape = tuple[int, ...]
DTYPES = ("float32", "float64")
#: Class probabilities are a kind of target, and so are the numbers 0 and 1 alone, but to a table they are options like others.
PROBABILITIES, BINARY = TARGETS = "probabilities", "of 0 and 1"
SHAPES: dict[str, tuple[Shape, ...]] = {
    "elementwise": ((10,), (1_000,), (100_000,), (1_000_000,), (10_000_000,)),
    # Small; few classes; many; huge vocabularies; inner axes, as of images.
    "classwise": (
        (32, 10), (1_000_000, 2), (100_000, 3), (100_000, 10), (8_192, 1_000), (256, 50_257), (64, 128_256), (4, 21, 256, 256),
    ),
}  # fmt: skip
#: Where options and reductions are measured: an element each, and where weights of rows or columns are broadcast.
OPTION_SHAPES: dict[str, tuple[Shape, ...]] = {
    "elementwise": ((1_000_000,), (100_000, 10)),
    "classwise": ((100_000, 10), (8_192, 1_000)),
}
QUICK_SHAPES: dict[str, tuple[Shape, ...]] = {"elementwise": ((1_000,), (200_000,)), "classwise": ((32, 10), (2_048, 100))}
#: Size and classes, for time against each: an elementwise loss, and a classwise one of as many elements in all.
SIZES = tuple(10**k for k in range(1, 9))
CLASSES, ELEMENTS = (2, 4, 8, 16, 32, 64, 128, 512, 2_000, 8_000, 32_000, 128_000), 8_192_000
SCALED = {"elementwise": "binary_cross_entropy_with_logits", "classwise": "cross_entropy"}
#: The cases of the README's table: in single precision, means, without options.
HEADLINE = {
    "binary_cross_entropy_with_logits": SHAPES["elementwise"],
    "cross_entropy": ((32, 10), (100_000, 3), (100_000, 10), (8_192, 1_000), (256, 50_257), (4, 21, 256, 256)),
}
#: Largest error of value and gradient, relative to the largest magnitude.
TOLERANCE = {"float32": 1e-5, "float64": 1e-9}
#: Of differences, as a share of the distance from the end of the domain; kinks are kept clear of by more.
STEP, CLEARANCE = 1e-3, 0.01
CHUNK = 1 << 16


class Wrong(Exception):
    """A contender's result is not that of the reference: a wrong result is fast for nothing."""


@dataclass(frozen=True)
class Case:
    """One loss, shape of the input, precision, option and reduction."""

    loss: str
    shape: Shape
    dtype: str = "float32"
    option: str = ""
    reduction: str = "mean"

    @property
    def name(self) -> str:
        reduction = "" if self.reduction == "mean" else self.reduction
        words = (self.loss, "x".join(map(str, self.shape)), self.dtype, self.option, reduction)
        return " ".join(word for word in words if word)

    @property
    def spec(self) -> Spec[Any]:
        return nl.LOSSES[self.loss].spec

    @property
    def classwise(self) -> bool:
        return self.spec.family == "classwise"

    @property
    def labelled(self) -> bool:
        """Whether targets are class indices."""
        return self.classwise and self.option != PROBABILITIES

    @property
    def size(self) -> int:
        return prod(self.shape)

    @property
    def positions(self) -> Shape:
        """Shape of the unreduced loss."""
        return (self.shape[0], *self.shape[2:]) if self.classwise else self.shape

    def problem(self, seed: int = 0) -> Problem:
        """Input, target and option, from a generator."""
        rng = np.random.default_rng(seed)
        names = (self.option,) if self.option not in ("", *TARGETS) else ()
        values = samples.option_values(self.spec, names, self.shape, rng) if names else {}
        options = {k: v.astype(self.dtype) if isinstance(v, np.ndarray) else v for k, v in values.items()}
        x = anywhere(self.spec.input, self.shape, self.dtype, rng)
        if not self.labelled:
            t = anywhere(UNIT, self.shape, self.dtype, rng)  # every loss has these targets
            if self.option == BINARY:
                t = np.round(t)
            if self.classwise:
                t /= t.sum(axis=1, keepdims=True)
        else:
            t = rng.integers(0, self.shape[1], self.positions)
            if "ignore_index" in options:
                t[rng.random(self.positions) < 1 / 8] = options["ignore_index"]
        for kink in self.spec.kinks(t) if self.spec.kinks else ():
            x[np.abs(x - kink) < CLEARANCE] += 2 * CLEARANCE
        return Problem(self, x, t, options)


@dataclass(frozen=True, eq=False)
class Problem:
    """A case with its arrays."""

    case: Case
    x: np.ndarray
    t: np.ndarray
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def arguments(self) -> dict[str, Any]:
        """Keywords of the call, named as torch names them."""
        return {**self.options, "reduction": self.case.reduction}

    @property
    def reads(self) -> list[np.ndarray]:
        """Arrays that no implementation can do without reading: not the input where only labelled entries count."""
        x = [] if self.case.labelled and self.case.spec.log_probabilities else [self.x]
        return [*x, self.t, *(v for v in self.options.values() if isinstance(v, np.ndarray))]

    @property
    def written(self) -> list[int]:
        """Bytes that every implementation must write: the gradient, and values that are not reduced."""
        values = prod(self.case.positions) * self.x.itemsize if self.case.reduction == "none" else 0
        return [self.x.nbytes, values]

    @property
    def bytes(self) -> int:
        """All that are read and written."""
        return sum(self.written) + sum(a.nbytes for a in self.reads)

    def excerpt(self, size: int) -> Problem | None:
        """Its first positions, which move about so many bytes; None if options have numbers for each of them."""
        if not self.case.classwise and any(isinstance(v, np.ndarray) for v in self.options.values()):
            return None
        rows = len(self.x) * size // self.bytes
        x, t = self.x[: max(1, rows)], self.t[: max(1, rows)]
        if rows == 0 and len(self.case.shape) > 2:  # the first rows of the first image
            n = max(1, self.case.shape[2] * len(self.x) * size // self.bytes)
            x, t = x[:, :, :n], t[:, :n] if self.case.labelled else t[:, :, :n]
        x, t = np.ascontiguousarray(x), np.ascontiguousarray(t)
        return Problem(replace(self.case, shape=x.shape), x, t, self.options)


def anywhere(interval: Interval, shape: Shape, dtype: str, rng: np.random.Generator) -> np.ndarray:
    """Random numbers of an interval, away from its ends; normal ones, of the size that logits have, if it has none."""
    if not interval.bounded:
        x = rng.standard_normal(shape, np.dtype(dtype))
        x *= 2
        return x
    low, high = max(interval.low, -1e3), min(interval.high, 1e3)
    u = rng.random(shape, np.dtype(dtype))
    u *= 0.9 * (high - low)
    u += low + 0.05 * (high - low)
    return u


# --- tables ----------------------------------------------------------------------------------------------------------


def options(spec: Spec[Any]) -> list[str]:
    """Everything that a call of the loss can be given beside input and target."""
    known = ("weight", "label_smoothing", "ignore_index", *spec.parameters, *spec.variants)
    of_targets = [PROBABILITIES] * spec.class_probabilities + [BINARY] * spec.name.startswith("binary")
    return [name for name in spec.options if name in known] + of_targets


def losses(quick: bool = False) -> Iterator[Case]:
    """Every loss of the registry: all sizes, options and reductions, in both precisions."""
    for loss, dtype in ((name, dtype) for name in nl.LOSSES for dtype in DTYPES):
        spec = nl.LOSSES[loss].spec
        shapes = (QUICK_SHAPES if quick else SHAPES)[spec.family]
        for shape in shapes[-1:] if quick and dtype == "float64" else shapes:
            yield Case(loss, shape, dtype)
        if quick:
            if dtype == "float32":
                yield Case(loss, shapes[-1], dtype, options(spec)[0], "none")
            continue
        for shape in OPTION_SHAPES[spec.family]:
            yield from (Case(loss, shape, dtype, option) for option in options(spec))
            yield from (Case(loss, shape, dtype, "", reduction) for reduction in spec.reductions if reduction != "mean")
        if BINARY in options(spec):
            yield Case(loss, shapes[-1], dtype, BINARY)


def headline(quick: bool = False) -> Iterator[Case]:
    """Mean losses of logits in single precision."""
    for loss, shapes in HEADLINE.items():
        yield from (Case(loss, shape) for shape in shapes if not quick or prod(shape) <= 1_000_000)


def scaling(quick: bool = False) -> Iterator[Case]:
    """Time against size, and against the number of classes among a constant number of elements."""
    for n in SIZES[: 5 if quick else None : 2 if quick else 1]:
        yield Case(SCALED["elementwise"], (n,))
    elements = ELEMENTS // 16 if quick else ELEMENTS
    for classes in CLASSES[:: 5 if quick else 1]:
        yield Case(SCALED["classwise"], (elements // classes, classes))


def threads(quick: bool = False) -> Iterator[Case]:
    """Time against the number of threads, where there is work for many."""
    yield Case(SCALED["elementwise"], (1_000_000 if quick else 10_000_000,))
    yield Case(SCALED["classwise"], (1_024 if quick else 8_192, 1_000))


# --- the right result ------------------------------------------------------------------------------------------------


def reference(problem: Problem) -> tuple[Any, np.ndarray]:
    """Value and gradient in double precision, from the value alone that the loss declares in terms of SciPy or NumPy."""
    values, grad, divisor = _classwise(problem) if problem.case.classwise else _elementwise(problem)
    if problem.case.reduction == "none":
        return values, grad
    grad /= (divisor := {"sum": 1.0, "batchmean": problem.case.shape[0]}.get(problem.case.reduction, divisor))
    return values.sum() / divisor, grad


def _elementwise(problem: Problem) -> tuple[np.ndarray, np.ndarray, float]:
    """Values, their slopes by differences of fourth order, and what a mean divides by."""
    spec, shape = problem.case.spec, problem.case.shape
    flat = {name: np.broadcast_to(v, shape).reshape(-1) for name, v in problem.options.items() if isinstance(v, np.ndarray)}
    switches = {name: v for name, v in problem.options.items() if name not in flat}
    weight = flat.pop("weight", None)
    values, grad = np.empty(problem.x.size), np.empty(problem.x.size)
    for lo in range(0, problem.x.size, CHUNK):
        part = slice(lo, lo + CHUNK)
        x, t = (a.reshape(-1)[part].astype(float) for a in (problem.x, problem.t))
        h = STEP * np.minimum(1, np.minimum(x - spec.input.low, spec.input.high - x))
        others = {name: v[part].astype(float) for name, v in flat.items()} | switches

        def f(steps: int, x: Any = x, h: Any = h, t: Any = t, others: Any = others) -> np.ndarray:
            return spec.reference(x + steps * h, t, **others)  # type: ignore[misc]

        w = 1.0 if weight is None else weight[part].astype(float)
        values[part] = w * f(0)
        grad[part] = w * (8 * (f(1) - f(-1)) - (f(2) - f(-2))) / (12 * h)
    divisor = float(weight.sum(dtype=float)) if weight is not None and spec.mean_of_weights else problem.x.size
    return values.reshape(shape), grad.reshape(shape), divisor


def _classwise(problem: Problem) -> tuple[np.ndarray, np.ndarray, float]:
    """Values of the rows, their slopes ``S softmax(x) - q`` of the family times that of the loss, and the divisor."""
    from scipy.special import log_softmax

    spec = problem.case.spec
    x = np.moveaxis(problem.x.astype(float), 1, -1)
    q, divisor = coefficients(problem)
    values = spec.reference(x, q)  # type: ignore[misc]
    if spec.log_probabilities:
        grad, surprisal = -q, values
    else:
        log_p = log_softmax(x, axis=-1)
        surprisal = -(q * log_p).sum(axis=-1)
        grad = np.exp(log_p, out=log_p) * q.sum(axis=-1, keepdims=True) - q
    if spec.math.curvature:  # else it is linear
        grad *= np.vectorize(lambda u: spec.math.point(u)[1])(surprisal)[..., None]
    return values, np.moveaxis(grad, -1, 1), divisor


def coefficients(problem: Problem) -> tuple[np.ndarray, float]:
    """Rows q of a loss ``-sum_j q_j log p_j``, and the divisor of the mean."""
    case, t, given = problem.case, problem.t, problem.options
    C, smoothing = case.shape[1], given.get("label_smoothing", 0.0)
    w = np.asarray(given.get("weight", np.ones(C)), float)
    if not case.labelled:
        return w * ((1 - smoothing) * np.moveaxis(t.astype(float), 1, -1) + smoothing / C), prod(case.positions)
    counted = t != given.get("ignore_index", case.spec.options.get("ignore_index"))
    classes = np.where(counted, t, 0)
    q = np.full((*case.positions, C), smoothing / C)
    np.put_along_axis(q, classes[..., None], 1 - smoothing + smoothing / C, -1)
    q *= w * counted[..., None]
    return q, float((w[classes] * counted).sum())


def verify(problem: Problem, result: Any, expected: tuple[Any, np.ndarray]) -> None:
    """Raise `Wrong` unless value and gradient have the precision, the shape and the numbers that they should have."""
    for what, found, right in zip(("value", "gradient"), result, expected, strict=True):
        found, right = np.asarray(found.detach() if hasattr(found, "detach") else found), np.asarray(right)
        if found.shape != right.shape or (what == "gradient" and found.dtype != problem.x.dtype):
            raise Wrong(f"{what} of shape {found.shape} and {found.dtype}, not {right.shape} and {problem.x.dtype}")
        error = np.abs(found - right).max() / np.abs(right).max()
        if not error < TOLERANCE[problem.case.dtype]:
            raise Wrong(f"relative error {error:.1e} of the {what}")
