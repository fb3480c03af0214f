"""The checks of second derivatives: finite differences of a gradient that was checked before."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from . import _numbers
from ._call import Arguments, Subject, copied
from ._contract import Contract, Setting
from ._findings import Numbers, Setup
from ._options import Kinks, Options, Sampler, common_options, further, name_of, prepared
from ._points import Bounds
from ._run import FATAL, Run
from ._verdict import Finding, Result, Verdict

#: Two products of a symmetric matrix may differ by this, relative to the sizes of what is multiplied.
SYMMETRY = 1e-10
#: Directions at each point.
DIRECTIONS = 2


def check_hvp(
    grad: Callable[..., Any],
    hvp: Callable[..., Any],
    x: Any,
    *args: Any,
    points: int = 2,
    sampler: Sampler | None = None,
    domain: Bounds | None = None,
    rtol: float = 1e-6,
    settings: Sequence[Setting] = (),
    tolerance: float = 0.0,
    seed: int = 0,
    name: str = "",
) -> Result:
    """Check Hessian-vector products against finite differences of the gradient.

    Parameters
    ----------
    grad : callable
        ``grad(x, *args)``: array of the shape of `x`.  Check it first.
    hvp : callable
        ``hvp(x, v, *args)``: the Hessian at `x` times `v`, as `scipy.optimize.minimize` takes it.
    x, *args, points, sampler, domain, rtol, settings, tolerance, seed, name
        As in `check`.

    Returns
    -------
    Result
        Of every entry of the products with random vectors.  Products must be linear in `v` and those of two vectors
        symmetric.

    Examples
    --------
    >>> import numpy as np
    >>> A = np.array([[2.0, 1.0], [1.0, 3.0]])
    >>> bool(check_hvp(lambda x: A @ x, lambda x, v: A @ v, [1.0, -2.0]))
    True
    """

    def product(v: np.ndarray, x: np.ndarray, *args: Any) -> Any:
        return hvp(x, v, *args)

    started = time.perf_counter()
    _callable("grad", grad)
    _callable("hvp", hvp)
    options = common_options(x, args, 0, points, sampler, domain, "any", rtol, None, seed, name or name_of(hvp))
    subject = Subject(grad, None, product, False, (0,), False)
    run, arguments, others, rng = _begin(options, subject, args, x, "check_hvp(grad, hvp")
    upstream = rng.normal(size=np.shape(arguments[0]))
    contract = Contract(subject, arguments, upstream, tolerance)
    run.findings = contract.findings
    if contract.inputs_untouched() and contract.shape_and_type():
        contract.repeatable()
        contract.results_are_the_callers(others[0] if others else arguments)
        contract.settings(settings)
        contract.linear(rng)
    if FATAL.isdisjoint(finding.code for finding in contract.findings):
        for point, here in enumerate([arguments, *others]):
            _products(run, contract, point, here, rng)
    return run.result(started)


def check_hessian_diag(
    grad: Callable[..., Any],
    hessian_diag: Callable[..., Any],
    x: Any,
    *args: Any,
    separable: Sequence[int] | None = None,
    points: int = 2,
    sampler: Sampler | None = None,
    domain: Bounds | None = None,
    kinks: Kinks = "any",
    rtol: float = 1e-6,
    settings: Sequence[Setting] = (),
    tolerance: float = 0.0,
    seed: int = 0,
    name: str = "",
) -> Result:
    """Check the diagonal of a Hessian against finite differences of the gradient.

    Parameters
    ----------
    grad, hessian_diag : callable
        ``grad(x, *args)`` and ``hessian_diag(x, *args)``: arrays of the shape of `x`.  Check the gradient first.
    separable : sequence of int
        Axes of `x` over which one entry of the gradient depends on entries of `x`; it saves evaluations.
    x, *args, points, sampler, domain, kinks, rtol, settings, tolerance, seed, name
        As in `check`.

    Returns
    -------
    Result
        Of every entry of the diagonal.

    Examples
    --------
    >>> import numpy as np
    >>> bool(check_hessian_diag(np.exp, np.exp, [1.0, -2.0], separable=()))
    True
    """
    started = time.perf_counter()
    _callable("grad", grad)
    _callable("hessian_diag", hessian_diag)
    options = common_options(x, args, 0, points, sampler, domain, kinks, rtol, None, seed, name or name_of(hessian_diag))
    subject = Subject(grad, hessian_diag, None, False, (0,), False)
    run, arguments, others, rng = _begin(options, subject, args, x, "check_hessian_diag(grad, hessian_diag")
    contract = Contract(subject, arguments, None, tolerance)
    run.findings = contract.findings
    if contract.inputs_untouched() and contract.shape_and_type():
        contract.repeatable()
        contract.results_are_the_callers(others[0] if others else arguments)
        contract.settings(settings)
    if FATAL.isdisjoint(finding.code for finding in contract.findings):
        axes = None if separable is None else tuple(separable)
        for point, here in enumerate([arguments, *others]):
            (claim,) = contract.claim(None, here)
            run.point(point, here, None, 0, claim, rng, lambda f, setup: _numbers.diagonal(f, setup, axes))
    return run.result(started)


def _begin(
    options: Options, subject: Subject, args: tuple[Any, ...], x: Any, call: str
) -> tuple[Run, Arguments, list[Arguments], np.random.Generator]:
    rng = np.random.default_rng(options.seed)
    arguments = prepared((x, *args), options.wrt)
    gradient = np.asarray(subject.value(copied(arguments)))
    if gradient.shape != np.shape(arguments[0]):
        raise ValueError(f"grad must return an array of shape {np.shape(arguments[0])}, that of x, was {gradient.shape}")

    def value(a: Arguments) -> np.ndarray:
        return np.asarray(subject.value(a))

    return Run(options, subject, call), arguments, further(options, arguments, value, rng, options.points - 1), rng


def _along(vector: np.ndarray) -> Callable[[Callable[[np.ndarray], Any], Setup], Numbers]:
    return lambda f, setup: _numbers.along(f, setup, vector)


def _products(run: Run, contract: Contract, point: int, arguments: Arguments, rng: np.random.Generator) -> None:
    x = np.array(arguments[0], float, order="C")
    vectors: list[np.ndarray] = []
    products: list[np.ndarray] = []
    for _ in range(DIRECTIONS):
        vector = _numbers.direction(Setup(x, np.zeros_like(x), run.options.domain, rng))
        vectors.append(vector)
        products += contract.claim(vector, arguments)
        run.point(point, arguments, vector, 0, products[-1], rng, _along(vector))
    (u, v), (hu, hv) = vectors, products
    with np.errstate(all="ignore"):
        size = np.sqrt(np.sum(np.abs(u * hv)) * np.sum(np.abs(v * hu)))
        one, other = float(np.sum(u * hv)), float(np.sum(v * hu))
    if abs(one - other) > SYMMETRY * size:
        text = f"u.Hv is {one:.9e} and v.Hu is {other:.9e}"
        run.findings.append(Finding("symmetry", Verdict.FAIL, text, point=point, hint="a Hessian is symmetric"))


def _callable(what: str, function: Any) -> None:
    if not callable(function):
        raise TypeError(f"{what} must be callable, was {type(function).__name__}")
