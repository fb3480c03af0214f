"""One check under way: it collects what the points say of each argument, and sums it up."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ._call import Arguments, Subject
from ._contract import is_single
from ._findings import Numbers, Setup
from ._options import Kinks, Options, further
from ._verdict import Finding, Result, Verdict

#: Without a passing point of this entry resolution, a check is inconclusive: a wrong entry could hide.
ENTRY_DEMAND = 1e-3
#: Broken rules after which numbers mean nothing.
FATAL = {"shape", "dtype", "input-modified"}
#: Further points that are tried where those asked for say too little.
MORE_POINTS = 3


class Run:
    """Collects what the points say, and sums it up."""

    def __init__(self, options: Options, subject: Subject, call: str):
        self.options = options
        self.call = call
        self.subject = subject
        self.findings: list[Finding] = []
        self.numbers: dict[int, list[Numbers]] = {}
        self.singles = True

    @property
    def entrywise(self) -> bool:
        """Whether the check can be told to look at one entry alone."""
        return self.call.startswith("check(")

    def point(
        self, point: int, arguments: Arguments, upstream: np.ndarray | None, position: int, gradient: np.ndarray,
        rng: np.random.Generator, look: Callable[[Callable[[np.ndarray], Any], Setup], Numbers],
    ) -> None:  # fmt: skip
        """Numbers of one argument at one point, which `look` takes from the function of that argument alone."""
        options, subject = self.options, self.subject
        which = subject.wrt.index(position)

        def at(y: np.ndarray) -> Arguments:
            return (*arguments[:position], y, *arguments[position + 1 :])

        def value(y: np.ndarray) -> Any:
            result = subject.value(at(y))
            if self.singles:
                self.singles = is_single(np.asarray(result, float))
            return result

        def evaluate(y: np.ndarray) -> np.ndarray:
            return np.array(subject.gradient(upstream, at(y))[which], float)

        x = np.array(arguments[position], float, order="C")
        setup = Setup(x, gradient, options.domain, rng, position, point, options.only, options.kinks == "forbid", evaluate)
        if position == options.wrt[0]:
            self.findings += _convention(options.kinks, arguments, setup)
        if x.size:
            numbers = look(value, setup)
            self.numbers.setdefault(position, []).append(numbers)
            self.findings += numbers.findings

    @property
    def resolution(self) -> tuple[float, float]:
        """Smallest errors, of the whole and of an entry, that would be seen whichever argument they are in."""
        known = [of_argument for of_argument in self.numbers.values() if any(n.entries for n in of_argument)]
        whole = max((min(n.resolution for n in numbers) for numbers in known), default=math.nan)
        return whole, max((min(n.resolution_entry for n in numbers) for numbers in known), default=math.nan)

    @property
    def sharp(self) -> bool:
        whole, entry = self.resolution
        return math.isnan(whole) or (whole <= self.options.rtol and entry <= ENTRY_DEMAND)

    def enough_of(
        self, points: list[Arguments], value: Callable[[Arguments], np.ndarray], rng: np.random.Generator
    ) -> Iterator[Arguments]:
        """The points, and some more as long as they are right but say too little, as on plateaus and at kinks."""
        yield from points
        for _ in range(MORE_POINTS if self.options.points > 1 else 0):
            if self.sharp or any(f.verdict is Verdict.FAIL for f in self.findings):
                return
            yield from further(self.options, points[0], value, rng, 1)

    def result(self, started: float) -> Result:
        options, subject = self.options, self.subject
        resolution, entry = self.resolution
        findings = [f for f in self.findings if f.verdict is Verdict.FAIL]
        # What could not be seen at a further point was seen at another; x itself is what was asked for.
        unclear = [f for f in self.findings if f.verdict is not Verdict.FAIL and not f.point]
        if not self.sharp:
            unclear.append(self._blunt(resolution, entry))
        findings += unclear
        worst = next((f for f in findings if f.index is not None), None)
        call = f"gradcheck.{self.call}, x, ..., seed={options.seed}"
        call += f", only={worst.index})" if worst is not None and worst.code == "value" and self.entrywise else ")"
        every = [n for numbers in self.numbers.values() for n in numbers]
        curves = [n.curve for n in every if n.curve is not None and (n.findings or not findings)]
        points = max((len(numbers) for numbers in self.numbers.values()), default=0)
        return Result(
            options.name, Verdict.worst(f.verdict for f in findings), resolution, entry, tuple(findings),
            subject.evaluations, subject.gradient_evaluations, max((n.noise for n in every), default=math.nan),
            points, sum(n.entries for n in every), time.perf_counter() - started, options.seed, call,
            curves[0] if curves else None,
        )  # fmt: skip

    def _blunt(self, resolution: float, entry: float) -> Finding:
        """Why too little was seen."""
        what, size, wanted = ("gradient", resolution, self.options.rtol)
        if resolution <= self.options.rtol:
            what, size, wanted = ("single entry", entry, ENTRY_DEMAND)
        text = f"only errors of {size:.1e} of the {what} would have been seen, {wanted:.0e} is demanded"
        if not math.isfinite(resolution):
            text = "at every point the gradient is zero, or nothing is known of it: there is nothing to compare"
            return Finding("flat", Verdict.INCONCLUSIVE, text, hint="pass sampler=, or another x")
        if self.singles:
            return Finding(
                "noise", Verdict.INCONCLUSIVE, text, hint="f returns float32 numbers: compute it in double precision"
            )
        if any(n.kinked for numbers in self.numbers.values() for n in numbers):
            return Finding(
                "kink", Verdict.INCONCLUSIVE, text, hint="f has kinks at or near every point: pass sampler=, or another x"
            )
        hint = "f is large beside its changes, or not smooth: check a part of it, or at another x"
        return Finding("noise", Verdict.INCONCLUSIVE, text, hint=hint)


def _convention(kinks: Kinks, arguments: Arguments, setup: Setup) -> list[Finding]:
    """Entries at declared kinks have the declared value."""
    if not callable(kinks):
        return []
    declared = np.asarray(kinks(*arguments), float)
    if declared.shape != setup.x.shape:
        raise ValueError(f"kinks must return an array of shape {setup.x.shape}, was {declared.shape}")
    with np.errstate(invalid="ignore"):
        bad = np.argwhere(
            np.isfinite(declared) & ~(np.abs(setup.gradient - declared) <= 1e-14 * np.maximum(1, np.abs(declared)))
        )
    if not len(bad):
        return []
    index = tuple(int(i) for i in bad[0])
    text = f"{setup.gradient[index]!r} at a kink where {declared[index]!r} is declared"
    return [Finding("convention", Verdict.FAIL, f"entry {index} is {text}", setup.argument, setup.point, index)]
