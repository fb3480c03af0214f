"""The two floating-point formats, their polynomials, and what reaches into the bits of their numbers."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from ._vector import whole


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
    upper_points: tuple[int, ...]  #: k near 1024 i / 15 whose log1p(k / 1024) is nearest to a number of the format
    lower_points: tuple[int, ...]  #: k near 2048 i / 30 whose log1p(-k / 2048) is
    wide_tail: tuple[float, ...]  #: as `near_tail`, for -1/32 <= x <= 1/16
    reciprocals: tuple[str, ...]  #: of numbers near the middle of 16 parts of [1, 1.5), then of [0.75, 1); their logarithms
    log_grid: int  #: are nearly multiples of 2**-log_grid

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
    upper_points=(0, 70, 138, 204, 273, 343, 411, 477, 547, 616, 682, 749, 817, 888, 956, 1024),
    lower_points=(0, 66, 141, 203, 274, 342, 406, 476, 541, 611, 678, 753, 816, 890, 952, 1006),
    wide_tail=(-0.5, 0.33334434, -0.25007322, 0.18865225),  # 2**-28.3
    reciprocals=(
        "0x1p+0",
        "0x1.d47b24p-1",
        "0x1.b9b7f4p-1",
        "0x1.a49908p-1",
        "0x1.8f8434p-1",
        "0x1.7deac0p-1",
        "0x1.6bf76cp-1",
        "0x1.5bc826p-1",
        "0x1.4ee3bap+0",
        "0x1.41f962p+0",
        "0x1.35c0c0p+0",
        "0x1.298142p+0",
        "0x1.1f36dep+0",
        "0x1.1578e6p+0",
        "0x1.0bc4b2p+0",
        "0x1p+0",
    ),
    log_grid=17,
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
    upper_points=(0, 70, 135, 204, 273, 340, 409, 478, 546, 616, 684, 753, 817, 885, 955, 1022),
    lower_points=(0, 68, 135, 205, 271, 345, 407, 478, 543, 609, 680, 750, 820, 888, 958, 1006),
    wide_tail=(  # 2**-56.6
        -0.5000000000000003, 0.33333333333347487, -0.24999999999813988, 0.1999999992744005, -0.1666666623447619,
        0.14285821185023873, -0.1250183931026413, 0.11070485654383579, -0.08738659866709486,
    ),
    reciprocals=(
        "0x1p+0", "0x1.d4541c3122d92p-1", "0x1.baae4b103ed95p-1", "0x1.a44a378702720p-1", "0x1.8f884aba63879p-1",
        "0x1.7d2ee7c6a2aabp-1", "0x1.6c393e9e1a565p-1", "0x1.5c87cbf8c3806p-1", "0x1.4e53bf7125f4fp+0",
        "0x1.41245baa395d7p+0", "0x1.351fb49466fbap+0", "0x1.29e1efb2c1462p+0", "0x1.1f7f3348bea5dp+0",
        "0x1.15b9c64d92dfap+0", "0x1.0ca53296f4aa8p+0", "0x1p+0",
    ),
    log_grid=42,
)  # fmt: skip


def constants(F: Format, *values: float) -> list[Any]:
    return [F.T(v) for v in values]


def horner(F: Format, coefficients: tuple[float, ...]) -> tuple[Any, tuple[Any, ...]]:
    """The leading coefficient, and the others in the order of Horner's rule (a loop over them is unrolled)."""
    *others, lead = constants(F, *coefficients)
    return lead, tuple(others[::-1])


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


def _shifted(builder, shift, x, places):
    kind = whole(x.type)
    count = ir.Constant(kind, [places] * kind.count if isinstance(kind, ir.VectorType) else places)
    return getattr(builder, shift)(builder.bitcast(x, kind), count)


def _raised_bits(builder, x, places=None):
    """The bits of a number, or of those of a vector, so many places higher; by default those of an exponent."""
    if places is None:
        kind = whole(x.type)
        places = {32: FLOAT32.fraction, 64: FLOAT64.fraction}[getattr(kind, "element", kind).width]
    return _shifted(builder, "shl", x, places)


def lowering(places):
    @intrinsic
    def lowered(typing_context, x):
        """The bits of a number, or of those of a vector, so many places lower."""

        def generate(context, builder, signature, args):
            return builder.bitcast(_shifted(builder, "lshr", args[0], places), args[0].type)

        return x(x), generate

    return lowered


@intrinsic
def power_of_two(typing_context, x):
    """2 to the power of what stands in the low bits of x, less the bias; of a number or a vector."""

    def generate(context, builder, signature, args):
        return builder.bitcast(_raised_bits(builder, args[0]), args[0].type)

    return x(x), generate


def raising(places=None):
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


times_power = raising()
