"""Vectorisable exp, expm1, log, log1p and maximum for the CPU, attached to the plain functions of `nlosses._scalar`.

Numba's `math.exp` calls the C library for each element, which also keeps the loop around it scalar. Here is arithmetic
only, so that LLVM vectorises the loop on any target:

* Choices are selects; NaN needs none where it comes through the arithmetic by itself.
* Floating point and integers meet in bit casts and in sums with `Format.rounder`. Conversions of 64-bit integers, and
  their arithmetic shift, are absent from most vector units.
* Fused multiply-add comes from contraction alone: spelled out, it is a library call on a machine that has none.
* No reassociation: it would remove the rounding trick and the error terms.

Each algorithm is written once for both formats, and float32 computes in float32 alone. The casts ``U(...)`` are there
because Numba widens the result of 32-bit arithmetic to 64 bits.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload, register_jitable

from .. import _scalar as scalar
from ._vector import OPTIONS, TABLE, Vector, choice, entry_of, has_tables, whole


class Format(NamedTuple):
    """A floating-point format: its constants, and its polynomials with the constant term first.

    The polynomials are minimax fits, their coefficients rounded one by one and the rest fitted anew each time. Each
    comes with its largest error, relative to the function that it is part of (half an ulp is at least 2**-25, 2**-54).
    """

    T: Any  #: the type
    U: Any  #: unsigned integer of its width
    fraction: int  #: bits of the significand that are stored
    bias: int  #: of the exponent
    ln2: tuple[float, float]  #: ln 2 in two parts; the first so short that its product with any exponent is exact
    exp_domain: tuple[float, float]  #: exp is 0 (less than half of the least subnormal) below, infinite above
    expm1_low: float  #: expm1 is -1 to the last bit below
    exp_tail: tuple[float, ...]  #: (exp(r) - 1 - r) / r**2 for abs(r) <= ln(2) / 2
    narrow_tail: tuple[float, ...]  #: the same for abs(r) <= ln(2) / 32
    expm1_tail: tuple[float, ...]  #: the same as the first, fitted for expm1, which asks for more near 0
    log_tail: tuple[float, ...]  #: for the `log1p_tail` of the format
    unit_tail: tuple[float, ...]  #: (log1p(x) - x) / x**2 for 0 <= x <= 1
    near_tail: tuple[float, ...]  #: the same for abs(x) <= 1/30
    near_points: tuple[int, ...]  #: k near 1024 i / 15 whose log1p(k / 1024) is nearest to a number of the format

    @property
    def rounder(self) -> float:
        """Added to a number, it leaves the nearest integer in the low bits of the sum; subtracted again, as a float."""
        return 1.5 * 2.0**self.fraction


FLOAT32 = Format(
    T=np.float32,
    U=np.uint32,
    fraction=23,
    bias=127,
    ln2=(float.fromhex("0x1.62e4p-1"), float.fromhex("0x1.7f7d1cp-20")),
    exp_domain=(-104.0, 89.0),
    expm1_low=-18.0,
    exp_tail=(0.49999994, 0.16666517, 0.041668102, 0.008369191, 0.001383895),  # 2**-28.2
    narrow_tail=(0.5000163, 0.16667008),  # 2**-29.2
    expm1_tail=(0.5, 0.16666636, 0.04166651, 0.008341602, 0.0013930596, 0.00014955548),  # 2**-28.1
    # (log1p(f) - f + f**2 / 2) / f**3 for sqrt(1/2) - 1 <= f <= sqrt(2) - 1: 2**-27.3
    log_tail=(0.33333331, -0.25000823, 0.2000125, -0.16623363, 0.1420141, -0.13159716, 0.12762898, -0.07636758),
    unit_tail=(  # 2**-28.6
        -0.4999998807907104,
        0.3333271443843842,
        -0.2498886436223984,
        0.1989962309598923,
        -0.1613517701625824,
        0.1247957199811935,
        -0.0832401365041733,
        0.0421164408326149,
        -0.0136927515268326,
        0.0020848286803812,
    ),
    near_tail=(-0.49999994, 0.33333325, -0.25022674, 0.20022483),  # 2**-31.0
    near_points=(0, 70, 138, 204, 273, 343, 411, 477, 547, 616, 682, 749, 817, 888, 956, 1024),
)

FLOAT64 = Format(
    T=np.float64,
    U=np.uint64,
    fraction=52,
    bias=1023,
    ln2=(float.fromhex("0x1.62e42fefap-1"), float.fromhex("0x1.cf79abc9e3b3ap-40")),
    exp_domain=(-746.0, 710.0),
    expm1_low=-38.0,
    exp_tail=(  # 2**-57.7
        0.5000000000000011, 0.16666666666666438, 0.04166666666652814, 0.008333333333488083, 0.0013888888943854624,
        0.00019841269496006814, 2.480149302381515e-05, 2.755761607817304e-06, 2.7630252168778725e-07,
        2.4984924985178926e-08,
    ),
    narrow_tail=(  # 2**-56.1
        0.5000000000000004, 0.16666666664372584, 0.0416666666607442, 0.008333473002952427, 0.0013889110198476572,
    ),
    expm1_tail=(  # 2**-61.3
        0.5, 0.16666666666666677, 0.041666666666666685, 0.008333333333321818, 0.0013888888888901494,
        0.00019841269884879296, 2.4801587246787113e-05, 2.755724602241103e-06, 2.7557368227161825e-07,
        2.510826697372623e-08, 2.0879495000356406e-09,
    ),
    # (atanh(s) - s) / s**3 * 2 in powers of s**2, for the same f and s = f / (2 + f): 2**-59.5
    log_tail=(
        0.6666666666666734, 0.39999999999417024, 0.28571428741898874, 0.22222198620880404, 0.18183561949893678,
        0.1531410912980707, 0.14795382914042396,
    ),
    unit_tail=(  # 2**-56.1
        -0.49999999999999983, 0.33333333333329535, -0.24999999999707073, 0.1999999998839876, -0.16666666388025225,
        0.1428570982168929, -0.12499949270440469, 0.11110684351700652, -0.09997258623507434, 0.09077144795282424,
        -0.0827833071313708, 0.07514839474490685, -0.06674903458434267, 0.05647233853947481, -0.04394799930675555,
        0.03025295596520805, -0.017683321406988917, 0.008402111607638584, -0.003082233866024078, 0.000812789261991963,
        -0.00013639333672991742, 1.0899985732226472e-05,
    ),
    near_tail=(  # 2**-61.3
        -0.5, 0.3333333333333233, -0.24999999999998565, 0.20000000008637128, -0.16666666676973496, 0.14285691008037463,
        -0.12499975323657116, 0.11135885136056921, -0.10024163507612668,
    ),
    near_points=(0, 70, 135, 204, 273, 340, 409, 478, 546, 616, 684, 753, 817, 885, 955, 1022),
)  # fmt: skip


# --- bits -------------------------------------------------------------------------------------------------------------

_SAME_WIDTH = {
    types.float32: types.uint32,
    types.float64: types.uint64,
    types.uint32: types.float32,
    types.uint64: types.float64,
}


@intrinsic
def bits(typing_context, x):
    """The bits of a floating-point number as an unsigned integer, and back."""
    result = _SAME_WIDTH[x]
    return result(x), lambda context, builder, signature, args: builder.bitcast(args[0], context.get_value_type(result))


def _raised_bits(builder, x, places=None):
    """The bits of a number, or of those of a vector, so many places higher; by default those of an exponent."""
    kind = whole(x.type)
    if places is None:
        places = {32: FLOAT32.fraction, 64: FLOAT64.fraction}[getattr(kind, "element", kind).width]
    return builder.shl(
        builder.bitcast(x, kind), ir.Constant(kind, [places] * kind.count if isinstance(kind, ir.VectorType) else places)
    )


@intrinsic
def _power(typing_context, x):
    """2 to the power of what stands in the low bits of x, less the bias; of a number or a vector."""

    def generate(context, builder, signature, args):
        return builder.bitcast(_raised_bits(builder, args[0]), args[0].type)

    return x(x), generate


def _raising(places=None):
    @intrinsic
    def times_power(typing_context, y, x):
        """y times 2 to the power of what stands in the low bits of x, a whole number with a sign.

        By adding to the exponent, which costs less than a multiplication: y and the result must be normal, and NaN may become
        anything.  Fewer `places` than a fraction has bits leave the lowest ones of the whole number to the fraction.
        """

        def generate(context, builder, signature, args):
            power = _raised_bits(builder, args[1], places)
            return builder.bitcast(builder.add(builder.bitcast(args[0], power.type), power), args[0].type)

        return y(y, x), generate

    return times_power


_times_power = _raising()


@intrinsic
def _maximum(typing_context, a, b):
    """LLVM's maximum of two numbers of one type: unlike a comparison it vectorises in a reduction, and NaN wins."""

    def generate(context, builder, signature, args):
        kind = args[0].type
        maximum = builder.module.declare_intrinsic("llvm.maximum", [kind], ir.FunctionType(kind, [kind, kind]))
        return builder.call(maximum, args, fastmath=("nsz",))

    return a(a, a), generate


