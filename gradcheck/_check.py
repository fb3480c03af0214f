"""The check of a first derivative."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import _numbers
from ._call import Arguments, Subject, copied
from ._contract import Contract, Setting, is_single
from ._numbers import Numbers, Setup
from ._points import ATTEMPTS, NEIGHBOURHOOD, Bounds, near
from ._verdict import Finding, Result, Verdict

#: Without a passing point of this entry resolution, a check is inconclusive: a wrong entry could hide.
ENTRY_DEMAND = 1e-3
#: Broken rules after which numbers mean nothing.
FATAL = {"shape", "dtype", "input-modified"}

#: Further points that are tried where those asked for say too little.
MORE_POINTS = 3

Sampler = Callable[[np.random.Generator], Any]
Kinks = str | Callable[..., Any]


@dataclass(frozen=True)
class Options:
    """What all checks have in common."""

    wrt: tuple[int, ...]
    points: int
    sampler: Sampler | None
    domain: Bounds | None
    kinks: Kinks
    rtol: float
    only: tuple[int, ...] | None
    seed: int
    name: str


def check(
    f: Callable[..., Any],
    grad: Callable[..., Any] | None,
    x: Any,
    *args: Any,
    value_and_grad: bool = False,
    vjp: Callable[..., Any] | None = None,
    wrt: int | tuple[int, ...] = 0,
    points: int = 2,
    sampler: Sampler | None = None,
    domain: Bounds | None = None,
    kinks: Kinks = "any",
    separable: Sequence[int] | None = None,
    rtol: float = 1e-6,
    out: str | None = None,
    settings: Sequence[Setting] = (),
    tolerance: float = 0.0,
    only: tuple[int, ...] | None = None,
    seed: int = 0,
    name: str = "",
) -> Result:
    """Check a gradient against finite differences that bound their own error.

    The order of the arguments is that of `scipy.optimize.check_grad`.

    Parameters
    ----------
    f : callable
        ``f(x, *args)``: a real number, or with `vjp` an array of any shape.
    grad : callable or None
        ``grad(x, *args)``: array of the shape of `x`; None with `value_and_grad` or `vjp`.
    x : array_like of float64
        Point; its layout is kept where `grad` is called.  Integers and lists are taken as float64.
    *args
        Further arguments.
    value_and_grad : bool
        `f` returns ``(value, gradient)``.  A `grad` given besides must agree with it.
    vjp : callable
        ``vjp(grad_output, x, *args)``: vector-Jacobian product of an array-valued `f`.
    wrt : int or tuple of int
        Which of ``(x, *args)`` the gradient belongs to.  A tuple means that a tuple of gradients is returned.
    points : int
        Points to check at: `x` and others.
    sampler : callable
        ``sampler(rng)`` draws a further `x`, or a further tuple ``(x, *args)``.  Without it, further points are `x` with each
        entry changed by up to 10 %.
    domain : (low, high)
        Interval that the arguments of `wrt` must stay in; numbers or arrays.
    kinks : {"any", "forbid"} or callable
        At a kink any slope between the one-sided ones is right, or none is.  A callable ``kinks(x, *args)`` returns an array
        of the shape of `x` with the value that the gradient has by convention, NaN at entries where there is no kink.
    separable : sequence of int
        With `vjp`: the axes of `x` over which one output of `f` mixes; along all others outputs are independent.  Their shape
        is that of `x` without these axes: ``()`` for an elementwise `f`, ``(1,)`` for one that reduces axis 1.  Every entry is
        then checked, at little cost.
    rtol : float
        Resolution that is demanded.  It is no tolerance: it does not make a wrong gradient right, it makes a check that sees
        too little inconclusive.
    out : str
        Name of a keyword of the gradient that takes an array to write to.
    settings : sequence of callables
        Each returns a context manager in which the gradient must have the same bits.
    tolerance : float
        Relative difference that repeated calls may have; 0 demands the same bits.
    only : tuple of int
        Check the numbers of this entry alone.
    seed : int
        Seed of all random choices.
    name : str
        What to call this in the result.

    Returns
    -------
    Result
        It is true only if the verdict is ``PASS``.

    Raises
    ------
    TypeError, ValueError
        For arguments that make no sense.  What `f` and the gradient raise at `x` is passed on.

    Notes
    -----
    A gradient fails if two finite differences with an error bound exclude it, or if it breaks a rule of `_contract`.  A
    check in which no point has the demanded resolution is inconclusive.

    Examples
    --------
    >>> import numpy as np
    >>> result = check(lambda x: np.sum(x**3), lambda x: 3 * x**2, [1.0, -2.0, 3.0])
    >>> result.verdict.name, result.resolution < 1e-9
    ('PASS', True)
    >>> print(check(lambda x: np.mean(x**3), lambda x: 3 * x**2, [1.0, -2.0, 3.0]).findings[0].hint)
    too large by the factor 3 (the number of entries): is the mean's denominator missing?
    """
    started = time.perf_counter()
    options = common_options(x, args, wrt, points, sampler, domain, kinks, rtol, only, seed, name or name_of(f))
    _callables(f, grad, vjp, value_and_grad, separable)
    rng = np.random.default_rng(seed)
    arguments = prepared((x, *args), options.wrt)
    subject = Subject(f, grad, vjp, value_and_grad, options.wrt, isinstance(wrt, tuple))
    upstream = _upstream(subject, arguments, vjp is not None, rng)
    contract = Contract(subject, arguments, upstream, tolerance)
    run = Run(options, subject)
    run.findings = contract.findings

    def value(a: Arguments) -> np.ndarray:
        return np.asarray(subject.value(a))

    others = further(options, arguments, value, rng, options.points - 1)
    if contract.inputs_untouched() and contract.shape_and_type():
        contract.repeatable()
        contract.results_are_the_callers(others[0] if others else arguments)
        contract.settings(settings)
        contract.paths_agree()
        if out is not None:
            contract.writes_all_of(out)
        if vjp is not None:
            contract.linear(rng)
    if FATAL.isdisjoint(finding.code for finding in contract.findings):
        claims = []
        for point, here in enumerate(run.enough_of([arguments, *others], value, rng)):
            u = _upstream(subject, here, vjp is not None, rng) if point else upstream
            gradients = contract.claim(u, here)
            claims.append(gradients)
            for position, gradient in zip(options.wrt, gradients, strict=True):
                run.point(point, here, u, position, gradient, rng, _look(u, separable))
        if len(claims) > 1:
            run.findings += contract.double_precision(claims[0], claims[1])
    return run.result(started)


def _look(
    upstream: np.ndarray | None, separable: Sequence[int] | None
) -> Callable[[Callable[[np.ndarray], Any], Setup], Numbers]:
    """How the numbers of a function are taken: of a scalar one, of outputs one by one, or of their weighted sum."""
    if upstream is None:
        return _numbers.scalar
    weights = upstream.reshape(-1)

    def weighted(value: Callable[[np.ndarray], Any]) -> Callable[[np.ndarray], np.ndarray]:
        return lambda y: weights * np.asarray(value(y), float).reshape(-1)

    def each(value: Callable[[np.ndarray], Any], setup: Setup) -> Numbers:
        axes = tuple(separable or ())
        _independent(value, setup.x, axes, setup.rng)
        return _numbers.separable(weighted(value), setup, axes)

    def together(value: Callable[[np.ndarray], Any], setup: Setup) -> Numbers:
        terms = weighted(value)
        return _numbers.scalar(lambda y: _sum(terms(y)), setup)

    return together if separable is None else each


def _sum(terms: np.ndarray) -> float:
    return math.fsum(terms) if np.isfinite(terms).all() else float(np.sum(terms))


class Run:
    """Collects what the points say, and sums it up."""

    def __init__(self, options: Options, subject: Subject):
        self.options = options
        self.subject = subject
        self.findings: list[Finding] = []
        self.numbers: dict[int, list[Numbers]] = {}
        self.singles = True

    def point(
        self, point: int, arguments: Arguments, upstream: np.ndarray | None, position: int, gradient: np.ndarray,
        rng: np.random.Generator, look: Callable[[Callable[[np.ndarray], Any], Setup], Numbers],
    ) -> None:  # fmt: skip
        """Numbers of one argument at one point, which `look` takes from the function of that argument alone."""
        options, subject = self.options, self.subject
        which = subject.wrt.index(position)

        def at(y: np.ndarray) -> Arguments:
            return (*arguments[:position], y, *arguments[position + 1 :])

        def value(y: np.ndarray) -> Any:
            result = subject.value(at(y))
            if self.singles:
                self.singles = is_single(np.asarray(result, float))
            return result

        def evaluate(y: np.ndarray) -> np.ndarray:
            return np.array(subject.gradient(upstream, at(y))[which], float)

        x = np.array(arguments[position], float, order="C")
        setup = Setup(x, gradient, options.domain, rng, position, point, options.only, options.kinks == "forbid", evaluate)
        self.findings += _convention(options.kinks, arguments, setup)
        if x.size:
            numbers = look(value, setup)
            self.numbers.setdefault(position, []).append(numbers)
            self.findings += numbers.findings

    @property
    def resolution(self) -> tuple[float, float]:
        """Smallest errors, of the whole and of an entry, that would be seen whichever argument they are in."""
        known = [of_argument for of_argument in self.numbers.values() if any(n.entries for n in of_argument)]
        whole = max((min(n.resolution for n in numbers) for numbers in known), default=math.nan)
        return whole, max((min(n.resolution_entry for n in numbers) for numbers in known), default=math.nan)

    @property
    def sharp(self) -> bool:
        whole, entry = self.resolution
        return math.isnan(whole) or (whole <= self.options.rtol and entry <= ENTRY_DEMAND)

    def enough_of(
        self, points: list[Arguments], value: Callable[[Arguments], np.ndarray], rng: np.random.Generator
    ) -> Iterator[Arguments]:
        """The points, and some more as long as they are right but say too little, as on plateaus and at kinks."""
        yield from points
        for _ in range(MORE_POINTS if self.options.points > 1 else 0):
            if self.sharp or any(f.verdict is Verdict.FAIL for f in self.findings):
                return
            yield from further(self.options, points[0], value, rng, 1)

    def result(self, started: float) -> Result:
        options, subject = self.options, self.subject
        resolution, entry = self.resolution
        findings = [f for f in self.findings if f.verdict is Verdict.FAIL]
        # What could not be seen at a further point was seen at another; x itself is what was asked for.
        unclear = [f for f in self.findings if f.verdict is not Verdict.FAIL and not f.point]
        if not self.sharp:
            unclear.append(self._blunt(resolution, entry))
        findings += unclear
        worst = next((f for f in findings if f.index is not None), None)
        call = f"gradcheck.check(f, grad, x, ..., seed={options.seed}"
        call += f", only={worst.index})" if worst is not None and worst.code == "value" else ")"
        every = [n for numbers in self.numbers.values() for n in numbers]
        curves = [n.curve for n in every if n.curve is not None and (n.findings or not findings)]
        points = max((len(numbers) for numbers in self.numbers.values()), default=0)
        return Result(
            options.name, Verdict.worst(f.verdict for f in findings), resolution, entry, tuple(findings),
            subject.evaluations, subject.gradient_evaluations, max((n.noise for n in every), default=math.nan),
            points, sum(n.entries for n in every), time.perf_counter() - started, options.seed, call,
            curves[0] if curves else None,
        )  # fmt: skip

    def _blunt(self, resolution: float, entry: float) -> Finding:
        """Why too little was seen."""
        what, size, wanted = ("gradient", resolution, self.options.rtol)
        if resolution <= self.options.rtol:
            what, size, wanted = ("single entry", entry, ENTRY_DEMAND)
        text = f"only errors of {size:.1e} of the {what} would have been seen, {wanted:.0e} is demanded"
        if not math.isfinite(resolution):
            text = "at every point the gradient is zero, or nothing is known of it: there is nothing to compare"
            return Finding("flat", Verdict.INCONCLUSIVE, text, hint="pass sampler=, or another x")
        if self.singles:
            return Finding(
                "noise", Verdict.INCONCLUSIVE, text, hint="f returns float32 numbers: compute it in double precision"
            )
        if any(n.kinked for numbers in self.numbers.values() for n in numbers):
            return Finding(
                "kink", Verdict.INCONCLUSIVE, text, hint="f has kinks at or near every point: pass sampler=, or another x"
            )
        hint = "f is large beside its changes, or not smooth: check a part of it, or at another x"
        return Finding("noise", Verdict.INCONCLUSIVE, text, hint=hint)


def further(
    options: Options, arguments: Arguments, value: Callable[[Arguments], np.ndarray], rng: np.random.Generator, count: int
) -> list[Arguments]:
    """Further points at which the function is defined."""
    found = []
    for _ in range(count):
        if options.sampler is not None:
            drawn = options.sampler(rng)
            drawn = drawn if isinstance(drawn, tuple) else (drawn, *arguments[1:])
            if len(drawn) != len(arguments):
                raise ValueError(f"sampler must return x or a tuple of {len(arguments)} arguments, was a tuple of {len(drawn)}")
            found.append(prepared(drawn, options.wrt))
            continue
        distance = NEIGHBOURHOOD
        for _ in range(ATTEMPTS):
            moved = tuple(
                near(np.array(a, float, order="C"), options.domain, rng, distance) if i in options.wrt else a
                for i, a in enumerate(arguments)
            )
            try:
                with np.errstate(all="ignore"):
                    defined = bool(np.isfinite(value(copied(moved))).any()) or not moved[options.wrt[0]].size
            except (ValueError, ArithmeticError):
                defined = False
            if defined:
                found.append(moved)
                break
            distance /= 4
    return found


def prepared(arguments: Sequence[Any], wrt: tuple[int, ...]) -> Arguments:
    """Arguments whose differentiable ones are float64 arrays."""
    result = list(arguments)
    for position in wrt:
        a = np.asarray(result[position])
        what = "x" if position == 0 else f"argument {position}"
        if a.dtype.kind not in "fiub":
            raise TypeError(f"{what} must be real and float64, was {a.dtype}")
        if a.dtype.kind == "f" and a.dtype != np.float64:
            why = "finite differences prove nothing in other precisions; see check_transfer"
            raise TypeError(f"{what} must be float64, was {a.dtype}: {why}")
        result[position] = a if a.dtype == np.float64 else a.astype(np.float64)
    return tuple(result)


def common_options(
    x: Any, args: tuple[Any, ...], wrt: int | tuple[int, ...], points: int, sampler: Sampler | None, domain: Bounds | None,
    kinks: Kinks, rtol: float, only: tuple[int, ...] | None, seed: int, name: str,
) -> Options:  # fmt: skip
    positions = wrt if isinstance(wrt, tuple) else (wrt,)
    for position in positions:
        if not isinstance(position, int) or not 0 <= position <= len(args):
            raise ValueError(f"wrt must be positions among the {1 + len(args)} arguments (x, *args), was {wrt!r}")
    if not positions or len(set(positions)) != len(positions):
        raise ValueError(f"wrt must name each argument once, was {wrt!r}")
    if points < 1:
        raise ValueError(f"points must be at least 1, was {points!r}")
    if not rtol > 0:
        raise ValueError(f"rtol must be positive, was {rtol!r}")
    if not callable(kinks) and kinks not in ("any", "forbid"):
        raise ValueError(f"kinks must be 'any', 'forbid' or a callable, was {kinks!r}")
    if domain is not None:
        if len(domain) != 2 or not np.all(np.asarray(domain[0]) < np.asarray(domain[1])):
            raise ValueError(f"domain must be (low, high) with low < high, was {domain!r}")
        for position in positions:
            a = np.asarray((x, *args)[position], float)
            if ((a < domain[0]) | (a > domain[1])).any():
                raise ValueError(f"{'x' if position == 0 else f'argument {position}'} is outside of the domain {domain!r}")
    if only is not None:
        shape = np.shape((x, *args)[positions[0]])
        if len(only) != len(shape) or not all(-n <= i < n for i, n in zip(only, shape, strict=True)):
            raise ValueError(f"only must be an index of an array of shape {shape}, was {only!r}")
        only = tuple(i % n for i, n in zip(only, shape, strict=True))
    return Options(tuple(positions), points, sampler, domain, kinks, rtol, only, seed, name)


def _callables(f: Any, grad: Any, vjp: Any, value_and_grad: bool, separable: Sequence[int] | None) -> None:
    if not callable(f):
        raise TypeError(f"f must be callable, was {type(f).__name__}")
    for what, function in (("grad", grad), ("vjp", vjp)):
        if function is not None and not callable(function):
            raise TypeError(f"{what} must be callable or None, was {type(function).__name__}")
    given = (grad is not None) + (vjp is not None) + value_and_grad
    if not given:
        raise TypeError("nothing to check: pass grad, vjp= or value_and_grad=True")
    if vjp is not None and given > 1:
        raise TypeError("vjp goes neither with grad nor with value_and_grad=True")
    if separable is not None and vjp is None:
        raise TypeError("separable needs an array-valued f and its vjp")


def _upstream(subject: Subject, arguments: Arguments, wanted: bool, rng: np.random.Generator) -> np.ndarray | None:
    """Random weights of the outputs, none of them small; None for a scalar function."""
    value = np.asarray(subject.value(copied(arguments)))
    if value.dtype.kind not in "fiub":
        raise TypeError(f"f must return real numbers, was {value.dtype}")
    if not wanted:
        if value.ndim:
            raise ValueError(
                f"f must return a number, was an array of shape {value.shape}: pass vjp= to check an array-valued f"
            )
        return None
    return np.asarray(rng.uniform(0.5, 2.0, value.shape) * rng.choice([-1.0, 1.0], value.shape))


def _convention(kinks: Kinks, arguments: Arguments, setup: Setup) -> list[Finding]:
    """Entries at declared kinks have the declared value."""
    if not callable(kinks):
        return []
    declared = np.asarray(kinks(*arguments), float)
    if declared.shape != setup.x.shape:
        raise ValueError(f"kinks must return an array of shape {setup.x.shape}, was {declared.shape}")
    with np.errstate(invalid="ignore"):
        bad = np.argwhere(
            np.isfinite(declared) & ~(np.abs(setup.gradient - declared) <= 1e-14 * np.maximum(1, np.abs(declared)))
        )
    if not len(bad):
        return []
    index = tuple(int(i) for i in bad[0])
    text = f"{setup.gradient[index]!r} at a kink where {declared[index]!r} is declared"
    return [Finding("convention", Verdict.FAIL, f"entry {index} is {text}", setup.argument, setup.point, index)]


def _independent(value: Callable[[np.ndarray], Any], x: np.ndarray, axes: tuple[int, ...], rng: np.random.Generator) -> None:
    """Raise if outputs are not as independent as `separable` says."""
    shape = tuple(n for i, n in enumerate(x.shape) if i not in [axis % max(x.ndim, 1) for axis in axes])
    before = np.asarray(value(x), float)
    if before.shape != shape:
        raise ValueError(f"with separable={axes}, f must return an array of shape {shape}, was {before.shape}")
    moved = rng.random(before.size) < 0.5
    _, output = _numbers.layout(x.shape, axes)
    y = x.copy()
    y.reshape(-1)[moved[output]] *= 1 + 2.0**-20
    try:
        after = np.asarray(value(y), float)
    except (ValueError, ArithmeticError):
        return
    still = ~moved
    a, b = before.reshape(-1)[still], after.reshape(-1)[still]
    with np.errstate(invalid="ignore"):
        close = np.abs(a - b) <= 1e-13 * np.abs(a)
    if not ((a == b) | ((a != a) & (b != b)) | close).all():
        raise ValueError(f"separable={axes}: an output of f changes with entries that it should not depend on")


def name_of(f: Any) -> str:
    name = getattr(f, "__name__", None) or type(f).__name__
    return "" if name == "<lambda>" else str(name)
