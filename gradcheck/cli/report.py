"""What a run has found, and which exit status that is."""

from __future__ import annotations

import enum
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from .._suite import Case
from .._verdict import Result, Verdict


class Exit(enum.IntEnum):
    """Exit statuses of the program."""

    PASSED = 0
    FAILED = 1
    USAGE = 2
    INCONCLUSIVE = 3
    NOTHING = 4
    INTERRUPTED = 130  # 128 + SIGINT, as shells report it
    BROKEN_PIPE = 141  # 128 + SIGPIPE
    TERMINATED = 143  # 128 + SIGTERM


#: What can become of a case, as tables and reports name it.
NOT_RUN = "not run"
STATES = (Verdict.PASS.value, Verdict.FAIL.value, Verdict.INCONCLUSIVE.value, NOT_RUN)
#: The worst first.
ORDER = (Verdict.FAIL.value, Verdict.INCONCLUSIVE.value, Verdict.PASS.value, NOT_RUN)
#: Codes of findings that tell of a check that could not be done, rather than of a wrong gradient.
ERRORS = ("error", "worker died")


class UsageError(Exception):
    """The program was called in a way that it cannot serve; the message is the one line that is shown."""


@dataclass(frozen=True)
class Outcome:
    """What became of one case; `result` is None for one that this machine cannot run."""

    case: Case
    result: Result | None
    seconds: float = 0.0

    @property
    def state(self) -> str:
        return NOT_RUN if self.result is None else self.result.verdict.value

    @property
    def reason(self) -> str:
        """Why it was not run."""
        return str(self.case.labels.get("skip", ""))

    @property
    def loss(self) -> str:
        """Row of the tables that it belongs to."""
        return str(self.case.labels.get("loss") or self.case.suite)


@dataclass
class Report:
    """All that a run knows, filled while it goes."""

    arguments: list[str]
    seed: int
    strict: bool
    allow_inconclusive: bool
    selected: int
    start: datetime = field(default_factory=lambda: datetime.now(UTC))
    seconds: float = 0.0
    outcomes: list[Outcome] = field(default_factory=list)
    interrupted: Exit | None = None

    def failed(self, outcome: Outcome) -> bool:
        """Whether it makes the run fail."""
        return outcome.state == "fail" or (self.strict and outcome.state == "inconclusive")

    @property
    def counts(self) -> Counter[str]:
        return Counter(outcome.state for outcome in self.outcomes)

    @property
    def missing(self) -> int:
        """Selected cases that were not reached."""
        return self.selected - len(self.outcomes)

    @property
    def bad(self) -> list[Outcome]:
        """What did not pass, the worst first, else as collected."""
        found = [outcome for outcome in self.outcomes if outcome.state in ORDER[:2]]
        return sorted(found, key=lambda outcome: ORDER.index(outcome.state))

    @property
    def status(self) -> Exit:
        if self.interrupted is not None:
            return self.interrupted
        if any(map(self.failed, self.outcomes)):
            return Exit.FAILED
        if not self.selected:
            return Exit.NOTHING
        if self.counts["inconclusive"] and not self.allow_inconclusive:
            return Exit.INCONCLUSIVE
        return Exit.PASSED


def worst(values: Iterable[float]) -> float:
    """Largest of the numbers that are numbers; NaN if there is none."""
    return max((value for value in values if not math.isnan(value)), default=math.nan)
