"""The report as one page that needs nothing else."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence

from .._verdict import Finding
from .facts import facts
from .page import PAGE, SYMBOLS
from .report import ORDER, STATES, Outcome, Report, worst
from .select import UNMATCHED
from .svg import svg
from .text import clean, last, line, number

#: Columns that the matrix may have; labels that would make it wider are left to the cases.
COLUMNS = 24
#: Labels that make columns, those first that matter most.
PREFERRED = ("derivative", "dtype", "device", "reduction")
#: What keeps a page of thousands of cases below a few megabytes: cases that did not pass are shown in full up to the first
#: limit, with this many findings and characters of each message, and by their worst finding after it.
FULL, FINDINGS, MESSAGE = 300, 10, 300
#: Curves of cases that did not pass, and of cases that did: the coarsest of each cell of the matrix.
CURVES_BAD, CURVES_PASS = 200, 150

#: Outcomes of one cell with their numbers, and its place: row and column.
Cells = dict[tuple[str, str], list[tuple[int, Outcome]]]


def to_html(report: Report) -> str:
    """The page."""
    labels = columns(report.outcomes)
    cells: Cells = {}
    for pair in enumerate(report.outcomes):
        cells.setdefault((pair[1].loss, group(pair[1], labels)), []).append(pair)
    for outcomes in cells.values():
        outcomes.sort(key=lambda pair: ORDER.index(pair[1].state))
    bad = [id(outcome) for outcome in report.bad]
    drawn = set(bad[:CURVES_BAD]) | set([id(coarsest(outcomes)) for outcomes in cells.values()][:CURVES_PASS])
    full = set(bad[:FULL])
    rows = list(dict.fromkeys(row for row, _ in cells))
    title, state = last(report)
    parts = {
        "title": text(title),
        "state": css(state),
        "facts": "".join(f"<dt>{text(name)}</dt><dd>{text(fact)}</dd>" for name, fact in header(report).items()),
        "totals": "".join(f'<li class="{css(state)}">{SYMBOLS[state]} {report.counts[state]} {state}</li>' for state in STATES),
        "note": note(report),
        "matrix": "".join(matrix(cells, rows, labels)),
        "cases": "".join(sections(cells, rows, full, drawn)),
    }
    return PAGE.format_map(parts)


def header(report: Report) -> dict[str, object]:
    return {
        **facts(),
        "arguments": " ".join(report.arguments) or "none",
        "seed": report.seed,
        "started": report.start.strftime("%Y-%m-%d %H:%M:%S UTC"),
        "duration": f"{report.seconds:.1f} s",
    }


def note(report: Report) -> str:
    if not report.missing:
        return ""
    why = "The run was interrupted" if report.interrupted is not None else "The run stopped at the first failure"
    return f'<p class="note fail">{why}: {report.missing} of {report.selected} cases were not reached.</p>'


# --- the matrix ------------------------------------------------------------------------------------------------------


def columns(outcomes: Sequence[Outcome]) -> list[str]:
    """Labels that the columns go by: those that vary, as many as the page has room for."""
    names = dict.fromkeys((*PREFERRED, *(str(label) for outcome in outcomes for label in outcome.case.labels)))
    chosen: list[str] = []
    for name in names:
        if name != "loss" and name not in UNMATCHED:
            wider = len({group(outcome, [*chosen, name]) for outcome in outcomes})
            if len({group(outcome, chosen) for outcome in outcomes}) < wider <= COLUMNS:
                chosen.append(name)
    return chosen


def group(outcome: Outcome, labels: Sequence[str]) -> str:
    """Column of an outcome."""
    return " ".join(str(outcome.case.labels.get(label, "-")) for label in labels)


def matrix(cells: Cells, rows: Sequence[str], labels: Sequence[str]) -> Iterator[str]:
    heads = sorted({column for _, column in cells})
    numbers = {key: place for place, key in enumerate(cells)}
    yield f"<table class=matrix><thead><tr><th scope=col>loss \\ {text(' '.join(labels)) or 'all'}</th>"
    yield from (f"<th scope=col>{text(head) or 'all'}</th>" for head in heads)
    yield "</tr></thead><tbody>"
    for row in rows:
        yield f"<tr><th scope=row>{text(row)}</th>"
        for head in heads:
            found = [outcome for _, outcome in cells.get((row, head), ())]
            if not found:
                yield "<td></td>"
                continue
            state = worst_state(found)
            passed = sum(outcome.state == "pass" for outcome in found)
            shown = number(worst(outcome.result.resolution for outcome in found if outcome.result is not None))
            yield f'<td class="{css(state)}"><a href="#g{numbers[row, head]}">{SYMBOLS[state]} {state}<b>{shown}</b>'
            yield f"<small>{passed} of {len(found)}</small></a></td>"
        yield "</tr>"
    yield "</tbody></table>"


def worst_state(outcomes: Sequence[Outcome]) -> str:
    return min((outcome.state for outcome in outcomes), key=ORDER.index, default="not run")


def coarsest(outcomes: Sequence[tuple[int, Outcome]]) -> Outcome | None:
    """The outcome with the largest resolution among those that have a curve."""
    return max(
        (outcome for _, outcome in outcomes if outcome.result is not None and outcome.result.curve is not None),
        key=lambda outcome: worst([outcome.result.resolution, 0.0]) if outcome.result is not None else 0.0,
        default=None,
    )


# --- the cases -------------------------------------------------------------------------------------------------------


def sections(cells: Cells, rows: Sequence[str], full: set[int], drawn: set[int]) -> Iterator[str]:
    for row in rows:
        yield f"<section><h2>{text(row)}</h2>"
        for place, ((loss, column), outcomes) in enumerate(cells.items()):
            if loss == row:
                yield f'<h3 id="g{place}">{text(column) or "all"}</h3>'
                for case, outcome in outcomes:
                    yield from details(case, outcome, FINDINGS if id(outcome) in full else 1, id(outcome) in drawn)
        yield "</section>"


def details(case: int, outcome: Outcome, findings: int, drawn: bool) -> Iterator[str]:
    state, result = outcome.state, outcome.result
    yield f'<details id="c{case}"><summary><span class="{css(state)}">{SYMBOLS[state]} {state}</span> {text(outcome.case.name)}'
    if result is None:
        yield f"</summary><p>Not run: {text(outcome.reason)}</p></details>"
        return
    yield f" <i>{number(result.resolution)}</i></summary>"
    labels = " ".join(f"{label}={value}" for label, value in outcome.case.labels.items())
    yield f"<p>{text(labels)}<br>resolution {number(result.resolution)}, of one entry {number(result.resolution_entry)}; "
    yield f"{result.entries} entries, {result.points} points; noise {number(result.noise)}; "
    yield f"{result.evaluations} + {result.gradient_evaluations} evaluations, {outcome.seconds:.2f} s</p>"
    if result.findings:
        yield from findings_table(result.findings, findings)
    if drawn and result.curve is not None:
        yield svg(result.curve)
    if not result and result.reproduce:
        yield f"<pre>{text(result.reproduce)}</pre>"
    yield "</details>"


def findings_table(findings: Sequence[Finding], limit: int) -> Iterator[str]:
    yield "<table><tr><th>finding<th>argument<th>point<th>entry<th>analytic<th>numeric<th>&#177;<th>message"
    for finding in findings[:limit]:
        entry = "" if finding.index is None else ", ".join(map(str, finding.index))
        message = clean(finding.message) + (f"\nlikely: {clean(finding.hint)}" if finding.hint else "")
        numbers = ("" if value is None else f"{value:.9e}" for value in (finding.analytic, finding.numeric))
        cells = (
            f"{finding.verdict.value}: {line(finding.code)}",
            finding.argument,
            "" if finding.point is None else finding.point,
            entry,
            *numbers,
            "" if finding.interval is None else f"{finding.interval:.1e}",
            message if len(message) <= MESSAGE else message[:MESSAGE] + " ...",
        )
        yield f"<tr>{''.join(f'<td>{text(cell)}' for cell in cells)}"
    yield "</table>"
    if len(findings) > limit:
        yield f"<p>and {len(findings) - limit} more</p>"


def css(state: str) -> str:
    return state.replace(" ", "-")


def text(value: object) -> str:
    return html.escape(clean(value))
