"""Entries that only show together: ties, and wrong entries among too many to be looked at one by one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from ._diagnose import Entries, diagnose
from ._findings import NAMED, SIDED, Array, Numbers, Setup, wrong_entry
from ._judge import Judgement, judge
from ._oracle import measure
from ._probe import Line, Lines
from ._verdict import Finding, Verdict


def ties(
    numbers: Numbers, setup: Setup, f: Callable[[Array], float], j: Judgement, chosen: Array, step: Array, sigma: Array
) -> None:
    """Entries at a tie, as of a maximum, may be right one by one and wrong together: their common direction must hold, too."""
    kinked = np.flatnonzero(j.kink[: len(chosen)])
    index = chosen[kinked]
    together = np.full(len(index), float(step[index].min()))
    alone = [Line(index[k : k + 1], together[k : k + 1]) for k in range(len(index))]
    probe = Lines(f, setup.x, setup.gradient, [Line(index, together), *alone])
    right, left = (measure(probe, np.arange(probe.size), np.full(probe.size, sigma.max()), SIDED, side) for side in (1, -1))
    slack = right.interval + left.interval
    if not np.isfinite(slack).all():
        return
    interacting = any(abs(look.value[0] - look.value[1:].sum()) > slack.sum() for look in (right, left))
    low, high = min(right.value[0], left.value[0]) - slack[0], max(right.value[0], left.value[0]) + slack[0]
    if interacting and not low <= probe.slope[0] <= high:
        unit = together[0]
        text = f"{len(index)} tied entries together have slope {probe.slope[0] / unit:.6g}"
        text += f", not within {low / unit:.6g} and {high / unit:.6g}"
        hint = "ties share one slope; it may not be given to each of them"
        where = setup.index(int(index[0]))
        numbers.findings.append(Finding("tie", Verdict.FAIL, text, setup.argument, setup.point, where, hint=hint))


def locate(
    numbers: Numbers, setup: Setup, f: Callable[[Array], float], probe: Lines, j: Judgement, n: int, own: Array, sigma: float
) -> None:
    """Name the wrong entries of a wrong direction by halving it, in a number of steps that grows with its logarithm."""
    worst = n + int(np.argmax(np.where(j.wrong[n:], j.outside[n:] / j.interval[n:], -1.0)))
    if j.kink[worst]:
        text = "random directions cross kinks, so that nothing can be said of entries that were not looked at one by one"
        numbers.findings.append(
            Finding(
                "kink", Verdict.INCONCLUSIVE, text, setup.argument, setup.point, hint="pass separable=, or an x without ties"
            )
        )
        return
    whole = probe.lines[worst].step
    found: list[Finding] = []
    spread = 0
    for block, judged in _halves(f, setup, whole, own, sigma):
        if block.size == 1:
            entry = np.array(block)
            step = whole[block]
            e = Entries(
                entry,
                setup.gradient,
                judged.slope[:1] / step,
                judged.value[:1] / step,
                judged.interval[:1] / np.abs(step),
                np.ones(1, bool),
                setup.others,
            )
            found.append(wrong_entry(setup, judged, 0, entry, step, e, diagnose(e)))
        else:
            spread += block.size
        if len(found) >= NAMED:
            break
    if not found:
        slope, value = float(j.slope[worst]), float(j.value[worst])
        text = f"along a random direction analytic {slope:.9e}, numeric {value:.9e} +- {j.interval[worst]:.1e}"
        text += f"; the error is spread over at least {spread or whole.size} entries"
        found.append(
            Finding(
                "direction",
                Verdict.FAIL,
                text,
                setup.argument,
                setup.point,
                hint=_ratio(slope, value, float(j.interval[worst])),
            )
        )
    numbers.findings += found


def _halves(
    f: Callable[[Array], float], setup: Setup, step: Array, own: Array, sigma: float
) -> Iterator[tuple[Array, Judgement]]:
    """Blocks of wrong entries: single ones, or blocks whose halves look right by themselves."""
    rest = [np.arange(step.size)]
    while rest:
        block = rest.pop()
        halves = [half for half in np.array_split(block, 2) if half.size]
        probe = Lines(f, setup.x, setup.gradient, [Line(half, step[half]) for half in halves])
        errors = np.array([norm(own[half] * step[half]) for half in halves])
        judged = judge(probe, np.full(len(halves), sigma), errors, np.ones(len(halves)))
        wrong = [half for half, bad in zip(halves, judged.wrong, strict=True) if bad]
        for k, half in enumerate(halves):
            if judged.wrong[k] and half.size == 1:
                yield half, _only(judged, k)
        if not wrong:
            yield block, judged
        rest += [half for half in reversed(wrong) if half.size > 1]


def _only(j: Judgement, k: int) -> Judgement:
    names = ("slope", "value", "interval", "low", "high", "truncation", "wrong", "kink", "flat", "flat_far")
    return replace(j, **{name: getattr(j, name)[k : k + 1] for name in names})


def _ratio(slope: float, value: float, interval: float) -> str:
    if abs(slope) <= interval:
        return "the gradient is zero"
    ratio = slope / value if value else math.inf
    return f"the gradient is {ratio:.6g} times what it should be along that direction"


def norm(terms: Array) -> float:
    return float(np.sqrt(np.sum(terms * terms)))
