"""Planting a fault into the gradient of a case, and measuring what it changes there.

A mutant that returns what the truth returns, wherever the check looks, is no fault and cannot be found.  So the truth is
computed beside the mutant at every call, and the largest difference is kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ._points import Bounds

Array = np.ndarray
#: Differences of this share of the largest entry are roundings: no check can tell which of the two is right.
FLOOR = 64 * 2.0**-53
TINY = 5e-324


class NotHere(Exception):
    """A fault has no meaning for this gradient, as a transposed one for a vector."""


@dataclass
class Difference:
    """How far the results of a mutant are from the truth, at the worst of all calls.

    Attributes
    ----------
    entry : float
        Largest difference of an entry, relative to the largest entry; infinite where it is no matter of size, as NaN for a
        number, another shape or an overwritten argument.
    common : float
        Relative difference that all entries have at least.
    """

    entry: float = 0.0
    common: float = 0.0

    def add(self, truth: Array, result: Array) -> None:
        if truth.shape != result.shape or truth.dtype != result.dtype:
            self.entry = math.inf
            return
        if truth.tobytes() != result.tobytes():
            self.entry = max(self.entry, TINY)  # a zero of the other sign has no other size, but it has other bits
        with np.errstate(all="ignore"):
            same = (truth == result) | (np.isnan(truth) & np.isnan(result))
            change = np.where(same, 0.0, np.abs(np.subtract(result, truth, dtype=float)))
            size = np.abs(truth.astype(float))
            largest = float(np.max(size[np.isfinite(size)], initial=0.0))
            worst = float(np.max(np.nan_to_num(change, nan=np.inf), initial=0.0))
            some = (size > 0) & np.isfinite(size)
            common = float(np.min(change[some] / size[some])) if some.any() else 0.0
        self.entry = max(self.entry, worst / largest if largest else math.inf if worst else 0.0)
        self.common = max(self.common, 0.0 if math.isnan(common) else common)

    def visible(self, resolution: float, resolution_entry: float) -> bool:
        """Whether a check of these resolutions must see it."""
        return self.entry > max(FLOOR, resolution_entry) or self.common > max(FLOOR, resolution)


@dataclass(eq=False)
class Call:
    """One call of a gradient that has a fault: what an operator may look at.

    Attributes
    ----------
    x : int
        Place of the point among the arguments.
    upstream : int or None
        Place of the upstream gradient, or of the vector of a Hessian-vector product.
    memory : dict
        What the faulty function keeps from call to call.
    """

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    x: int
    upstream: int | None
    domain: Bounds | None
    memory: dict[Any, Any]
    rng: np.random.Generator
    harm: Difference
    result: Any = None

    @property
    def g(self) -> Array:
        """A copy of the right gradient; the last one where there are several."""
        if self.result is None:
            self.result = self.function(*self.arguments, **self.keywords)
        return np.array(_last(self.result))

    def at(self, place: int | None, array: Array) -> Array:
        """The right gradient for another array at a place of the arguments."""
        if place is None:
            raise NotHere
        arguments = [*self.arguments]
        arguments[place] = array
        return np.array(_last(self.function(*arguments)))

    def argument(self, place: int | None) -> Array:
        """An argument that is an array."""
        if place is None or place >= len(self.arguments) or not isinstance(self.arguments[place], np.ndarray):
            raise NotHere
        return self.arguments[place]

    @property
    def entry(self) -> int:
        """Flat index of the one wrong entry: always the same, and not zero if that can be had."""
        g = self.g.reshape(-1)
        if "entry" not in self.memory:
            if not g.size:
                raise NotHere
            some = np.flatnonzero((g != 0) & np.isfinite(g))
            self.memory["entry"] = int(self.rng.choice(some)) if some.size else 0
        return min(self.memory["entry"], g.size - 1)


@dataclass(eq=False)
class Mutant:
    """A faulty gradient function in place of a right one."""

    function: Callable[..., Any]
    apply: Callable[[Call], Array]
    x: int
    upstream: int | None
    domain: Bounds | None
    out: str | None
    seed: int
    points: set[bytes] | None = None
    sides: bool = False
    meaningless: bool = False
    difference: Difference = field(default_factory=Difference)

    def __post_init__(self) -> None:
        self.memory: dict[Any, Any] = {}
        self.rng = np.random.default_rng(self.seed)
        self.__name__ = getattr(self.function, "__name__", "")

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        # Nothing may be allocated before the operator: what np.empty finds is the fault of one of them.
        call = Call(
            self.function, arguments, keywords, self.x, self.upstream, self.domain, self.memory, self.rng, self.difference
        )
        try:
            wrong = self.apply(call)
        except NotHere:
            self.meaningless = True
            raise
        truth = call.g  # computed in any case: it comes with the value
        if self.points is None or _bytes(arguments[self.x]) in self.points:
            self.difference.add(self._nearest(call, wrong) if self.sides else truth, np.asarray(wrong))
        buffer = _last(keywords.get(self.out or "", None))
        if buffer is not None and np.shape(wrong) == np.shape(buffer):
            buffer[...] = wrong
        return _with_last(call.result, wrong)

    def _nearest(self, call: Call, wrong: Array) -> Array:
        """What is right and nearest to a result: at a kink everything between the slopes of both sides is right."""
        x, truth = call.argument(call.x), call.g
        slopes = [truth]
        for end in (-np.inf, np.inf):
            y = np.nextafter(x, end)
            if self.domain is not None:
                y = np.clip(y, *self.domain)
            slopes.append(call.at(call.x, y))
        if np.shape(wrong) != truth.shape:
            return truth
        return np.clip(wrong, np.fmin.reduce(slopes), np.fmax.reduce(slopes))


def plant(check: str, arguments: Mapping[str, Any], apply: Callable[[Call], Array], seed: int) -> tuple[dict[str, Any], Mutant]:
    """Arguments of a case with a fault in the gradient that it checks.

    Parameters
    ----------
    check : str
        Name of the check.
    arguments : mapping
        Arguments of the case.
    apply : callable
        The operator.
    seed : int
        Seed of the choices that the operator makes.
    """
    name, first, upstream = "grad", 0, None
    if check == "check":
        if arguments.get("value_and_grad"):
            name = "f"
        elif arguments.get("vjp") is not None:
            name, first, upstream = "vjp", 1, 0
    elif check == "check_hvp":
        name, upstream = "hvp", 1
    else:
        name = {"check_hessian_diag": "hessian_diag", "check_transfer": "candidate"}[check]
    wrt = arguments.get("wrt", 0)
    place = wrt[-1] if isinstance(wrt, tuple) else wrt
    mutant = Mutant(arguments[name], apply, first + place, upstream, arguments.get("domain"), arguments.get("out"), seed)
    planted = {**arguments, name: mutant}
    draw = arguments.get("sampler")
    if draw is not None:
        # Only at these points is the gradient looked at; steps and roundings are measured around them.
        points = mutant.points = {_bytes((arguments["x"], *arguments.get("args", ()))[place])}

        def sampler(rng: np.random.Generator) -> Any:
            drawn = draw(rng)
            points.add(_bytes(drawn[place] if isinstance(drawn, tuple) else drawn))
            return drawn

        planted["sampler"] = sampler
    return planted, mutant


def _bytes(array: Any) -> bytes:
    a = np.asarray(array)
    return (a if a.dtype.kind == "f" else a.astype(float)).tobytes()


def _last(result: Any) -> Any:
    while isinstance(result, (tuple, list)):
        result = result[-1]
    return result


def _with_last(result: Any, last: Any) -> Any:
    return (*result[:-1], _with_last(result[-1], last)) if isinstance(result, (tuple, list)) else last
