"""What one report does worse than another: ``gradcheck diff A.json B.json``."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .arguments import Parser
from .report import NOT_RUN, Exit, UsageError
from .text import line, number
from .to_json import SCHEMA

#: How much coarser a check may become before it is told.  Resolutions depend on the noise that a check happens to meet, so
#: that two runs of the same code differ by small factors.
FACTOR = 10.0
RANK = {"pass": 0, "inconclusive": 1, "fail": 2}
RESOLUTIONS = {"resolution": "resolution", "resolution_entry": "resolution of one entry"}

Case = dict[str, Any]


def main(arguments: list[str]) -> int:
    """Print the regressions; status 1 if there are any."""
    parser = Parser("gradcheck diff", description="Tell which verdicts and resolutions are worse in B than in A.")
    parser.add_argument("before", type=Path, metavar="A.json")
    parser.add_argument("after", type=Path, metavar="B.json")
    options = parser.parse_args(arguments)
    before, after = load(options.before), load(options.after)
    both = [key for key in before if key in after]
    worse = [text for key in both for text in regressions(before[key], after[key])]
    for text in worse:
        print(text)
    for what, count in (
        ("only in A", len(before) - len(both)),
        ("only in B", len(after) - len(both)),
        ("run in only one of them", sum((before[key]["state"] == NOT_RUN) != (after[key]["state"] == NOT_RUN) for key in both)),
    ):
        if count:
            print(f"{count} cases {what}")
    print(f"{len(worse)} regressions in {len(both)} cases")
    return Exit.FAILED if worse else Exit.PASSED


def load(path: Path) -> dict[tuple[str, str], Case]:
    """Cases of a report by suite and name."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {str(path)!r}: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(f"{str(path)!r} is not JSON: {error}") from None
    if not isinstance(document, dict) or document.get("program") != "gradcheck":
        raise UsageError(f"{str(path)!r} is no report of gradcheck --json")
    if document.get("schema") != SCHEMA:
        raise UsageError(f"{str(path)!r} has layout {document.get('schema')!r}; this program reads {SCHEMA}")
    return {(case["suite"], case["name"]): case for case in document["cases"]}


def regressions(before: Case, after: Case) -> Iterator[str]:
    if NOT_RUN in (before["state"], after["state"]):
        return
    name = line(after["name"])
    if RANK[after["state"]] > RANK[before["state"]]:
        first = after["result"]["findings"][:1]
        why = f"   {line(first[0]['code'])}: {line(first[0]['message'])}" if first else ""
        yield f"{name}: {before['state']} -> {after['state']}{why}"
        return
    for key, what in RESOLUTIONS.items():
        old, new = (math.inf if case["result"][key] is None else case["result"][key] for case in (before, after))
        if new > FACTOR * old:
            factor = f"{new / old:.3g} times coarser" if math.isfinite(new) and old else "coarser"
            yield f"{name}: {what} {number(old)} -> {number(new)}, {factor}"
