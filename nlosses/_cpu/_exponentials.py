"""exp and expm1 by polynomials, for numbers and vectors, and exp by a table too, for vectors."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba.extending import register_jitable

from .._scalar import where
from ._flags import INLINED
from ._formats import Format, bits, constants, horner, power_of_two, raising, times_power
from ._vector import TABLE, entry_of, scaled


def _reduced(F: Format, tail: tuple[float, ...], n: int = 1, offset: int = 0) -> Callable[..., Any]:
    steps, high, low, rounder = constants(F, n / math.log(2), F.ln2[0] / n, F.ln2[1] / n, F.rounder + offset)
    lead, (second, *others) = horner(F, (1, *tail))
    rest = tuple(others)

    def reduced(x, zero):
        """k and r of exp(x) = 2**(k/n) exp(r), (exp(r) - 1) / r, and a number with k + offset in its low bits.

        For `zero` see `_scalar.exp_kept`.
        """
        shifted = x * (steps + zero) + (rounder + zero)
        k = shifted - (rounder + zero)
        r = (x - k * (high + zero)) - k * (low + zero)
        y = (lead + zero) * r + (second + zero)
        for c in rest:
            y = y * r + (c + zero)
        return k, r, y, shifted

    return register_jitable(**INLINED)(reduced)


def exp(F: Format) -> Callable[..., Any]:
    U, fraction, halve, zero, one = F.U, F.U(F.fraction), F.U(1), F.T(0), F.T(1)
    first, last = constants(F, *F.exp_domain)
    reduced = _reduced(F, F.exp_tail, offset=2 * F.bias)

    def exp(x):
        # NaN passes both bounds.
        x = first if first > x else x
        x = last if last < x else x
        _, r, y, shifted = reduced(x, zero)
        # 2**k is beyond the format where the result is subnormal or nearly infinite, so it comes in two factors, of which
        # only the second rounds.
        i = bits(shifted)
        j = U(i >> halve)
        return (y * r + one) * bits(U(j << fraction)) * bits(U(U(i - j) << fraction))

    return exp


def exp_by_table(F: Format) -> Callable[..., Any]:
    first, last, zero, step = constants(F, *F.exp_domain, 0, 1 / TABLE)
    reduced, power_of = _reduced(F, F.narrow_tail, TABLE), entry_of(_powers(F).tolist())

    def exp_by_table(x):
        x = where(first > x, first, x)
        x = where(last < x, last, x)
        k, r, y, shifted = reduced(x, zero)
        t = power_of(shifted)
        return scaled(t * (y * r) + t, k * step)

    return exp_by_table


def _raised(F: Format, power: int) -> Callable[..., Any]:
    reduced, zero, one = _reduced(F, F.exp_tail, offset=F.bias + power), F.T(0), F.T(1)

    def raised(x):
        """exp(x) 2**power, where that is a normal number."""
        _, r, y, shifted = reduced(x, zero)
        return (y * r + one) * power_of_two(shifted)

    return register_jitable(**INLINED)(raised)


def _raised_by_table(F: Format, power: int) -> Callable[..., Any]:
    reduced = _reduced(F, F.narrow_tail, TABLE)
    places = F.fraction - int(math.log2(TABLE))
    # 2**(i/n + power), less what i adds to it among the bits where the whole number that it is part of is added.
    powers = (_powers(F) * F.T(2.0**power)).view(F.U) - (np.arange(TABLE, dtype=F.U) << F.U(places))
    power_of, raised_by = entry_of(powers.view(F.T).tolist()), raising(places)

    def raised_by_table(x, zero):
        """exp(x) 2**power, where that is a normal number."""
        _, r, y, shifted = reduced(x, zero)
        t = raised_by(power_of(shifted), shifted)
        return t * (y * r) + t

    return register_jitable(**INLINED)(raised_by_table)


def _powers(F: Format) -> Any:
    return np.exp2(np.arange(TABLE) / TABLE).astype(F.T)


def exp_nonpositive(F: Format) -> Callable[..., Any]:
    power = F.bias // 2
    raised = _raised(F, power)
    first, lower = constants(F, F.exp_domain[0], 2.0**-power)

    def exp_nonpositive(x):
        return raised(where(first > x, first, x)) * lower  # the only rounding where the result is subnormal

    return exp_nonpositive


def exp_nonpositive_by_table(F: Format) -> Callable[..., Any]:
    power = F.bias // 2
    raised = _raised_by_table(F, power)
    first, lower, zero = constants(F, F.exp_domain[0], 2.0**-power, 0)

    def exp_nonpositive(x):
        return raised(where(first > x, first, x), zero) * lower

    return exp_nonpositive


def exp_moderate(F: Format) -> Callable[..., Any]:
    raised = _raised(F, 0)

    def exp_moderate(x):
        return raised(x)

    return exp_moderate


def exp_kept(F: Format) -> Callable[..., Any]:
    reduced, one = _reduced(F, F.exp_tail), F.T(1)

    def exp_kept(x, zero):
        _, r, y, shifted = reduced(x, zero)
        return times_power(y * r + (one + zero), shifted)

    return exp_kept


def exp_kept_by_table(F: Format) -> Callable[..., Any]:
    return _raised_by_table(F, 0)


def expm1(F: Format) -> Callable[..., Any]:
    half, two, log2e, high, low = constants(F, 0.5, 2, 1 / math.log(2), *F.ln2)
    first, last, tiny = constants(F, F.expm1_low, F.exp_domain[1], 2.0 ** -(F.fraction + 2))
    lead, rest = horner(F, F.expm1_tail)
    rounder = F.T(F.rounder + F.bias - 1)

    def expm1(x):
        # expm1(x) = 2 (h expm1(r) + (h - 1/2)), where h = 2**(k - 1): 2**k itself would overflow too early.
        y = first if first > x else x
        y = last if last < y else y
        shifted = y * log2e + rounder
        k = shifted - rounder
        a = y - k * high
        b = k * low
        r = a - b
        tail = lead
        for c in rest:
            tail = tail * r + c
        h = power_of_two(shifted)
        # As in exp the largest part, which is h a + (h - 1/2), keeps its rounding error.
        base = h - half
        ha = h * a
        s = base + ha
        result = two * (s + ((ha - (s - base)) + h * (tail * (r * r) - b)))
        # x**2 / 2 is nothing beside x here, and halving a subnormal number would lose its last bit.
        return x if abs(x) < tiny else result

    return expm1
