"""What all checks are asked, validated; and the points that follow from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ._call import Arguments, copied
from ._points import ATTEMPTS, NEIGHBOURHOOD, Bounds, near

Sampler = Callable[[np.random.Generator], Any]
Kinks = str | Callable[..., Any]


@dataclass(frozen=True)
class Options:
    """What all checks have in common."""

    wrt: tuple[int, ...]
    points: int
    sampler: Sampler | None
    domain: Bounds | None
    kinks: Kinks
    rtol: float
    only: tuple[int, ...] | None
    seed: int
    name: str


def common_options(
    x: Any, args: tuple[Any, ...], wrt: int | tuple[int, ...], points: int, sampler: Sampler | None, domain: Bounds | None,
    kinks: Kinks, rtol: float, only: tuple[int, ...] | None, seed: int, name: str,
) -> Options:  # fmt: skip
    positions = wrt if isinstance(wrt, tuple) else (wrt,)
    for position in positions:
        if not isinstance(position, int) or not 0 <= position <= len(args):
            raise ValueError(f"wrt must be positions among the {1 + len(args)} arguments (x, *args), was {wrt!r}")
    if not positions or len(set(positions)) != len(positions):
        raise ValueError(f"wrt must name each argument once, was {wrt!r}")
    if points < 1:
        raise ValueError(f"points must be at least 1, was {points!r}")
    if not rtol > 0:
        raise ValueError(f"rtol must be positive, was {rtol!r}")
    if not callable(kinks) and kinks not in ("any", "forbid"):
        raise ValueError(f"kinks must be 'any', 'forbid' or a callable, was {kinks!r}")
    if domain is not None:
        if len(domain) != 2 or not np.all(np.asarray(domain[0]) < np.asarray(domain[1])):
            raise ValueError(f"domain must be (low, high) with low < high, was {domain!r}")
        for position in positions:
            a = np.asarray((x, *args)[position], float)
            if ((a < domain[0]) | (a > domain[1])).any():
                raise ValueError(f"{'x' if position == 0 else f'argument {position}'} is outside of the domain {domain!r}")
    if only is not None:
        shape = np.shape((x, *args)[positions[0]])
        if len(only) != len(shape) or not all(-n <= i < n for i, n in zip(only, shape, strict=True)):
            raise ValueError(f"only must be an index of an array of shape {shape}, was {only!r}")
        only = tuple(i % n for i, n in zip(only, shape, strict=True))
    return Options(tuple(positions), points, sampler, domain, kinks, rtol, only, seed, name)


def prepared(arguments: Sequence[Any], wrt: tuple[int, ...]) -> Arguments:
    """Arguments whose differentiable ones are float64 arrays."""
    result = list(arguments)
    for position in wrt:
        a = np.asarray(result[position])
        what = "x" if position == 0 else f"argument {position}"
        if a.dtype.kind not in "fiub":
            raise TypeError(f"{what} must be real and float64, was {a.dtype}")
        if a.dtype.kind == "f" and a.dtype != np.float64:
            why = "finite differences prove nothing in other precisions; see check_transfer"
            raise TypeError(f"{what} must be float64, was {a.dtype}: {why}")
        result[position] = a if a.dtype == np.float64 else a.astype(np.float64)
    return tuple(result)


def further(
    options: Options, arguments: Arguments, value: Callable[[Arguments], np.ndarray], rng: np.random.Generator, count: int
) -> list[Arguments]:
    """Further points at which the function is defined."""
    found = []
    for _ in range(count):
        if options.sampler is not None:
            drawn = options.sampler(rng)
            drawn = drawn if isinstance(drawn, tuple) else (drawn, *arguments[1:])
            if len(drawn) != len(arguments):
                raise ValueError(f"sampler must return x or a tuple of {len(arguments)} arguments, was a tuple of {len(drawn)}")
            found.append(prepared(drawn, options.wrt))
            continue
        distance = NEIGHBOURHOOD
        for _ in range(ATTEMPTS):
            moved = tuple(
                near(np.array(a, float, order="C"), options.domain, rng, distance) if i in options.wrt else a
                for i, a in enumerate(arguments)
            )
            try:
                with np.errstate(all="ignore"):
                    defined = bool(np.isfinite(value(copied(moved))).any()) or not moved[options.wrt[0]].size
            except (ValueError, ArithmeticError):
                defined = False
            if defined:
                found.append(moved)
                break
            distance /= 4
    return found


def name_of(f: Any) -> str:
    name = getattr(f, "__name__", None) or type(f).__name__
    return "" if name == "<lambda>" else str(name)
