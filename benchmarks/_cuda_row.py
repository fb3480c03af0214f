"""What one check or one measurement on a GPU has found."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One line of the results; `good` is None where nothing was asked."""

    part: str
    case: str
    outcome: str
    good: bool | None = None
    seconds: float | None = None
    of_copy: float | None = None  #: share of what a copy moves in the time
    contender: str = "nlosses"


def failed(part: str, case: str, error: Exception) -> Row:
    """The others are worth knowing too, on a machine that is only lent."""
    return Row(part, case, f"{type(error).__name__}: {error}"[:300], False)