where = scalar.where


def exp_kept(x, zero):
    """`exp_number` for the CPU alone.

    Of vectors both take powers of 2 from a table, where the machine can look them up, which spares terms of the polynomial.
    With `zero`, a number or the result of `_vector.unknown_zero`, constants become sums that a loop computes once and keeps in
    registers: constants as such LLVM would rather load anew for each vector.
    """
    return scalar.exp_number(x)


@overload(where, target="cpu", jit_options=OPTIONS)
def _choose_where(condition, a, b):
    if isinstance(condition, Vector):
        return lambda condition, a, b: choice(condition, a, b)
    return lambda condition, a, b: a if condition else b


# --- algorithms -------------------------------------------------------------------------------------------------------


def _constants(F: Format, *values: float) -> list[Any]:
    return [F.T(v) for v in values]


def _horner(F: Format, coefficients: tuple[float, ...]) -> tuple[Any, tuple[Any, ...]]:
    """The leading coefficient, and the others in the order of Horner's rule (a loop over them is unrolled)."""
    *others, lead = _constants(F, *coefficients)
    return lead, tuple(others[::-1])


def _split_exp(F: Format, offset: int) -> Callable[..., Any]:
    one, log2e, high, low, rounder = _constants(F, 1, 1 / math.log(2), *F.ln2, F.rounder + offset)
    lead, (second, *others) = _horner(F, F.exp_tail)
    rest = tuple(others)

    def split_exp(x, zero):
        """exp(x) 2**-k for a whole number k, and a number that has k + offset in its low bits; see `exp_kept` for `zero`."""
        shifted = x * (log2e + zero) + (rounder + zero)
        k = shifted - (rounder + zero)
        r = (x - k * (high + zero)) - k * (low + zero)
        y = (lead + zero) * r + (second + zero)
        for c in rest:
            y = y * r + (c + zero)
        return (y * r + (one + zero)) * r + (one + zero), shifted

    return register_jitable(**OPTIONS)(split_exp)


