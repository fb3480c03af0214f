"""The command line of ``gradcheck run``."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from .report import UsageError
from .select import FILTERS

DESCRIPTION = """\
Check gradients against finite differences that bound their own error.

  gradcheck [run] [TARGET ...]   run suites: installed ones, MODULE:NAME or FILE.py:NAME
  gradcheck diff A.json B.json   what B does worse than A
  gradcheck selftest             does the checker find planted errors?
"""
STATUSES = """\
exit status:
  0    all passed (cases that this machine cannot run are told as not run)
  1    a check failed
  2    wrong usage, or a suite cannot be imported
  3    none failed, some are inconclusive (0 with --allow-inconclusive, 1 with --strict)
  4    no case was selected
  130  interrupted (143 by SIGTERM): what is known until then is reported
"""


@dataclass(frozen=True)
class Options:
    """The options of a run, checked."""

    targets: tuple[str, ...]
    keyword: str
    filters: dict[str, tuple[str, ...]]
    names: tuple[str, ...]
    full: bool
    jobs: int
    seed: int
    list: bool
    json: Path | None
    junit: Path | None
    html: Path | None
    strict: bool
    allow_inconclusive: bool
    exitfirst: bool
    progress: bool
    durations: int


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")


def parser() -> Parser:
    """Parser of ``gradcheck run``."""
    result = Parser(
        "gradcheck", usage="%(prog)s [run] [TARGET ...] [options]", description=DESCRIPTION, epilog=STATUSES,
        formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
    )  # fmt: skip
    add = result.add_argument
    add("targets", nargs="*", metavar="TARGET", help="suite; every installed one if none is named")
    add("--version", action="store_true", help="print the version and stop")

    select = result.add_argument_group("selection")
    help_ = "cases that EXPR fits: parts of the name or of a label, joined by and, or, not and parentheses"
    select.add_argument("-k", dest="keyword", default="", metavar="EXPR", help=help_)
    for name in FILTERS:
        help_ = f"cases of these values of the label {name}, separated by commas"
        select.add_argument(f"--{name}", action="append", default=[], metavar="VALUE", help=help_)
    help_ = "the case of exactly this name, quick or not; may be repeated"
    select.add_argument("--case", dest="names", action="append", default=[], metavar="NAME", help=help_)
    size = select.add_mutually_exclusive_group()
    size.add_argument("--quick", dest="full", action="store_false", help="the cases of a quick run (default)")
    size.add_argument("--full", dest="full", action="store_true", help="all cases")
    select.add_argument("--list", action="store_true", help="print the selected cases and stop")

    run = result.add_argument_group("run")
    run.add_argument("-j", "--jobs", type=at_least(1), default=1, metavar="N", help="worker processes (default: none)")
    run.add_argument("--seed", type=at_least(0), default=0, metavar="N", help="seed of all random choices (default: 0)")
    run.add_argument("-x", "--exitfirst", action="store_true", help="stop after the first failure")
    weight = run.add_mutually_exclusive_group()
    weight.add_argument("--strict", action="store_true", help="inconclusive counts as failure")
    weight.add_argument("--allow-inconclusive", action="store_true", help="inconclusive does not change the exit status")

    output = result.add_argument_group("output")
    for name, what in (("json", "a report for programs"), ("junit", "a report for CI servers"), ("html", "a page for people")):
        output.add_argument(f"--{name}", type=Path, metavar="FILE", help=f"write {what}")
    output.add_argument("--no-progress", dest="progress", action="store_false", help="no bar and no lines about progress")
    help_ = "print the N cases that took longest"
    output.add_argument("--durations", type=at_least(0), default=0, metavar="N", help=help_)
    result.set_defaults(full=False)
    return result


def at_least(low: int) -> Callable[[str], int]:
    def convert(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if value < low:
            raise argparse.ArgumentTypeError(f"must be a whole number of at least {low}, was {text!r}")
        return value

    return convert


def parse(arguments: list[str]) -> Options | None:
    """The options, checked; None if the version is all that is asked for."""
    values = vars(parser().parse_intermixed_args(arguments))
    if values.pop("version"):
        return None
    filters = {name: comma_separated(name, values.pop(name)) for name in FILTERS}
    for name in ("json", "junit", "html"):
        if values[name] is not None:
            check_file(f"--{name}", values[name])
    return Options(
        targets=tuple(dict.fromkeys(values.pop("targets"))),
        filters={name: wanted for name, wanted in filters.items() if wanted},
        names=tuple(dict.fromkeys(values.pop("names"))),
        **values,
    )


def comma_separated(name: str, texts: list[str]) -> tuple[str, ...]:
    values = [value.strip() for text in texts for value in text.split(",")]
    if not all(values):
        raise UsageError(f"--{name}: a value is empty in {','.join(texts)!r}")
    return tuple(dict.fromkeys(values))


def check_file(option: str, path: Path) -> None:
    """Tell of a file that cannot be written before the run rather than after it."""
    if path.is_dir():
        raise UsageError(f"{option}: {str(path)!r} is a folder; name a file")
    if not path.parent.is_dir():
        raise UsageError(f"{option}: there is no folder {str(path.parent)!r}")
    writable = os.access(path, os.W_OK) if path.exists() else os.access(path.parent, os.W_OK | os.X_OK)
    if not writable:
        raise UsageError(f"{option}: {str(path)!r} cannot be written")
