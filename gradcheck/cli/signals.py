"""SIGINT and SIGTERM while checks run."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from types import FrameType, TracebackType
from typing import Any

from .report import Exit

#: Seconds within which further signals say nothing new: many a sender tells both the process and its group.
PATIENCE = 1.0
CAUGHT = {signal.SIGINT: Exit.INTERRUPTED, signal.SIGTERM: Exit.TERMINATED}


class Signals:
    """Both signals raise KeyboardInterrupt inside this context, and are remembered.

    They are remembered because code under test, or an interpreter that is inside a callback, may swallow the exception.
    """

    def __init__(self) -> None:
        self.received: Exit | None = None
        self._held = False
        self._raised = -PATIENCE
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        for number in CAUGHT:
            try:
                if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup and background jobs of scripts have it
                    self._previous[number] = signal.signal(number, self._handle)
            except ValueError:  # not the main thread, where signals are none of our business
                break
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.received = CAUGHT[signal.Signals(number)]
        now = monotonic()
        if not self._held and now - self._raised >= PATIENCE:
            self._raised = now
            raise KeyboardInterrupt

    def check(self) -> None:
        """Raise again what was swallowed."""
        if self.received is not None:
            raise KeyboardInterrupt

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep signals waiting: while a process is started, which else might be forgotten, and while they are ended.

        A process that starts inside inherits that SIGINT is blocked, so that Ctrl-C, which a terminal sends to all of
        them, meets none while it imports.
        """
        block = getattr(signal, "pthread_sigmask", None)
        self._held = True
        mask = block(signal.SIG_BLOCK, {signal.SIGINT}) if block else None
        try:
            yield
        finally:
            if block:
                block(signal.SIG_SETMASK, mask)
            self._held = False


def leave_to_parent() -> None:
    """In a worker: Ctrl-C is the parent's business, which ends the workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