def _exp(F: Format) -> Callable[..., Any]:
    U, fraction, halve, zero = F.U, F.U(F.fraction), F.U(1), F.T(0)
    first, last = _constants(F, *F.exp_domain)
    split_exp = _split_exp(F, 2 * F.bias)

    def exp(x):
        # exp(x) = 2**k exp(r), where k = round(x / ln 2). NaN passes both bounds.
        x = first if first > x else x
        x = last if last < x else x
        y, shifted = split_exp(x, zero)
        # The low bits of `shifted` are k + 2 bias. 2**k is beyond the format where the result is subnormal or nearly
        # infinite, so it comes in two factors, of which only the second rounds.
        i = bits(shifted)
        j = U(i >> halve)
        return y * bits(U(j << fraction)) * bits(U(U(i - j) << fraction))

    return exp


def _raised_exp(F: Format, power: int) -> Callable[..., Any]:
    split_exp, zero = _split_exp(F, F.bias + power), F.T(0)

    def raised_exp(x):
        """exp(x) 2**power, where that is a normal number."""
        y, shifted = split_exp(x, zero)
        return y * _power(shifted)

    return register_jitable(**OPTIONS)(raised_exp)


def _exp_nonpositive(F: Format) -> Callable[..., Any]:
    power = F.bias // 2
    raised_exp = _raised_exp(F, power)
    first, lower = _constants(F, F.exp_domain[0], 2.0**-power)

    def exp_nonpositive(x):
        return raised_exp(where(first > x, first, x)) * lower  # the only rounding where the result is subnormal

    return exp_nonpositive


