"""The clock of all benchmarks of speed: contenders in one process, in turns, each with the same share of the time."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from statistics import median
from typing import Any

Call = Callable[[], Any]
Minima = dict[str, list[float]]  # of the rounds of each contender
SAMPLE = 2e-4  # seconds; shorter calls are repeated to this length, which the clock resolves
LONG = 0.3  # seconds; of a longer call one sample a round is enough
SAMPLES = 3  # of a shorter one, at least
MORE = 4  # times as many rounds where these leave something open, at most


def seconds(call: Call, repeats: int, share: float) -> float:
    """Best mean time of `repeats` calls, among a few samples at least and until the share of time is used up."""
    best, samples, clock = float("inf"), 0, time.perf_counter
    end = clock() + share
    while (samples < SAMPLES and best * repeats < LONG) or samples == 0 or clock() < end:
        began = clock()
        for _ in range(repeats):
            call()
        best = min(best, (clock() - began) / repeats)
        samples += 1
    return best


def measure(
    calls: dict[str, Call],
    rounds: int,
    share: float,
    tick: Callable[[], Any],
    settled: Callable[[Minima], bool] = lambda minima: True,
) -> Minima:
    """Minima of the rounds of each contender, in turns; every round begins with the next one.

    There are more rounds until these are `settled`.
    """
    names = list(calls)
    repeats = {name: max(1, round(SAMPLE / seconds(call, 1, 0))) for name, call in calls.items()}
    minima: Minima = {name: [] for name in names}
    gc.disable()
    try:
        for k in range(MORE * rounds):
            for name in names[k % len(names) :] + names[: k % len(names)]:
                minima[name].append(seconds(calls[name], repeats[name], share))
            if k < rounds:
                tick()
            if k >= rounds - 1 and settled(minima):
                break
    finally:
        gc.enable()
    return minima


def apart(a: list[float], b: list[float]) -> bool:
    """Whether two contenders have no rounds in common, so that it is plain which is the faster one."""
    return max(a) < min(b) or max(b) < min(a)


def spread(minima: list[float]) -> float:
    """How far the rounds lie apart, as a share of their median: what a difference must exceed to mean something.

    A quarter of the rounds is left out, half of it at each end, for one disturbed round says nothing of the others.
    """
    ordered = sorted(minima)
    cut = len(ordered) // 8
    kept = ordered[cut : len(ordered) - cut]
    return (kept[-1] - kept[0]) / median(minima)
