"""The check of one implementation against a proved one: float32 against float64, one device against another."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from ._call import Arguments, Subject, copied
from ._contract import Contract
from ._options import Sampler, name_of
from ._verdict import Finding, Result, Verdict

#: Perturbations of the inputs, by half a unit in the last place, that show how well conditioned a result is: all but the last
#: in random directions, and that towards zero, which no end of a domain forbids.
PERTURBATIONS = 9
#: The same, so much smaller that only a jump of the result does not shrink with it.
NEAR = 2.0**-10
#: Smaller changes, relative to the largest entry, may be roundings of the reference.
JUMP = 2.0**-30
#: Entries that are named one by one.
NAMED = 8


def check_transfer(
    reference: Callable[..., Any],
    candidate: Callable[..., Any],
    x: Any,
    *args: Any,
    max_ulp: float = 8.0,
    sampler: Sampler | None = None,
    points: int = 2,
    tolerance: float = 0.0,
    seed: int = 0,
    name: str = "",
) -> Result:
    """Check results in the precision of `x` against those of a reference in float64, in units in the last place.

    Finite differences say nothing in single precision.  So the float64 code is proved by `check`, and the same code in
    another precision, or on another device, is compared with it here.

    Parameters
    ----------
    reference : callable
        ``reference(x, *args)`` with floating arguments as float64: an array, a number, or a tuple of these.
    candidate : callable
        ``candidate(x, *args)`` with the arguments as they are: results of the same shapes, in the precision of `x`.
    x : array_like
        Point; its dtype says in which units the results are compared.
    *args
        Further arguments.
    max_ulp : float
        Error allowed, in units in the last place of each exact result, and in changes of the exact result that an error of
        half a unit in the inputs makes.
    sampler : callable
        As in `check`; without it, only `x` is compared.
    points, tolerance, seed, name
        As in `check`.

    Returns
    -------
    Result
        Its `resolution` is the error allowed at the best conditioned entry.

    Examples
    --------
    >>> import numpy as np
    >>> bool(check_transfer(np.exp, np.exp, np.float32([0.5, 1.0])))
    True
    """
    started = time.perf_counter()
    for what, function in (("reference", reference), ("candidate", candidate)):
        if not callable(function):
            raise TypeError(f"{what} must be callable, was {type(function).__name__}")
    x = np.asarray(x)
    if x.dtype.kind != "f":
        raise TypeError(f"x must be of a floating dtype, was {x.dtype}")
    if not max_ulp > 0:
        raise ValueError(f"max_ulp must be positive, was {max_ulp!r}")
    rng = np.random.default_rng(seed)
    drawn: list[Arguments] = [(x, *args)]
    for _ in range(points - 1 if sampler is not None else 0):
        assert sampler is not None
        sample = sampler(rng)
        drawn.append(sample if isinstance(sample, tuple) else (sample, *args))
    findings: list[Finding] = []
    resolution, entries = np.inf, 0
    for point, arguments in enumerate(drawn):
        wrong, allowed, count = _compare(reference, candidate, arguments, x.dtype, max_ulp, point, rng)
        findings += wrong
        resolution = min(resolution, allowed)
        entries += count
    candidate_calls = len(drawn)
    if not any(f.code == "input-modified" for f in findings):
        contract = _contract(candidate, drawn[0], tolerance)
        contract.gradient_repeatable()
        contract.results_are_the_callers(drawn[-1])
        findings += contract.findings
        candidate_calls += contract.subject.gradient_evaluations
    verdict = Verdict.worst(f.verdict for f in findings)
    calls = len(drawn) * (1 + PERTURBATIONS * (3 if args else 1))
    return Result(
        name or name_of(candidate), verdict, float(resolution), float(resolution), tuple(findings),
        calls, candidate_calls, np.nan, len(drawn), entries, time.perf_counter() - started, seed,
        f"gradcheck.check_transfer(reference, candidate, x, ..., seed={seed})",
    )  # fmt: skip


def _contract(candidate: Callable[..., Any], arguments: Arguments, tolerance: float) -> Contract:
    """Rules for the results of the candidate, which is other code than the reference and may break them by itself."""
    results = candidate(*arguments)
    several = isinstance(results, tuple)
    positions = tuple(range(len(results))) if several else (0,)
    contract = Contract(Subject(candidate, candidate, None, False, positions, several), arguments, None, tolerance)
    contract.first = copied(_tuple(results))
    return contract


def _compare(
    reference: Callable[..., Any], candidate: Callable[..., Any], arguments: Arguments, dtype: np.dtype[Any], max_ulp: float,
    point: int, rng: np.random.Generator,
) -> tuple[list[Finding], float, int]:  # fmt: skip
    before = copied(arguments)
    results = _tuple(candidate(*arguments))
    findings = []
    for position, (old, new) in enumerate(zip(before, arguments, strict=True)):
        if isinstance(old, np.ndarray) and old.tobytes() != new.tobytes():
            findings.append(
                Finding("input-modified", Verdict.FAIL, f"the candidate writes to argument {position}", point=point)
            )
    wide = tuple(_wide(a) for a in before)
    exact = _tuple(reference(*copied(wide)))
    if len(exact) != len(results):
        raise ValueError(f"reference returns {len(exact)} results and candidate {len(results)}")
    response = [np.zeros(e.shape) for e in exact]
    for k in range(PERTURBATIONS):
        change = _response(reference, before, wide, exact, rng if k < PERTURBATIONS - 1 else None)
        response = [np.fmax(r, c) for r, c in zip(response, change, strict=True)]
    allowed, count = np.inf, 0
    for number, (e, c, r) in enumerate(zip(exact, results, response, strict=True)):
        if e.shape != c.shape:
            findings.append(
                Finding(
                    "shape", Verdict.FAIL, f"result {number} has shape {c.shape}, that of the reference {e.shape}", point=point
                )
            )
            continue
        if c.dtype != dtype:
            findings.append(Finding("dtype", Verdict.FAIL, f"result {number} is {c.dtype}, x is {dtype}", point=point))
        with np.errstate(all="ignore"):
            unit = np.spacing(np.abs(e).astype(dtype)).astype(float)
            bound = max_ulp * (unit + r)
            # Beyond the range of the dtype the right result is infinite.
            agree = (np.abs(c - e) <= bound) | (c == e.astype(dtype)) | (np.isnan(c) & np.isnan(e))
            relative = bound / np.abs(e)
        count += e.size
        allowed = min(allowed, float(np.min(relative[np.isfinite(relative)], initial=np.inf)))
        for index in np.argwhere(~agree)[:NAMED]:
            place = tuple(int(i) for i in index)
            ulp = abs(float(c[place]) - e[place]) / unit[place]
            text = f"{ulp:.3g} units in the last place of result {number}"
            findings.append(
                Finding("value", Verdict.FAIL, text, 0, point, place, float(c[place]), float(e[place]), float(bound[place]))
            )
    return findings, allowed, count


def _tuple(result: Any) -> tuple[np.ndarray, ...]:
    return tuple(np.asarray(r) for r in (result if isinstance(result, tuple) else (result,)))


def _wide(a: Any) -> Any:
    return a.astype(np.float64) if isinstance(a, np.ndarray) and a.dtype.kind == "f" else a


def _response(
    reference: Callable[..., Any], narrow: Arguments, wide: Arguments, exact: tuple[np.ndarray, ...],
    rng: np.random.Generator | None,
) -> list[np.ndarray]:  # fmt: skip
    """Changes of the exact results when the arguments change by half a unit in the last place, towards zero without `rng`.

    A result that jumps however little a further argument changes is no matter of rounding: that argument is a label.
    """
    # Half a unit of float64 would be rounded away as often as not: then it is half of what a whole one changes.
    whole = narrow[0].dtype == np.float64
    steps = [_step(a, 1.0 if whole else 0.5, rng) for a in narrow]

    def change(*shares: float) -> list[np.ndarray]:
        moved = (_moved(a, step, share) for a, step, share in zip(wide, steps, shares, strict=True))
        with np.errstate(all="ignore"):
            changes = [np.abs(m - e) for m, e in zip(_tuple(reference(*moved)), exact, strict=True)]
            return [0.5 * c for c in changes] if whole else changes

    others = len(wide) - 1
    together = change(*[1.0] * len(wide))
    if not others:
        return together
    alone, near = change(1.0, *[0.0] * others), change(0.0, *[NEAR] * others)
    found = []
    for e, t, a, n in zip(exact, together, alone, near, strict=True):
        largest = np.max(np.abs(e[np.isfinite(e)]), initial=0.0)
        found.append(np.where((n > 0.5 * t) & (n > JUMP * largest), a, t))
    return found


def _step(narrow: Any, units: float, rng: np.random.Generator | None) -> Any:
    if not isinstance(narrow, np.ndarray) or narrow.dtype.kind != "f":
        return None
    sign = -np.sign(narrow, dtype=float) if rng is None else rng.choice([-1.0, 1.0], narrow.shape)
    with np.errstate(all="ignore"):
        return np.where(narrow == 0, 0.0, units * np.spacing(np.abs(narrow)).astype(float) * sign)


def _moved(wide: Any, step: Any, share: float) -> Any:
    if step is None or share == 0:
        return wide
    with np.errstate(all="ignore"):
        moved = wide + share * step
    return np.where(np.isfinite(moved), moved, wide)