def _exp_nonpositive_by_table(F: Format) -> Callable[..., Any]:
    power = F.bias // 2
    raised_exp = register_jitable(**OPTIONS)(_exp_by_table(F, power))
    first, lower, zero = _constants(F, F.exp_domain[0], 2.0**-power, 0)

    def exp_nonpositive(x):
        return raised_exp(where(first > x, first, x), zero) * lower

    return exp_nonpositive


def _exp_moderate(F: Format) -> Callable[..., Any]:
    raised_exp = _raised_exp(F, 0)

    def exp_moderate(x):
        return raised_exp(x)

    return exp_moderate


def _exp_kept(F: Format) -> Callable[..., Any]:
    split_exp = _split_exp(F, 0)

    def exp_kept(x, zero):
        y, shifted = split_exp(x, zero)
        return _times_power(y, shifted)

    return exp_kept


def _exp_by_table(F: Format, power: int = 0) -> Callable[..., Any]:
    n = TABLE
    steps, high, low, rounder = _constants(F, n / math.log(2), F.ln2[0] / n, F.ln2[1] / n, F.rounder)
    lead, (second, *others) = _horner(F, (1, *F.narrow_tail))
    rest = tuple(others)
    places = F.fraction - int(math.log2(n))
    # 2**(i/n + power), less what i adds to it among the bits where the whole number that it is part of is added.
    powers = np.exp2(np.arange(n) / n + power).astype(F.T).view(F.U) - (np.arange(n, dtype=F.U) << F.U(places))
    power_of, times_power = entry_of(powers.view(F.T).tolist()), _raising(places)

    def exp_by_table(x, zero):
        """exp(x) 2**power, where that is a normal number."""
        # As in exp, but exp(x) = 2**(k/n) exp(r), where k = round(x n / ln 2).
        shifted = x * (steps + zero) + (rounder + zero)
        k = shifted - (rounder + zero)
        r = (x - k * (high + zero)) - k * (low + zero)
        y = (lead + zero) * r + (second + zero)
        for c in rest:
            y = y * r + (c + zero)
        t = times_power(power_of(shifted), shifted)
        return t * (y * r) + t

    return exp_by_table


def _exp_number(F: Format) -> Callable[..., Any]:
    zero = F.T(0)

    def exp_number(x):
        return exp_kept(x, zero)

    return exp_number


_EXP_KEPT = {types.float32: _exp_kept(FLOAT32), types.float64: _exp_kept(FLOAT64)}
_EXP_BY_TABLE = {types.float32: _exp_by_table(FLOAT32), types.float64: _exp_by_table(FLOAT64)}


def _log1p_unit(F: Format) -> Callable[..., Any]:
    lead, (second, *others) = _horner(F, F.unit_tail)
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


def _log1p_unit_by_table(F: Format) -> Callable[..., Any]:
    # log1p(x) = log1p(c) + log1p(r), where r = (x - c) / (1 + c), and c is so short that x - c is exact.
    near = np.array(F.near_points) / 1024
    point_of, reciprocal_of, logarithm_of = (
        entry_of(table.astype(F.T).astype(float).tolist()) for table in (near, 1 / (1 + near), np.log1p(near))
    )
    steps, rounder = _constants(F, TABLE - 1, F.rounder)
    lead, (second, *others) = _horner(F, F.near_tail)
    rest = tuple(others)

    def log1p_unit(x):
        i = x * steps + rounder
        r = (x - point_of(i)) * reciprocal_of(i)
        tail = lead * r + second
        for c in rest:
            tail = tail * r + c
        return (r * r * tail + r) + logarithm_of(i)

    return log1p_unit


