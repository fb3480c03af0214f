"""The report for programs."""

from __future__ import annotations

import json
import math
from typing import Any

from .facts import facts
from .report import STATES, Outcome, Report

#: Version of the layout of this report; results have one of their own.
SCHEMA = 1


def to_json(report: Report) -> str:
    """The report as JSON without NaN and infinities, which become null."""
    document = {
        "schema": SCHEMA,
        "program": "gradcheck",
        "versions": facts(),
        "arguments": report.arguments,
        "seed": report.seed,
        "start": report.start.isoformat(timespec="seconds"),
        "seconds": round(report.seconds, 3),
        "interrupted": report.interrupted is not None,
        "status": int(report.status),
        "selected": report.selected,
        "totals": {state: report.counts[state] for state in STATES},
        "cases": [case(outcome) for outcome in report.outcomes],
    }
    return json.dumps(document, indent=1, allow_nan=False, default=plain) + "\n"


def case(outcome: Outcome) -> dict[str, Any]:
    return {
        "suite": outcome.case.suite,
        "name": outcome.case.name,
        "check": outcome.case.check,
        "labels": {str(label): str(value) for label, value in outcome.case.labels.items()},
        "state": outcome.state,
        "seconds": round(outcome.seconds, 6),
        "result": None if outcome.result is None else outcome.result.to_dict(),
    }


def plain(value: Any) -> Any:
    """NumPy's scalars, which a check of somebody else's may have left in a result, as Python's."""
    if hasattr(value, "item"):
        value = value.item()
        return value if not isinstance(value, float) or math.isfinite(value) else None
    return str(value)
