"""Running cases, one after the other or by workers; those that need another environment, by workers that have it."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from time import perf_counter

from .._suite import Case
from .._verdict import Finding, Result, Verdict
from .progress import Progress
from .report import Exit, Outcome, Report
from .signals import Signals
from .text import failure


def run_case(case: Case, seed: int) -> Outcome:
    """Run one case, whatever it raises; one that this machine cannot run is told as such."""
    if "skip" in case.labels:
        return Outcome(case, None)
    start = perf_counter()
    try:
        result = case.run(seed)
    except SystemExit as error:  # not an Exception, and code under test may well raise it
        finding = Finding("error", Verdict.FAIL, f"SystemExit: {error}", hint="the code under test ends the program")
        result = Result(case.name, Verdict.FAIL, findings=(finding,), seed=seed, reproduce=case.command(seed))
    return Outcome(case, result, perf_counter() - start)


def run(cases: list[Case], targets: Sequence[str], jobs: int, exitfirst: bool, report: Report, progress: Progress) -> None:
    """Fill the report, in the order of `cases` in the end; an interrupt ends it early."""
    start = perf_counter()
    found: dict[int, Outcome] = {}
    with Signals() as signals:
        try:
            with closing(_outcomes(cases, targets, report.seed, jobs, signals)) as outcomes:
                for number, outcome in outcomes:
                    found[number] = outcome
                    failed = report.failed(outcome)
                    if failed:
                        progress.line(failure(outcome))
                    progress.advance(outcome)
                    if failed and exitfirst:
                        break
                    signals.check()
        except KeyboardInterrupt:
            report.interrupted = signals.received or Exit.INTERRUPTED
        except BrokenPipeError:
            report.interrupted = Exit.BROKEN_PIPE
    report.outcomes = [found[number] for number in sorted(found)]
    report.seconds = perf_counter() - start


def _outcomes(
    cases: list[Case], targets: Sequence[str], seed: int, jobs: int, signals: Signals
) -> Generator[tuple[int, Outcome]]:
    runnable: dict[str, list[int]] = {}
    for number, case in enumerate(cases):
        if "skip" in case.labels:
            yield number, run_case(case, seed)
        else:
            runnable.setdefault(str(case.labels.get("environment", "")), []).append(number)
    for environment, numbers in runnable.items():
        if environment or (jobs > 1 and len(numbers) > 1):
            from .workers import Pool

            workers = Pool([cases[number] for number in numbers], targets, seed, jobs, signals, environment)
            with closing(workers.run()) as pool:
                for number, outcome in pool:
                    yield numbers[number], outcome
        else:
            for number in numbers:
                yield number, run_case(cases[number], seed)