def _expm1(F: Format) -> Callable[..., Any]:
    half, two, log2e, high, low = _constants(F, 0.5, 2, 1 / math.log(2), *F.ln2)
    first, last, tiny = _constants(F, F.expm1_low, F.exp_domain[1], 2.0 ** -(F.fraction + 2))
    lead, rest = _horner(F, F.expm1_tail)
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
        h = _power(shifted)
        # As in exp the largest part, which is h a + (h - 1/2), keeps its rounding error.
        base = h - half
        ha = h * a
        s = base + ha
        result = two * (s + ((ha - (s - base)) + h * (tail * (r * r) - b)))
        # x**2 / 2 is nothing beside x here, and halving a subnormal number would lose its last bit.
        return x if abs(x) < tiny else result

    return expm1


def _polynomial_tail(F: Format) -> Callable[..., Any]:
    half = F.T(0.5)
    lead, rest = _horner(F, F.log_tail)

    def log1p_tail(f):
        """log1p(f) - f, by a polynomial."""
        tail = lead
        for c in rest:
            tail = tail * f + c
        return f * (f * (f * tail - half))

    return register_jitable(**OPTIONS)(log1p_tail)


def _quotient_tail(F: Format) -> Callable[..., Any]:
    half, two = _constants(F, 0.5, 2)
    lead, rest = _horner(F, F.log_tail)

    def log1p_tail(f):
        """log1p(f) - f, by log1p(f) = 2 atanh(f / (2 + f)): one division saves a dozen terms."""
        s = f / (two + f)
        z = s * s
        tail = lead
        for c in rest:
            tail = tail * z + c
        h = half * f * f
        return s * (h + z * tail) - h

    return register_jitable(**OPTIONS)(log1p_tail)


def _exponent(F: Format) -> tuple[Callable[..., Any], float]:
    """A function that makes a float of a signed exponent in its place among the bits, and the unit of that float."""
    if F is FLOAT32:

        def direct(e):
            return np.float32(np.int32(e))

        return register_jitable(**OPTIONS)(direct), 2.0**-F.fraction

    U, fraction = F.U, F.U(F.fraction)
    lift = U(1 << 62)  # makes it positive, for the logical shift
    frame = U(np.float64(2.0**F.fraction).view(U))  # its low bits count ones
    offset = F.T(2.0**F.fraction + 2.0 ** (62 - F.fraction))

    def exponent(e):
        return bits((e + lift) >> fraction | frame) - offset

    return register_jitable(**OPTIONS)(exponent), 1.0


def _logarithmic(F: Format) -> tuple[Any, ...]:
    """What log and log1p share."""
    root = np.sqrt(F.T(0.5)).view(F.U)
    mask = F.T(-math.inf).view(F.U)  # sign and exponent
    return F.U, (root, mask), *_exponent(F), _polynomial_tail(F) if F is FLOAT32 else _quotient_tail(F)


def _decomposed(F: Format) -> Callable[..., Any]:
    U, (root, mask), exponent, unit, _ = _logarithmic(F)
    zero, one = _constants(F, 0, 1)
    lift, lifted = _constants(F, 2.0 ** (F.fraction + 1), (F.fraction + 1) / unit)
    normal = np.finfo(F.T).tiny

    def decomposed(x):
        """k and f of x = 2**k (1 + f), where 1 + f lies between the square roots of 1/2 and 2; k in `_exponent`'s unit."""
        subnormal = x < normal
        i = bits(x * lift if subnormal else x)
        e = U(U(i - root) & mask)
        return exponent(e) - (lifted if subnormal else zero), bits(U(i - e)) - one

    return register_jitable(**OPTIONS)(decomposed)


