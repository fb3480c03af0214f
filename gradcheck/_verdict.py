"""What a check returns: a verdict, how sharp it is, and what was found."""

from __future__ import annotations

import enum
import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

#: Version of the layout of `Result.to_dict`.
SCHEMA = 1
#: Findings that the text of a result shows; the rest is counted.
SHOWN = 5


class Verdict(enum.Enum):
    """Outcome of a check.  Only ``PASS`` is true."""

    PASS = "pass"
    INCONCLUSIVE = "inconclusive"
    FAIL = "fail"

    def __bool__(self) -> bool:
        return self is Verdict.PASS

    @staticmethod
    def worst(verdicts: Iterable[Verdict]) -> Verdict:
        """``FAIL`` before ``INCONCLUSIVE`` before ``PASS``, which is the verdict of nothing."""
        order = list(Verdict)
        return max(verdicts, key=order.index, default=Verdict.PASS)


class GradientError(AssertionError):
    """A gradient did not pass; `result` holds everything that is known."""

    def __init__(self, result: Result):
        super().__init__(str(result))
        self.result = result


@dataclass(frozen=True)
class Finding:
    """One thing that a check found.

    Attributes
    ----------
    code : str
        Kind of finding: ``"value"`` for a wrong number, else the name of the broken rule (``"input-modified"``) or of the
        reason why nothing can be said (``"noise"``).
    verdict : Verdict
        ``FAIL`` or ``INCONCLUSIVE``.
    message : str
        One line for people.
    argument : int
        Position of the argument that the gradient belongs to; 0 is `x`.
    point : int or None
        Number of the point, counted from 0.
    index : tuple of int or None
        Entry of the argument.
    analytic, numeric, interval : float or None
        Value under test, finite difference, and the half-width of the interval around it that holds the truth.
    hint : str
        Likely cause.
    """

    code: str
    verdict: Verdict
    message: str
    argument: int = 0
    point: int | None = None
    index: tuple[int, ...] | None = None
    analytic: float | None = None
    numeric: float | None = None
    interval: float | None = None
    hint: str = ""

    def __str__(self) -> str:
        if self.index is None or self.analytic is None or self.numeric is None:
            text = f"{self.code}: {self.message}"
        else:
            where = ", ".join(map(str, self.index))
            text = f"grad[{where}]  analytic {self.analytic:+.9e}   numeric {self.numeric:+.9e} +- {self.interval:.1e}"
            text += f"   {self.message}" if self.message else ""
        return text


@dataclass(frozen=True)
class Curve:
    """Error of the finite difference of one entry against its step, for plots.

    Attributes
    ----------
    label : str
        Which entry.
    step, difference, noise : tuple of float
        Steps in units of the input, |analytic - difference quotient|, and what noise explains of it.
    """

    label: str
    step: tuple[float, ...]
    difference: tuple[float, ...]
    noise: tuple[float, ...]


@dataclass(frozen=True)
class Result:
    """Outcome of one check.  It is true only if the verdict is ``PASS``.

    Attributes
    ----------
    name : str
        What was checked.
    verdict : Verdict
        The worst of all findings, ``PASS`` where there are none.
    resolution : float
        Smallest relative error, common to all entries, that this run would have caught; NaN if no number was compared.
    resolution_entry : float
        Smallest error of any one entry that this run would have caught, relative to the largest entry.
    findings : tuple of Finding
        Worst first.
    evaluations, gradient_evaluations : int
        Calls of the function and of its gradient.
    noise : float
        Standard error of one value of the function that was used.
    points : int
        Points that were checked.
    entries : int
        Numbers that were compared.
    seconds : float
        Time spent.
    seed : int
        Seed of all random choices.
    reproduce : str
        Line of Python or shell that runs just this check, or its worst entry, again.
    curve : Curve or None
        Error against step of the worst entry.
    """

    name: str
    verdict: Verdict
    resolution: float = math.nan
    resolution_entry: float = math.nan
    findings: tuple[Finding, ...] = ()
    evaluations: int = 0
    gradient_evaluations: int = 0
    noise: float = math.nan
    points: int = 0
    entries: int = 0
    seconds: float = 0.0
    seed: int = 0
    reproduce: str = ""
    curve: Curve | None = field(default=None, repr=False)

    def __bool__(self) -> bool:
        return self.verdict is Verdict.PASS

    def __str__(self) -> str:
        """Verdict, the worst findings and how to see the worst again, in fewer than 20 lines."""
        calls = f"{self.evaluations} + {self.gradient_evaluations} evaluations"
        head = f"{self.verdict.name} {self.name}".rstrip() + f"   seed {self.seed}   {calls}"
        if math.isfinite(self.resolution):
            head += f"   resolution {self.resolution:.1e}"
        lines = [head]
        hints: list[str] = []
        shown = _distinct(self.findings)[:SHOWN]
        for finding in shown:
            lines.append(f"  {finding}")
            if finding.hint and finding.hint not in hints:
                hints.append(finding.hint)
        hidden = len(self.findings) - len(shown)
        if hidden > 0:
            lines.append(f"  and {hidden} more")
        lines += [f"  likely: {hint}" for hint in hints]
        if self.reproduce and not self:
            lines.append(f"  reproduce: {self.reproduce}")
        return "\n".join(lines)

    def raise_if_failed(self, strict: bool = False) -> None:
        """Raise `GradientError` on ``FAIL``; with `strict` also on ``INCONCLUSIVE``."""
        __tracebackhide__ = True
        if self.verdict is Verdict.FAIL or (strict and not self):
            raise GradientError(self)

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain dicts, lists, numbers and strings; numbers that are not finite become None."""
        return {"schema": SCHEMA, **_plain(asdict(self))}

    def to_json(self, indent: int | None = None) -> str:
        """`to_dict` as text."""
        return json.dumps(self.to_dict(), indent=indent, allow_nan=False)


def _distinct(findings: Iterable[Finding]) -> list[Finding]:
    """One finding of each kind and entry; other points mostly say the same."""
    distinct: dict[tuple[Any, ...], Finding] = {}
    for finding in findings:
        distinct.setdefault((finding.code, finding.argument, finding.index), finding)
    return list(distinct.values())


def _plain(value: Any) -> Any:
    if isinstance(value, Verdict):
        return value.value
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
