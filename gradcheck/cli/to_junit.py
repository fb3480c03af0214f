"""The report for CI servers: JUnit's XML, in the dialect of Jenkins, which all of them read."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree

from .facts import facts
from .report import ERRORS, Outcome, Report
from .text import clean, line


def to_junit(report: Report) -> str:
    """One test suite a suite.

    What is inconclusive is a skipped test, unless the run was strict, and so is what was not run.
    """
    root = ElementTree.Element("testsuites")
    suites: dict[str, list[Outcome]] = {}
    for outcome in report.outcomes:
        suites.setdefault(outcome.case.suite, []).append(outcome)
    tags: list[str] = []
    for number, (name, outcomes) in enumerate(suites.items()):
        tags += suite(root, report, name, number, outcomes)
    root.attrib.update(name="gradcheck", **totals(report.outcomes, tags, report.seconds))
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def suite(root: ElementTree.Element, report: Report, name: str, number: int, outcomes: Sequence[Outcome]) -> list[str]:
    """Add a suite; the tags of what its tests hold."""
    element = ElementTree.SubElement(root, "testsuite", name=line(name) or "gradcheck", id=str(number))
    element.set("timestamp", report.start.strftime("%Y-%m-%dT%H:%M:%S"))
    properties = ElementTree.SubElement(element, "properties")
    known = {
        **facts(),
        "arguments": " ".join(report.arguments),
        "seed": report.seed,
        "interrupted": report.interrupted is not None,
    }
    for key, value in known.items():
        ElementTree.SubElement(properties, "property", name=key, value=clean(value))
    tags = [test(element, report, outcome) for outcome in outcomes]
    element.attrib.update(totals(outcomes, tags, sum(outcome.seconds for outcome in outcomes)))
    return tags


def totals(outcomes: Sequence[Outcome], tags: Sequence[str], seconds: float) -> dict[str, str]:
    counts = {"failures": "failure", "errors": "error", "skipped": "skipped"}
    return {
        "tests": str(len(outcomes)),
        **{name: str(tags.count(tag)) for name, tag in counts.items()},
        "time": f"{seconds:.3f}",
    }


def test(parent: ElementTree.Element, report: Report, outcome: Outcome) -> str:
    """Add a test; the tag of what it holds, empty if it passed."""
    suite = line(outcome.case.suite) or "gradcheck"
    classname = ".".join(filter(None, (suite, line(outcome.case.labels.get("loss", "")))))
    element = ElementTree.SubElement(parent, "testcase", classname=classname, name=line(outcome.case.name))
    element.set("time", f"{outcome.seconds:.3f}")
    result = outcome.result
    if result is None:
        ElementTree.SubElement(element, "skipped", message=f"not run: {line(outcome.reason)}")
        return "skipped"
    if result:
        return ""
    first = result.findings[0] if result.findings else None
    message = line(first) if first else result.verdict.value
    if report.failed(outcome):
        tag = "error" if first and first.code in ERRORS else "failure"
        child = ElementTree.SubElement(element, tag, message=message, type=line(first.code) if first else "unknown")
        child.text = clean(result)
    else:
        tag = "skipped"
        ElementTree.SubElement(element, tag, message=f"{result.verdict.value}: {message}")
    return tag