def _log(F: Format) -> Callable[..., Any]:
    _, _, _, unit, log1p_tail = _logarithmic(F)
    decomposed = _decomposed(F)
    zero, minus_inf, inf, nan = _constants(F, 0, -math.inf, math.inf, math.nan)
    high, low = _constants(F, F.ln2[0] * unit, F.ln2[1] * unit)

    def log(x):
        # k high + f keeps its rounding error: where they are of opposite signs, they cancel in part.
        k, f = decomposed(x)
        k_high = k * high
        s = k_high + f
        y = s + (log1p_tail(f) + ((f - (s - k_high)) + k * low))
        y = y if x < inf else x
        return y if x > zero else (minus_inf if x == zero else nan)

    return log


def _log_half(F: Format) -> Callable[..., Any]:
    _, _, _, unit, log1p_tail = _logarithmic(F)
    decomposed = _decomposed(F)
    zero, inf = _constants(F, 0, math.inf)
    high, low = _constants(F, F.ln2[0] * unit, F.ln2[1] * unit)

    def log_half(x):
        # As log, but here k high is at least twice as large as f, so that their sum needs no rounding error.
        k, f = decomposed(x)
        y = k * high + (f + (log1p_tail(f) + k * low))
        return y if x > zero else x - inf

    return log_half


def _log1m_half(F: Format) -> Callable[..., Any]:
    *_, log1p_tail = _logarithmic(F)
    zero, one, middle, ln2 = _constants(F, 0, 1, 1 - math.sqrt(0.5), math.log(2))

    def log1m_half(x):
        # log(2 (1 - x)) - log 2 where that has the smaller argument; 1 - 2x is exact there.
        upper = x > middle
        f = one - (x + x) if upper else -x
        return (f + log1p_tail(f)) - (ln2 if upper else zero)

    return log1m_half


def _log1p(F: Format) -> Callable[..., Any]:
    U, split, exponent, unit, log1p_tail = _logarithmic(F)
    half, one, minus_one, minus_inf, inf, nan = _constants(F, 0.5, 1, -1, -math.inf, math.inf, math.nan)
    high, low = _constants(F, F.ln2[0] * unit, F.ln2[1] * unit)
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


# --- registration -----------------------------------------------------------------------------------------------------


_Make = Callable[[Format], Callable[..., Any]]


def _attach(function: Callable[..., Any], make: _Make, by_table: _Make | None = None) -> None:
    implementations = {types.float32: make(FLOAT32), types.float64: make(FLOAT64)}
    tabled = implementations if by_table is None else {types.float32: by_table(FLOAT32), types.float64: by_table(FLOAT64)}

    def choose(x):
        if x in implementations:
            return implementations[x]
        if isinstance(x, Vector):
            return (tabled if has_tables() else implementations)[x.dtype]
        if isinstance(x, types.Integer):
            return lambda x: function(np.float64(x))
        return None

    overload(function, target="cpu", jit_options=OPTIONS)(choose)


_attach(scalar.exp, _exp)
_attach(scalar.exp_nonpositive, _exp_nonpositive, _exp_nonpositive_by_table)
_attach(scalar.exp_moderate, _exp_moderate)
_attach(scalar.exp_number, _exp_number)
_attach(scalar.expm1, _expm1)
_attach(scalar.log, _log)
_attach(scalar.log1p, _log1p)
_attach(scalar.log1p_unit, _log1p_unit, _log1p_unit_by_table)
_attach(scalar.log_half, _log_half)
_attach(scalar.log1m_half, _log1m_half)


@overload(exp_kept, target="cpu", jit_options=OPTIONS)
def _choose_exp_kept(x, zero):
    if isinstance(x, Vector):
        return (_EXP_BY_TABLE if has_tables() else _EXP_KEPT)[x.dtype]
    return _EXP_KEPT[x]


@overload(scalar.maximum, target="cpu", jit_options=OPTIONS)
def _choose_maximum(a, b):
    if a == b and isinstance(a, types.Float):
        return lambda a, b: _maximum(a, b)
    if isinstance(a, types.Number) and isinstance(b, types.Number):
        return lambda a, b: _maximum(np.float64(a), np.float64(b))
    return None
