"""Every operator planted into every loss: what was caught, and why the rest was not."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ._call import copied
from ._mutants import OPERATORS, REPEATING, Operator, one_worker
from ._plant import FLOOR, Difference, plant
from ._suite import Case
from ._verdict import Result, Verdict

#: Cases that one loss and operator get in a quick run, until the fault makes a difference in one of them.
ATTEMPTS = 4
#: A slope that is right by itself may differ from the one that is declared, or that another function returns.
CONVENTIONS = {"convention", "kink", "paths"}
SUBGRADIENT = "another subgradient at a kink"


class State(enum.Enum):
    """What became of one mutant."""

    CAUGHT = "caught"
    MISSED = "missed"
    BELOW = "below resolution"
    EQUAL = "equal"
    HARMLESS = "harmless"
    FALSE_ALARM = "false alarm"


#: Mutants that count: they differ from the truth by more than the check can resolve.
COUNTED = (State.CAUGHT, State.MISSED)


@dataclass(frozen=True)
class Outcome:
    """One mutant.

    Attributes
    ----------
    operator, kind, loss, case : str
    state : State
    reason : str
        Why it was not caught.
    entry, common : float
        As of `Difference`.
    result : Result
    """

    operator: str
    kind: str
    loss: str
    case: str
    state: State
    reason: str
    entry: float
    common: float
    result: Result


@dataclass
class Subject:
    """A case with its unmutated result, which is computed once and when it is needed."""

    case: Case
    loss: str
    seed: int
    _result: Result | None = None

    def arguments(self) -> dict[str, Any]:
        """Fresh arguments, as the case's own run draws them; nobody else's arrays are written to."""
        rng = np.random.default_rng([self.seed, *self.case.name.encode()])
        made = dict(self.case.arguments(rng) if callable(self.case.arguments) else self.case.arguments)
        made["x"], *made["args"] = copied((made["x"], *made.get("args", ())))
        return {"seed": self.seed, **made}

    @property
    def truth(self) -> Result:
        if self._result is None:
            self._result = self.case.run(self.seed)
        return self._result

    @property
    def resolutions(self) -> tuple[float, float]:
        """For all entries together and for one; infinite where the unmutated check saw nothing."""
        r = self.truth
        return tuple(n if math.isfinite(n) else math.inf for n in (r.resolution, r.resolution_entry))  # type: ignore[return-value]

    def visible(self, difference: Difference) -> bool:
        return difference.visible(*self.resolutions)


def expand(operators: Sequence[Operator], subject: Subject, wrong: dict[str, list[Case]]) -> list[Operator]:
    """All operators of a subject, the slips of its loss included."""
    found = list(operators)
    for name, cases in wrong.items():
        for case in cases:
            if case.name == subject.case.name:
                found.append(slip(name, Subject(case, subject.loss, subject.seed)))
    return found


def slip(name: str, wrong: Subject) -> Operator:
    """A wrong gradient function as an operator."""
    check = wrong.case.check
    _, mutant = plant(check, wrong.arguments(), lambda call: call.g, 0)
    function = mutant.function

    def apply(call: Any) -> Any:
        result = function(*call.arguments, **call.keywords)
        while isinstance(result, tuple):
            result = result[-1]
        return np.asarray(result)

    return Operator(name, "parameter", f"{wrong.loss}: {name}.", apply)


def attempt(operator: Operator, subject: Subject, seed: int) -> Outcome | None:
    """Run one mutant; None where it has no meaning."""
    case = subject.case
    if case.check not in operator.checks:
        return None
    arguments, mutant = plant(case.check, subject.arguments(), operator.apply, seed)
    if case.check in REPEATING:
        arguments["settings"] = (*arguments.get("settings", ()), one_worker)
    result = replace(case, arguments=arguments).run(seed)
    if mutant.meaningless:
        return None
    state, reason = _state(operator, subject, result, mutant.difference)
    if state is State.MISSED:
        again, right = plant(case.check, subject.arguments(), operator.apply, seed)
        right.sides = True
        replace(case, arguments=again).run(seed)
        if not subject.visible(right.difference):
            state, reason = State.HARMLESS, SUBGRADIENT
    where = (operator.name, operator.kind, subject.loss, case.name)
    return Outcome(*where, state, reason, mutant.difference.entry, mutant.difference.common, result)


def _state(operator: Operator, subject: Subject, result: Result, difference: Difference) -> tuple[State, str]:
    entry, common = difference.entry, difference.common
    failed = result.verdict is Verdict.FAIL
    codes = {finding.code for finding in result.findings}
    if "error" in codes:
        return State.MISSED, f"the check itself raised {result.findings[0].message}"
    if entry == 0 or operator.harmless:
        if failed and not codes & CONVENTIONS:
            return State.FALSE_ALARM, f"it is right, and said to be wrong: {result.findings[0]}"
        if failed:
            return State.CAUGHT, ""
        return (State.HARMLESS, SUBGRADIENT) if entry > FLOOR else (State.EQUAL, "equals the truth at every point")
    if failed:
        return State.CAUGHT, ""
    if entry <= FLOOR:
        return State.EQUAL, "differs from the truth by roundings"
    sharp, sharp_entry = subject.resolutions
    if not subject.visible(difference):
        size, limit = (common, sharp) if common > 0 else (entry, sharp_entry)
        return State.BELOW, f"differs by {size:.1e}, of which {limit:.1e} is resolved"
    found = ", ".join(sorted(codes)) or "no finding"
    text = f"{result.verdict.name} ({found}) although it differs by {entry:.1e}, of which {sharp_entry:.1e} is resolved"
    return State.MISSED, text


def explore(
    subjects: dict[str, list[Subject]], wrong: dict[str, dict[str, list[Case]]], keep: Callable[[Sequence[str]], bool], *,
    full: bool, seed: int,
) -> Iterator[Outcome]:  # fmt: skip
    """All mutants: of every case in a full run; else, for each loss and operator, of one in which it makes a difference."""
    number = 0
    for loss, cases in subjects.items():
        options = {name: [(operator, subject) for subject in cases] for name, operator in OPERATORS.items()}
        for subject in cases:
            for operator in expand((), subject, wrong.get(loss, {})):
                options.setdefault(operator.name, []).append((operator, subject))
        for name, choices in options.items():
            if not keep([name, loss]):
                continue
            number += 1
            if full:
                for operator, subject in choices:
                    outcome = attempt(operator, subject, seed)
                    if outcome is not None:
                        yield outcome
                continue
            # Which case an operator meets changes from loss to loss and from seed to seed.
            start = (number + seed) % len(choices)
            best: Outcome | None = None
            tried = 0
            for operator, subject in choices[start:] + choices[:start]:
                outcome = attempt(operator, subject, seed)
                if outcome is None:
                    continue
                tried += 1
                best = outcome
                if outcome.state in (*COUNTED, State.FALSE_ALARM) or tried == (1 if operator.harmless else ATTEMPTS):
                    break
            if best is not None:
                yield best
