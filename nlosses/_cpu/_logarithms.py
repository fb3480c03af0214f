"""log and log1p by polynomials, for numbers, and by tables, for vectors."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba.extending import register_jitable

from ._flags import INLINED
from ._formats import FLOAT32, Format, bits, constants, horner, lowering
from ._vector import TABLE, entry_of, exponent, scaled, significand


def log1p_unit(F: Format) -> Callable[..., Any]:
    lead, (second, *others) = horner(F, F.unit_tail)
    half = len(others) // 2
    first, last = tuple(others[:half]), tuple(others[half:])

    def log1p_unit(x):
        # Two loops, for one would be too long for LLVM to unroll, and so to vectorise what is around it.
        tail = lead * x + second
        for c in first:
            tail = tail * x + c
        for c in last:
            tail = tail * x + c
        return x + x * x * tail

    return log1p_unit


def _log1p_by_table(F: Format, sign: int, near: Any, steps: int) -> Callable[..., Any]:
    # With c = sign near[i], so short that x - near[i] is exact: log1p(sign x) = log1p(c) + log1p(sign (x - near[i]) / (1 + c)).
    c = sign * near
    point_of, reciprocal_of, logarithm_of = (_entry_of(F, table) for table in (near, sign / (1 + c), np.log1p(c)))
    scale, rounder = constants(F, steps, F.rounder)
    quotient_of = _near(F, F.near_tail)

    def log1p(x):
        i = x * scale + rounder
        r = (x - point_of(i)) * reciprocal_of(i)
        square = r * r
        return (square * quotient_of(r, square) + r) + logarithm_of(i)

    return log1p


def _near(F: Format, coefficients: tuple[float, ...]) -> Callable[..., Any]:
    """(log1p(r) - r) / r**2 of r and its square: in pairs of terms, for one after the other would be the longer wait."""
    constant, terms = constants(F, coefficients[0])[0], constants(F, *coefficients[1:])
    if len(terms) % 2:
        terms = [constant, *terms]
    (second, lead), *others = [(terms[i], terms[i + 1]) for i in range(len(terms) - 2, -1, -2)]
    rest = tuple(others)
    odd = len(coefficients) % 2 > 0

    def near(r, square):
        y = lead * r + second
        for low, high in rest:
            y = y * square + (high * r + low)
        return y * r + constant if odd else y

    return register_jitable(**INLINED)(near)


def _entry_of(F: Format, table: Any) -> Any:
    return entry_of(table.astype(F.T).astype(float).tolist())


def log1p_unit_by_table(F: Format) -> Callable[..., Any]:
    return _log1p_by_table(F, 1, np.array(F.upper_points) / 1024, 15)


def log1m_half_by_table(F: Format) -> Callable[..., Any]:
    return _log1p_by_table(F, -1, np.array(F.lower_points) / 2048, 30)


def _tabled(F: Format) -> tuple[Callable[..., Any], Callable[..., Any]]:
    # Of x = 2**k m, where 3/4 <= m < 3/2, the first bits of m name a number c, and log(x) = k log(2) - log(c) + log1p(c m - 1).
    # Where m is near to 1 so that the others cancel, c is 1 and no rounding comes before the last.  Elsewhere the first two are
    # multiples of 2**-log_grid, whose sum is exact.
    c = np.array([float.fromhex(text) for text in F.reciprocals])
    grid = 2.0**F.log_grid
    reciprocal_of, logarithm_of = _entry_of(F, c), _entry_of(F, np.rint(-np.log(c) * grid) / grid)
    one, high, low = constants(F, 1, *F.ln2)
    quotient_of = _near(F, F.wide_tail)
    lowered = lowering(F.fraction - int(math.log2(TABLE)))

    def reduced(x):
        """k, c and c m - 1, and what the last but one is looked up by."""
        m = significand(x)
        k = exponent(x) - exponent(m)
        i = lowered(m)
        c = reciprocal_of(i)
        return k, i, c, m * c - one

    def logarithm(k, i, r):
        square = r * r
        return (k * high + logarithm_of(i)) + (square * quotient_of(r, square) + (k * low + r))

    return register_jitable(**INLINED)(reduced), register_jitable(**INLINED)(logarithm)


def log_by_table(F: Format) -> Callable[..., Any]:
    reduced, logarithm = _tabled(F)

    def log(x):
        # Nothing need be done for 0, infinity and numbers below 0, whose k or m are infinite or NaN, nor for subnormal ones.
        k, i, _, r = reduced(x)
        return logarithm(k, i, r)

    return log


def log1p_positive_by_table(F: Format) -> Callable[..., Any]:
    reduced, logarithm = _tabled(F)
    one = F.T(1)

    def log1p_positive(x):
        # As log(u), where u = 1 + x, but r takes in what that sum lost.
        u = x + one
        k, i, c, r = reduced(u)
        return logarithm(k, i, r + scaled(x - (u - one), -k) * c)

    return register_jitable(**INLINED)(log1p_positive)


def _polynomial_tail(F: Format) -> Callable[..., Any]:
    half = F.T(0.5)
    lead, rest = horner(F, F.log_tail)

    def log1p_tail(f):
        """log1p(f) - f, by a polynomial."""
        tail = lead
        for c in rest:
            tail = tail * f + c
        return f * (f * (f * tail - half))

    return register_jitable(**INLINED)(log1p_tail)


def _quotient_tail(F: Format) -> Callable[..., Any]:
    half, two = constants(F, 0.5, 2)
    lead, rest = horner(F, F.log_tail)

    def log1p_tail(f):
        """log1p(f) - f, by log1p(f) = 2 atanh(f / (2 + f)): one division saves a dozen terms."""
        s = f / (two + f)
        z = s * s
        tail = lead
        for c in rest:
            tail = tail * z + c
        h = half * f * f
        return s * (h + z * tail) - h

    return register_jitable(**INLINED)(log1p_tail)


def _exponent(F: Format) -> tuple[Callable[..., Any], float]:
    """A function that makes a float of a signed exponent in its place among the bits, and the unit of that float."""
    if F is FLOAT32:

        def direct(e):
            return np.float32(np.int32(e))

        return register_jitable(**INLINED)(direct), 2.0**-F.fraction

    U, fraction = F.U, F.U(F.fraction)
    lift = U(1 << 62)  # makes it positive, for the logical shift
    frame = U(np.float64(2.0**F.fraction).view(U))  # its low bits count ones
    offset = F.T(2.0**F.fraction + 2.0 ** (62 - F.fraction))

    def exponent(e):
        return bits((e + lift) >> fraction | frame) - offset

    return register_jitable(**INLINED)(exponent), 1.0


def _logarithmic(F: Format) -> tuple[Any, ...]:
    """What log and log1p share."""
    root = np.sqrt(F.T(0.5)).view(F.U)
    mask = F.T(-math.inf).view(F.U)  # sign and exponent
    return F.U, (root, mask), *_exponent(F), _polynomial_tail(F) if F is FLOAT32 else _quotient_tail(F)


def _decomposed(F: Format) -> Callable[..., Any]:
    U, (root, mask), exponent, unit, _ = _logarithmic(F)
    zero, one = constants(F, 0, 1)
    lift, lifted = constants(F, 2.0 ** (F.fraction + 1), (F.fraction + 1) / unit)
    normal = np.finfo(F.T).tiny

    def decomposed(x):
        """k and f of x = 2**k (1 + f), where 1 + f lies between the square roots of 1/2 and 2; k in `_exponent`'s unit."""
        subnormal = x < normal
        i = bits(x * lift if subnormal else x)
        e = U(U(i - root) & mask)
        return exponent(e) - (lifted if subnormal else zero), bits(U(i - e)) - one

    return register_jitable(**INLINED)(decomposed)


