"""The report for people: what did not pass, a table, one last line."""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence

from .._suite import Case
from .report import STATES, Exit, Outcome, Report, worst

#: Results that are shown in full.
SHOWN = 10
COLOURS = {"pass": "32", "fail": "1;31", "inconclusive": "33", "not run": "2"}
#: What neither a terminal nor XML can stand: controls but tab and line feed, lone surrogates, two non-characters.
UNPRINTABLE = re.compile("[^\t\n\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
HEADERS = ("loss", *STATES, "worst resolution", "of one entry", "evaluations", "seconds")


def clean(text: object) -> str:
    """The text with what cannot be shown written as escapes."""
    return UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape", "surrogatepass").decode("ascii"), str(text))


def line(text: object) -> str:
    """The same, in one line."""
    return " ".join(clean(text).split())


def number(value: float) -> str:
    return f"{value:.1e}" if math.isfinite(value) else "-"


def coloured(text: str, state: str) -> str:
    """With the colour of the state where standard output is a terminal that has not refused colours."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not sys.stdout.isatty()
    return text if plain else f"\x1b[{COLOURS[state]}m{text}\x1b[0m"


def failure(outcome: Outcome) -> str:
    """The one line of a failure."""
    assert outcome.result is not None
    first = line(outcome.result.findings[0]) if outcome.result.findings else "no finding says why"
    return f"{coloured(outcome.result.verdict.name, outcome.state)} {line(outcome.case.name)}: {first}"


def table(rows: Sequence[Sequence[str]], left: int = 1) -> Iterator[str]:
    """Lines of a table; the first `left` columns are text, which is aligned on the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


def listing(cases: Iterable[Case]) -> Iterator[str]:
    rows = [("suite", "case", "labels")]
    for case in cases:
        rows.append(
            (line(case.suite), line(case.name), line(" ".join(f"{label}={value}" for label, value in case.labels.items())))
        )
    return table(rows, left=3)


def details(report: Report) -> Iterator[str]:
    """What did not pass, the worst first."""
    for outcome in report.bad[:SHOWN]:
        yield ""
        head, *rest = clean(outcome.result).splitlines()
        yield coloured(head, outcome.state)
        yield from rest
    hidden = len(report.bad) - SHOWN
    if hidden > 0:
        yield f"\nand {hidden} more that did not pass"


def durations(report: Report, shown: int) -> Iterator[str]:
    slowest = sorted(report.outcomes, key=lambda outcome: -outcome.seconds)[:shown]
    if slowest:
        yield "\nslowest"
        yield from table([(f"{outcome.seconds:.2f} s", line(outcome.case.name)) for outcome in slowest], left=0)


def summary(report: Report) -> Iterator[str]:
    """One row a loss."""
    rows: dict[str, list[Outcome]] = {}
    for outcome in report.outcomes:
        rows.setdefault(outcome.loss, []).append(outcome)
    if rows:
        body = [cells(name, outcomes) for name, outcomes in rows.items()]
        if len(rows) > 1:
            body.append(cells("all", report.outcomes))
        yield ""
        yield from table([HEADERS, *body])


def cells(name: str, outcomes: Sequence[Outcome]) -> tuple[str, ...]:
    results = [outcome.result for outcome in outcomes if outcome.result is not None]
    return (
        line(name),
        *(str(sum(outcome.state == state for outcome in outcomes) or "") for state in STATES),
        number(worst(result.resolution for result in results)),
        number(worst(result.resolution_entry for result in results)),
        str(sum(result.evaluations + result.gradient_evaluations for result in results)),
        f"{sum(outcome.seconds for outcome in outcomes):.1f}",
    )


def reasons(report: Report) -> Iterator[str]:
    """Why cases were not run, and what is to be known of those that were, each reason once."""
    counts: dict[str, int] = {}
    for outcome in report.outcomes:
        if outcome.result is None:
            text = f"not run: {line(outcome.reason) or 'no reason given'}"
        elif "note" in outcome.case.labels:
            text = f"run {line(outcome.case.labels['note'])}"
        else:
            continue
        counts[text] = counts.get(text, 0) + 1
    for text, count in counts.items():
        yield f"\n{count} {text}"


def last(report: Report) -> tuple[str, str]:
    """Totals, time, and what the exit status means; the state whose colour that has."""
    counts = [f"{report.counts[state]} {state}" for state in STATES if report.counts[state]]
    if report.missing:
        counts.append(f"{report.missing} not reached")
    status = report.status
    state = "fail"
    if status is Exit.PASSED:
        nothing = all(outcome.result is None for outcome in report.outcomes)
        meaning, state = ("NOTHING WAS RUN", "not run") if nothing else ("PASSED", "pass")
        if report.counts["inconclusive"]:
            meaning, state = "PASSED, INCONCLUSIVE ALLOWED", "inconclusive"
    elif status is Exit.INCONCLUSIVE:
        meaning, state = "INCONCLUSIVE", "inconclusive"
    else:
        meaning = {Exit.FAILED: "FAILED", Exit.TERMINATED: "TERMINATED"}.get(status, "INTERRUPTED")
    what = ", ".join(counts) or "nothing was reached"
    return f"{meaning}: {what} in {report.seconds:.1f} s (seed {report.seed}, exit {int(status)})", state


def report_lines(report: Report, slowest: int) -> Iterator[str]:
    """All of it."""
    yield from details(report)
    yield from durations(report, slowest)
    yield from summary(report)
    yield from reasons(report)
    yield ""
    if report.interrupted is not None:
        yield f"interrupted after {len(report.outcomes)} of {report.selected} cases: the results are those obtained until then"
    yield coloured(*last(report))
