"""The check of a first derivative."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from . import _numbers
from ._call import Arguments, Subject, copied
from ._contract import Contract, Setting
from ._findings import Numbers, Setup
from ._options import Kinks, Sampler, common_options, further, name_of, prepared
from ._points import Bounds
from ._run import FATAL, Run
from ._verdict import Result


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
    run = Run(options, subject, "check(f, grad")
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
