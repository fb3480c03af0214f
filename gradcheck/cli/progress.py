"""How far a run is, on standard error, and the failures as they happen, on standard output."""

from __future__ import annotations

import os
import sys
from collections import Counter
from importlib import util
from time import perf_counter
from types import TracebackType
from typing import Any

from .report import Outcome

#: Seconds between lines where there is no bar.
INTERVAL = 10.0


class Progress:
    """No progress, but the lines.  What subclasses add goes to standard error."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.counts: Counter[str] = Counter()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        pass

    def line(self, text: str) -> None:
        print(text, flush=True)

    def advance(self, outcome: Outcome) -> None:
        self.counts[outcome.state] += 1

    @property
    def text(self) -> str:
        shown = {state: self.counts[state] for state in ("pass", "fail", "inconclusive")}
        return ", ".join(f"{count} {state}" for state, count in shown.items())


class Lines(Progress):
    """A line every ten seconds, for logs that somebody watches."""

    def __init__(self, total: int) -> None:
        super().__init__(total)
        self.start = self.last = perf_counter()

    def advance(self, outcome: Outcome) -> None:
        super().advance(outcome)
        now, done = perf_counter(), self.counts.total()
        if now - self.last >= INTERVAL and done < self.total:
            self.last = now
            left = (now - self.start) / done * (self.total - done)
            print(
                f"[{done:>{len(str(self.total))}}/{self.total}] {self.text}, about {left:.0f} s left",
                file=sys.stderr,
                flush=True,
            )


class Bar(Progress):
    """A bar with counts and the time left, by rich."""

    def __init__(self, total: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Rich

        super().__init__(total)
        columns = (
            BarColumn(None),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            TimeRemainingColumn(),
            TextColumn("left"),
        )
        self.console = Console(stderr=True)
        self.bar = Rich(*columns, console=self.console, transient=True, redirect_stdout=False, expand=True)
        self.task: Any = self.bar.add_task(self.text, total=total)

    def __enter__(self) -> Progress:
        self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.bar.stop()

    def line(self, text: str) -> None:
        if not sys.stdout.isatty():
            super().line(text)
            return
        from rich.text import Text  # the same screen as the bar's, which knows how to make room

        self.console.print(Text.from_ansi(text), soft_wrap=True)

    def advance(self, outcome: Outcome) -> None:
        super().advance(outcome)
        self.bar.update(self.task, advance=1, description=self.text)


def progress(total: int, wanted: bool) -> Progress:
    """A bar on a terminal where rich is installed, else lines; nothing where it is not wanted or a CI server keeps the log."""
    if not wanted:
        return Progress(total)
    if sys.stderr.isatty() and util.find_spec("rich"):
        return Bar(total)
    return Progress(total) if os.environ.get("CI") and not sys.stderr.isatty() else Lines(total)
