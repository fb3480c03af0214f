"""Cases run by several processes.

Each collects the suites itself, because functions under test seldom can be sent to another process.  It is told which case
to run by suite and name.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

from .._suite import Case, collect
from .._verdict import Finding, Result, Verdict
from .report import Outcome
from .run import run_case
from .signals import Signals, leave_to_parent

#: Seconds between looks at whether the workers live: a death closes the pipe at once, unless the worker has children that
#: hold it open.
TICK = 0.2
#: Seconds that a worker has to end before it is killed.
GRACE = 2.0
#: Workers that may die before their first case; then no more are started.
FALSE_STARTS = 3


@dataclass
class Worker:
    process: SpawnProcess
    pipe: Connection
    case: int | None = None
    ready: bool = False


class Pool:
    """Starts workers as they are needed, hands them cases, and replaces those that die.

    Parameters
    ----------
    cases : list of Case
        What to run.
    targets : sequence of str
        What the workers collect.
    seed : int
        Seed of the run.
    jobs : int
        Number of workers.
    signals : Signals
        Kept waiting while processes are started and ended.
    environment : str
        Variables that the workers have besides those of this process, such as ``"A=1 B=2"``.
    """

    def __init__(
        self, cases: list[Case], targets: Sequence[str], seed: int, jobs: int, signals: Signals, environment: str = ""
    ):
        self.cases, self.targets, self.seed, self.jobs, self.signals = cases, tuple(targets), seed, jobs, signals
        self.environment = environment
        self.context = multiprocessing.get_context("spawn")
        self.waiting = deque(range(len(cases)))
        self.workers: list[Worker] = []
        self.false_starts = 0
        self.trouble = "workers end before they have run anything"

    def run(self) -> Generator[tuple[int, Outcome]]:
        """Numbers of the cases and what became of them, as they end."""
        try:
            while self.waiting or any(worker.case is not None for worker in self.workers):
                self._staff()
                answered = wait([worker.pipe for worker in self.workers], timeout=TICK)
                self.signals.check()
                for worker in list(self.workers):
                    if worker.pipe in answered or worker.process.exitcode is not None:
                        yield from self._listen(worker)
                if self.false_starts >= FALSE_STARTS:
                    while self.waiting:
                        yield self._lost(self.waiting.popleft(), self.trouble)
        finally:
            self._end()

    def _staff(self) -> None:
        busy = sum(worker.case is not None for worker in self.workers)
        while len(self.workers) < min(self.jobs, busy + len(self.waiting)):
            with self.signals.held(), variables(self.environment):
                ours, theirs = self.context.Pipe()
                process = self.context.Process(target=work, args=(theirs, self.targets, self.seed))
                process.start()
                theirs.close()  # so that its death closes the pipe
                self.workers.append(Worker(process, ours))
            self.signals.check()

    def _listen(self, worker: Worker) -> Iterator[tuple[int, Outcome]]:
        try:
            answer = worker.pipe.recv() if worker.pipe.poll() else None
        except (EOFError, OSError):
            answer = None
        if isinstance(answer, str):
            self.trouble = answer
        elif answer is not None:
            if worker.case is not None:
                number, worker.case = worker.case, None
                result, seconds = answer
                case = self.cases[number]
                if result is None:  # the worker cannot run it either
                    case = replace(case, labels={"skip": f"not even with {self.environment}", **case.labels})
                yield number, Outcome(case, result, seconds)
            worker.ready = True
            if worker.process.exitcode is None and self._hand_over(worker):
                return
        yield from self._bury(worker)

    def _hand_over(self, worker: Worker) -> bool:
        """Give it the next case, if there is one; False if it cannot be reached."""
        if self.waiting:
            case = self.cases[self.waiting[0]]
            try:
                worker.pipe.send((case.suite, case.name))
            except OSError:
                worker.ready = False  # died idle: counted, so that this cannot go on for ever
                return False
            worker.case = self.waiting.popleft()
        return True

    def _bury(self, worker: Worker) -> Iterator[tuple[int, Outcome]]:
        self.workers.remove(worker)
        worker.pipe.close()
        status = end(worker.process)
        self.false_starts += not worker.ready
        if worker.case is not None:
            yield self._lost(worker.case, ended(status))

    def _lost(self, number: int, why: str) -> tuple[int, Outcome]:
        case = self.cases[number]
        hint = "the check takes its process down; run this case alone, without -j"
        finding = Finding("worker died", Verdict.FAIL, why, hint=hint)
        result = Result(case.name, Verdict.FAIL, findings=(finding,), seed=self.seed, reproduce=case.command(self.seed))
        return number, Outcome(case, result)

    def _end(self) -> None:
        with self.signals.held():
            for worker in self.workers:
                worker.pipe.close()  # which ends those that are idle
                if worker.case is not None or not worker.ready:
                    worker.process.terminate()
            for worker in self.workers:
                end(worker.process)
            self.workers.clear()


@contextmanager
def variables(text: str) -> Iterator[None]:
    """Environment of processes that are started meanwhile."""
    given = dict(item.partition("=")[::2] for item in text.split())
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def end(process: SpawnProcess) -> int | None:
    """Wait for the end of a process, which has been asked to end or has lost its parent, in bounded time; its status."""
    for ask in (lambda: None, process.terminate, process.kill):
        ask()
        process.join(GRACE)
        if process.exitcode is not None:
            break
    status = process.exitcode
    if status is not None:
        process.close()
    return status


def ended(status: int | None) -> str:
    """How a process ended, in words."""
    if status is None or status >= 0:
        return f"its worker ended with status {status}"
    try:
        return f"its worker was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"its worker was ended by signal {-status}"


def work(pipe: Connection, targets: tuple[str, ...], seed: int) -> None:
    """Life of a worker: collect, then run what the pipe names until the parent is gone."""
    leave_to_parent()
    with suppress(EOFError, OSError):
        try:
            cases = {(case.suite, case.name): case for case in collect(targets)}
        except (Exception, SystemExit) as error:
            pipe.send(f"a worker cannot collect the suites: {error or type(error).__name__}")
            return
        pipe.send(())
        while True:
            suite, name = pipe.recv()
            if (suite, name) in cases:
                outcome = run_case(cases[suite, name], seed)
                pipe.send((outcome.result, outcome.seconds))
            else:
                message = "the suite has no case of this name when a worker collects it: names must not change between runs"
                finding = Finding("error", Verdict.FAIL, message)
                pipe.send((Result(name, Verdict.FAIL, findings=(finding,), seed=seed), 0.0))
