"""The command line: ``gradcheck [run]``, ``gradcheck diff`` and ``gradcheck selftest``."""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from .._suite import Case, SuiteError, collect
from .arguments import Options, parse
from .facts import facts
from .progress import progress
from .report import Exit, Report, UsageError
from .run import run
from .select import select
from .text import line, listing, report_lines

__all__ = ["main"]


def main(arguments: list[str]) -> int:
    """Run one of the commands; the exit status."""
    sys.stdout = sys.stdout or io.StringIO()  # None where the caller has closed it
    sys.stderr = sys.stderr or io.StringIO()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of cases may hold what the terminal's encoding has not
    commands: dict[str, Callable[[list[str]], int]] = {"run": run_command, "diff": diff_command, "selftest": selftest_command}
    try:
        command = commands.get(arguments[0]) if arguments else None
        status = command(arguments[1:]) if command else run_command(arguments)
        sys.stdout.flush()
        return status
    except (UsageError, SuiteError) as error:
        print(f"gradcheck: {line(error)}", file=sys.stderr)
        return Exit.USAGE
    except BrokenPipeError:
        # What is still in the buffer would be told of when the interpreter ends.
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.BROKEN_PIPE


def run_command(arguments: list[str]) -> int:
    options = parse(arguments)
    if options is None:
        print(f"gradcheck {facts()['gradcheck']}")
        return Exit.PASSED
    known = collected(options.targets)
    cases = select(known, options.keyword, options.filters, options.names, options.full)
    if not cases:
        print(f"gradcheck: {why_nothing(known, options)}", file=sys.stderr)
    if options.list:
        show(listing(cases))
        return Exit.PASSED if cases else Exit.NOTHING
    report = Report(arguments, options.seed, options.strict, options.allow_inconclusive, len(cases))
    if cases:
        with progress(len(cases), options.progress) as bar:
            run(cases, options.targets, options.jobs, options.exitfirst, report, bar)
    written = write(report, options)
    if cases:
        show(report_lines(report, options.durations))
    return report.status or (Exit.PASSED if written else Exit.USAGE)


def collected(targets: Iterable[str]) -> list[Case]:
    """The cases of the targets.  Suites are code of others, so that anything may come of it."""
    try:
        return collect(targets)
    except SuiteError:
        raise
    except (Exception, SystemExit) as error:
        raise UsageError(f"cannot collect {', '.join(targets) or 'the suites'}: {type(error).__name__}: {error}") from error


def why_nothing(known: list[Case], options: Options) -> str:
    if known and not options.full and select(known, options.keyword, options.filters, options.names, True):
        return "no case is left in a quick run; --full has some"
    if known:
        return f"none of {len(known)} cases is selected"
    return "the suites have no cases" if options.targets else "no suite is installed; name MODULE:NAME or FILE.py:NAME"


def write(report: Report, options: Options) -> bool:
    """Write the files that were asked for; whether all could be.  Each is tried, for a run may have taken an hour."""
    from .to_html import to_html
    from .to_json import to_json
    from .to_junit import to_junit

    done = True
    for path, convert in ((options.json, to_json), (options.junit, to_junit), (options.html, to_html)):
        if path is not None:
            try:
                Path(path).write_text(convert(report), encoding="utf-8")
            except OSError as error:
                print(f"gradcheck: cannot write {str(path)!r}: {error.strerror}", file=sys.stderr)
                done = False
    return done


def show(lines: Iterable[str]) -> None:
    for text in lines:
        print(text)


def diff_command(arguments: list[str]) -> int:
    from .diff import main

    return main(arguments)


def selftest_command(arguments: list[str]) -> int:
    name = f"{__package__.rpartition('.')[0]}.selftest"
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise UsageError("selftest: this installation has no self-test") from None
    return int(module.main(arguments))
