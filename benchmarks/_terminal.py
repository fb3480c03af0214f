"""What both programs do at a terminal: ask for the extra, draw a progress bar, stop cleanly."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from shutil import get_terminal_size
from typing import Any

WIDTH = 132  # characters
INTERRUPTED = 130  # 128 + SIGINT, as shells report it


def require(program: str, *modules: str) -> None:
    """Exit with status 2 and one line if a module of the extra is missing."""
    missing = []
    for name in modules:
        try:
            import_module(name)
        except ModuleNotFoundError:
            missing.append(name)
    if missing:
        print(f"{program} needs {' and '.join(missing)}: pip install nlosses[bench]", file=sys.stderr)
        raise SystemExit(2)


def console() -> Any:
    """Console of the results: as wide as the terminal, and wide enough for the tables: cut off they would say nothing."""
    from rich.console import Console

    return Console(highlight=False, width=max(WIDTH, get_terminal_size().columns) if sys.stdout.isatty() else WIDTH)


def progress() -> Any:
    """Bar with the time left, on standard error; nothing at all where that is not a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    errors = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
        console=errors, disable=not errors.is_terminal, transient=True,
    )  # fmt: skip


def guarded(work: Callable[[], int], report: Callable[[], None]) -> int:
    """Run `work`, then `report` what there is, also after an interrupt; the exit status."""
    try:
        status = work()
    except KeyboardInterrupt:
        report()
        print("Interrupted: the results above are those obtained until then.", file=sys.stderr)
        return INTERRUPTED
    report()
    return status
