"""What a loss declares: frozen data, no behaviour.

A loss file writes its mathematics as scalar functions, its public signature and documentation as an ordinary Python
function, and joins the two with :func:`elementwise` or :func:`classwise`.  Everything else is driven by the result.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Real
from typing import Any, Generic, ParamSpec

P = ParamSpec("P")
Scalar = Callable[..., Any]

REDUCTIONS = ("none", "mean", "sum")
LEGACY = ("size_average", "reduce")
#: Options that the machinery handles for every loss; whatever else a signature has is a parameter of the mathematics.
COMMON = ("weight", *LEGACY, "reduction", "ignore_index", "label_smoothing")


def identity(u):
    """The point of a classwise loss that is the surprisal itself."""
    return u, type(u)(1)


@dataclass(frozen=True)
class Interval:
    """A closed interval of real numbers, for ``input=`` and ``target=`` of `elementwise`.

    Parameters
    ----------
    low, high : float
        The ends.  Infinite ones mean that every real number is meant, and nothing is checked.

    Raises
    ------
    TypeError
        An end is not a real number.
    ValueError
        `low` is greater than `high`, or one of them is NaN.

    Examples
    --------
    >>> import nlosses as nl
    >>> @nl.elementwise(lambda x, t: (x - t, type(x)(1)), input=nl.Interval(0, 1))
    ... def excess(input, target, reduction="mean"):
    ...     "Of shares."
    >>> excess([0.5, 1.5], [0.25, 0.25])
    Traceback (most recent call last):
        ...
    ValueError: excess: input must lie in [0, 1], got input[1] = 1.5
    """

    low: float = -math.inf
    high: float = math.inf

    def __post_init__(self) -> None:
        for name, end in (("low", self.low), ("high", self.high)):
            if not isinstance(end, Real):
                raise TypeError(f"Interval: {name} must be a real number, got {end!r}")
        if not self.low <= self.high:
            raise ValueError(f"Interval: low must not be greater than high, got {self.low:g} and {self.high:g}")

    @property
    def bounded(self) -> bool:
        return math.isfinite(self.low) or math.isfinite(self.high)

    def __str__(self) -> str:
        return f"[{self.low:g}, {self.high:g}]"


REAL = Interval()
UNIT = Interval(0.0, 1.0)


@dataclass(frozen=True)
class Fact:
    """A documented value: ``loss(input, target, **options) == value``, asserted by the tests to its printed digits."""

    input: Any
    target: Any
    value: Any
    options: Mapping[str, Any] = field(default_factory=dict)
    digits: int = 8


@dataclass(frozen=True, eq=False)
class Math:
    """The scalar functions of a loss.

    Elementwise: ``point(x, t, *parameters) -> (value, d value / dx)``, ``target_slope`` is d value / dt and ``curvature``
    d2 value / dx2, of the same arguments.  If the value without parameters is ``v + log1p(e)``, where 0 <= e <= 1, then
    ``summand(x, t) -> (v, e, d value / dx)`` spares a sum most of the logarithms; x is moderate there.  If it is ``log1p(e)``
    with any e >= 0 where t is 0 or 1, so does ``binary(x, t) -> (e, d value / dx)`` for such targets.  Both are compiled for
    vectors, as with ``vectors`` the point can be.

    Classwise: ``point(u) -> (value, d value / du)`` and ``curvature(u)``, where ``u = sum_j q_j (-log p_j)`` is the row's
    weighted surprisal; without ``curvature`` the point is taken as linear.
    """

    point: Scalar
    target_slope: Scalar | None = None
    curvature: Scalar | None = None
    summand: Scalar | None = None
    binary: Scalar | None = None
    vectors: bool = False


@dataclass(frozen=True, eq=False)
class Spec(Generic[P]):
    """All that the machinery knows of one loss."""

    declaration: Callable[P, Any]
    family: str
    math: Math
    variants: Mapping[str, Math] = field(default_factory=dict)
    input: Interval = REAL
    target: Interval = REAL
    reductions: tuple[str, ...] = REDUCTIONS
    #: What happens when the shapes of input and target differ: "same" refuses, "warn" broadcasts with a warning,
    #: "broadcast" broadcasts.
    shapes: str = "same"
    #: Elementwise: 'mean' divides by the sum of the weights, which must have the input's shape.
    mean_of_weights: bool = False
    #: Classwise: the input already holds log-probabilities; no softmax is taken.
    log_probabilities: bool = False
    #: Classwise: a target of the input's shape holds class probabilities.
    class_probabilities: bool = False
    #: Name of the class, and the options of the function which the class does not have.
    module: str | None = None
    module_omits: tuple[str, ...] = ()
    #: Points, as a function of the target, where the slope jumps.
    kinks: Scalar | None = None
    #: An independent implementation of the unreduced loss on float64 arrays, for the tests.
    reference: Scalar | None = None
    facts: tuple[Fact, ...] = ()

    def __post_init__(self) -> None:
        for position, interval in (("input", self.input), ("target", self.target)):
            if not isinstance(interval, Interval):
                raise TypeError(f"{self.name}: {position}= must be a nlosses.Interval, got {interval!r}")
        names = tuple(self.signature.parameters)
        if len(names) < 3 or "reduction" not in names[2:]:
            raise TypeError(
                f"{self.name}: the decorated function must take an input, a target and 'reduction', got ({', '.join(names)})"
            )
        unknown = [name for name in self.parameters if name not in names]
        if unknown:
            raise TypeError(
                f"{self.name}: the point function takes {', '.join(unknown)}, which the signature ({', '.join(names)}) has not"
            )
        unused = [n for n in names[2:] if n not in COMMON and n not in self.parameters and n not in self.variants]
        if unused:
            raise TypeError(f"{self.name}: the signature has {', '.join(unused)}, which the point function does not take")

    @cached_property
    def name(self) -> str:
        return self.declaration.__name__

    @cached_property
    def signature(self) -> inspect.Signature:
        return inspect.signature(self.declaration)

    @cached_property
    def options(self) -> dict[str, Any]:
        """Defaults of everything behind input and target, in positional order."""
        parameters = list(self.signature.parameters.values())[2:]
        return {p.name: None if p.default is p.empty else p.default for p in parameters}

    @cached_property
    def checks_domains(self) -> bool:
        """Whether input or target is confined to an interval."""
        return self.input.bounded or self.target.bounded

    @cached_property
    def in_unit(self) -> bool:
        """Whether input and target are confined to [0, 1]."""
        return self.input == self.target == UNIT

    @cached_property
    def parameters(self) -> tuple[str, ...]:
        """Names of the arguments that the point function takes behind its own one (classwise) or two."""
        own = 2 if self.family == "elementwise" else 1
        return tuple(inspect.signature(self.math.point).parameters)[own:]


def elementwise(
    point: Scalar,
    *,
    target_slope: Scalar | None = None,
    curvature: Scalar | None = None,
    summand: Scalar | None = None,
    binary: Scalar | None = None,
    vectors: bool = False,
    **facts: Any,
) -> Callable[[Callable[P, Any]], Spec[P]]:
    """Declare a loss of one input element and one target element; see `Math` and `Spec` for what may be stated."""
    if binary is not None and summand is None:
        raise TypeError("binary must come with a summand, which serves where not all targets are 0 or 1, got None")
    math = Math(point, target_slope, curvature, summand, binary, vectors)
    return lambda declaration: Spec(declaration, "elementwise", math, **facts)


def classwise(point: Scalar, *, curvature: Scalar | None = None, **facts: Any) -> Callable[[Callable[P, Any]], Spec[P]]:
    """Declare a loss of a row of classes; see `Math` and `Spec` for what may be stated."""
    return lambda declaration: Spec(declaration, "classwise", Math(point, curvature=curvature), **facts)