def log(F: Format) -> Callable[..., Any]:
    _, _, _, unit, log1p_tail = _logarithmic(F)
    decomposed = _decomposed(F)
    zero, minus_inf, inf, nan = constants(F, 0, -math.inf, math.inf, math.nan)
    high, low = constants(F, F.ln2[0] * unit, F.ln2[1] * unit)

    def log(x):
        # k high + f keeps its rounding error: where they are of opposite signs, they cancel in part.
        k, f = decomposed(x)
        k_high = k * high
        s = k_high + f
        y = s + (log1p_tail(f) + ((f - (s - k_high)) + k * low))
        y = y if x < inf else x
        return y if x > zero else (minus_inf if x == zero else nan)

    return log


def log_half(F: Format) -> Callable[..., Any]:
    _, _, _, unit, log1p_tail = _logarithmic(F)
    decomposed = _decomposed(F)
    zero, inf = constants(F, 0, math.inf)
    high, low = constants(F, F.ln2[0] * unit, F.ln2[1] * unit)

    def log_half(x):
        # As log, but here k high is at least twice as large as f, so that their sum needs no rounding error.
        k, f = decomposed(x)
        y = k * high + (f + (log1p_tail(f) + k * low))
        return y if x > zero else x - inf

    return log_half


def log1m_half(F: Format) -> Callable[..., Any]:
    *_, log1p_tail = _logarithmic(F)
    zero, one, middle, ln2 = constants(F, 0, 1, 1 - math.sqrt(0.5), math.log(2))

    def log1m_half(x):
        # log(2 (1 - x)) - log 2 where that has the smaller argument; 1 - 2x is exact there.
        upper = x > middle
        f = one - (x + x) if upper else -x
        return (f + log1p_tail(f)) - (ln2 if upper else zero)

    return log1m_half


def log1p(F: Format) -> Callable[..., Any]:
    U, split, exponent, unit, log1p_tail = _logarithmic(F)
    half, one, minus_one, minus_inf, inf, nan = constants(F, 0.5, 1, -1, -math.inf, math.inf, math.nan)
    high, low = constants(F, F.ln2[0] * unit, F.ln2[1] * unit)
    two, sign = (U(F.T(v).view(U)) for v in (2.0, -0.0))
    root, mask = split

    def log1p(x):
        # As log(u), where u = 1 + x, but f takes in what that sum lost. `lost` is exact up to u = 2**24 or 2**53
        # and counts for nothing from there on.
        u = one + x
        lost = x - (u - one)
        i = bits(u)
        e = U(U(i - root) & mask)
        k = exponent(e)
        g = bits(U(i - e)) - one
        h = half * (lost * bits(U(two - e)))  # lost / 2**k; 1 / 2**k alone would not be a number for the largest k
        f = g + h
        k_high = k * high
        s = k_high + g
        y = s + (log1p_tail(f) + ((g - (s - k_high)) + (k * low + h)))
        y = bits(U(bits(y) | U(bits(x) & sign)))  # gives -0 its sign back; elsewhere x and y agree
        y = y if x < inf else x
        return y if x > minus_one else (minus_inf if x == minus_one else nan)

    return log1p
