"""One run: who takes part, how long each is measured, and what has been found so far."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from . import _cases, _contenders, _limit, _machine
from ._cases import Case
from ._tables import OWN, OWN_CACHED, OWN_OUT, PEERS, Record
from ._timing import Call, Minima, apart, measure, spread

#: How often a case whose arrays exceed the cache is measured, in the course of a run.
VISITS = 5


@dataclass
class Session:
    """Contenders and the rounds of every measurement."""

    contenders: list[Any]  # the first is nlosses
    threads: int
    rounds: int
    share: float  # seconds of each contender in each round
    seed: int
    cache: int = _machine.cache()
    left_out: list[str] = field(default_factory=list)
    measured: dict[str, Record] = field(default_factory=dict)  # by name: parts may have cases in common

    def record(self, case: Case, tick: Callable[[], Any]) -> Record:
        """Measure a case, or repeat what was found."""
        if case.name not in self.measured:
            problem = case.problem(self.seed)
            minima = self.minima(problem, self.verified(problem), tick)
            self.measured[case.name] = {
                "name": case.name,
                **asdict(case),
                "family": case.spec.family,
                "elements": case.size,
                "bytes": problem.bytes,
                "rounds": len(minima[OWN]),
                "seconds": {name: median(found) for name, found in minima.items()},
                "spread": {name: spread(found) for name, found in minima.items()},
            }
        return self.measured[case.name]

    def visit(self, case: Case, tick: Callable[[], Any]) -> None:
        """Measure nlosses and the limit again: what disturbs a machine lasts for seconds, or for minutes."""
        problem = case.problem(self.seed)
        own = self.contenders[0].calls(problem)
        minima = self.minima(problem, {name: own[name] for name in (OWN, OWN_OUT)}, tick)
        self.measured[case.name].setdefault("again", []).append({name: median(found) for name, found in minima.items()})

    def minima(self, problem: _cases.Problem, calls: dict[str, Call], tick: Callable[[], Any]) -> Minima:
        """The minima of the rounds of calls and of the limit, and of an excerpt where the arrays exceed the cache."""
        calls = calls | _limit.calls(problem)
        excerpt = problem.excerpt(self.cache // 4) if problem.bytes > self.cache else None
        if excerpt is not None:
            calls[OWN_CACHED] = self.contenders[0].calls(excerpt)[OWN]
        minima = measure(calls, self.rounds, self.share, tick, settled)
        if excerpt is not None:
            minima[OWN_CACHED] = [t * problem.case.size / excerpt.x.size for t in minima[OWN_CACHED]]
        return minima

    def verified(self, problem: _cases.Problem, contenders: list[Any] | None = None) -> dict[str, Call]:
        """The calls whose results are right.  A peer that fails is left out with a word; nlosses must not fail."""
        expected = _cases.reference(problem)
        right: dict[str, Call] = {}
        for contender in contenders or self.contenders:
            name = type(contender).__name__
            try:
                for name, call in contender.calls(problem).items():
                    _cases.verify(problem, call(), expected)
                    right[name] = call
            except Exception as error:
                if contender is self.contenders[0]:
                    raise
                reason = str(error).strip().splitlines() or [type(error).__name__]
                self.left_out.append(f"{name} left out on {problem.case.name}: {reason[0][:120]}")
        return right

    def against_threads(self, case: Case, tick: Callable[[], Any]) -> list[dict[str, Any]]:
        """Times with 1, 2, 4, ... threads, of those that can change their number while they run."""
        problem = case.problem(self.seed)
        able = [contender for contender in self.contenders if hasattr(contender, "set_threads")]
        calls = self.verified(problem, able) | _limit.calls(problem)
        calls.pop("torch.compile", None)  # its code has the number of threads written in
        found = []
        try:
            for threads in counts(self.threads):
                for contender in able:
                    contender.set_threads(threads)
                minima = measure(calls, self.rounds, self.share, tick)
                found.append({"name": case.name, "threads": threads, "seconds": {n: median(m) for n, m in minima.items()}})
        finally:
            for contender in able:
                contender.set_threads(self.threads)
        return found


def settled(minima: Minima) -> bool:
    """Whether it is plain which peers are faster than nlosses and which are not."""
    return OWN not in minima or all(apart(minima[OWN], minima[peer]) for peer in PEERS if peer in minima)


def counts(threads: int) -> list[int]:
    """Powers of two, and the number itself."""
    return sorted({threads, *(2**k for k in range(threads.bit_length()) if 2**k <= threads)})


def assembled(peers: list[str], threads: int, rounds: int, share: float, seed: int) -> Session:
    """A session with the peers that are installed."""
    found, left_out = _contenders.peers(peers, threads)
    return Session([_contenders.Own(threads), *found], threads, rounds, share, seed, left_out=left_out)
