"""Error of a finite difference against its step, drawn by hand so that a page needs nothing else."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence

from .._verdict import Curve
from .text import line

WIDTH, HEIGHT = 560, 280
LEFT, RIGHT, TOP, BOTTOM = 64, 12, 30, 44
#: Labels on an axis, about.
TICKS = 6


class Axis:
    """A logarithmic axis over whole decades."""

    def __init__(self, values: Iterable[float], start: float, end: float):
        logs = [math.log10(value) for value in values]
        self.low, self.high = math.floor(min(logs)), math.ceil(max(logs))
        if self.low == self.high:
            self.low, self.high = self.low - 1, self.high + 1
        self.start, self.end = start, end

    def __call__(self, value: float) -> float:
        """Position of a number; 0 lies on the lower end."""
        return self.at(math.log10(value) if value > 0 else self.low)

    def at(self, exponent: float) -> float:
        """Position of a power of ten, which itself may be beyond the largest number."""
        return round(self.start + (exponent - self.low) / (self.high - self.low) * (self.end - self.start), 1)

    @property
    def ticks(self) -> range:
        return range(self.low, self.high + 1, math.ceil((self.high - self.low) / TICKS))


def svg(curve: Curve) -> str:
    """The plot; empty if there is nothing that can be drawn."""
    difference = drawable(curve.step, curve.difference)
    noise = drawable(curve.step, curve.noise)
    heights = [value for _, value in difference + noise if value > 0]
    if not heights:
        return ""
    x = Axis([step for step, _ in difference + noise], LEFT, WIDTH - RIGHT)
    y = Axis(heights, HEIGHT - BOTTOM, TOP)
    label = html.escape(line(curve.label))
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img" '
        f'aria-label="error of the finite difference of {label} against its step">',
        f'<text x="{LEFT}" y="12" class="head">{label}</text>',
        f'<path class="noise" d="M{LEFT} 21h18"/><text x="{LEFT + 23}" y="25">what noise explains</text>',
        f'<path class="dots" d="M{LEFT + 161} 21h0"/>',
        f'<text x="{LEFT + 170}" y="25">|analytic &#8722; difference quotient|</text>',
    ]
    for exponent in x.ticks:
        at = x.at(exponent)
        parts.append(f'<path class="grid" d="M{at} {TOP}V{HEIGHT - BOTTOM}"/>')
        parts.append(f'<text class="mid" x="{at}" y="{HEIGHT - BOTTOM + 14}">1e{exponent}</text>')
    for exponent in y.ticks:
        at = y.at(exponent)
        parts.append(f'<path class="grid" d="M{LEFT} {at}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text class="end" x="{LEFT - 5}" y="{at + 4}">1e{exponent}</text>')
    middle = (TOP + HEIGHT - BOTTOM) // 2
    parts += [
        f'<text class="mid" x="{(LEFT + WIDTH - RIGHT) // 2}" y="{HEIGHT - 8}">step, in units of the input</text>',
        f'<text class="mid" transform="translate(12 {middle}) rotate(-90)">error, in units of the gradient</text>',
    ]
    if noise:
        parts.append(f'<path class="noise" d="M{"L".join(points(x, y, noise))}"/>')
    if difference:
        placed = points(x, y, difference)
        parts.append(f'<path class="curve" d="M{"L".join(placed)}"/><path class="dots" d="M{"h0M".join(placed)}h0"/>')
    return "".join([*parts, "</svg>"])


def drawable(steps: Sequence[float], values: Sequence[float]) -> list[tuple[float, float]]:
    pairs = zip(steps, values, strict=False)
    return sorted(pair for pair in pairs if all(map(math.isfinite, pair)) and pair[0] > 0 and pair[1] >= 0)


def points(x: Axis, y: Axis, pairs: Sequence[tuple[float, float]]) -> list[str]:
    return [f"{x(step):g} {y(value):g}" for step, value in pairs]
