"""The scalar functions that losses are written with.

Plain Python on `math`, so that a loss can be read, debugged and checked in the interpreter. Two kinds live here. The
*primitives* are replaced by every target (CPU, CUDA) with an implementation of its own; the bodies below are their
definition. The *compositions* are written once and compiled by every target as they stand, hence their style:
constants in the caller's precision (``T(2)``, for a bare ``2.0`` would turn float32 into float64 in compiled code), and
no branches, only choices between values already computed, for a branch would keep the loop around it from
vectorising.

Arguments are Python floats or NumPy floating scalars and the result has the argument's type. Nothing here raises:
overflow gives an infinity, a point outside the domain NaN. On NumPy scalars the compositions may draw NumPy's
floating-point warnings where they pass through an infinity; ``numpy.errstate`` silences them.

Accuracy is stated in ulp (units in the last place) of the result, holds for float32 and float64 over the whole range,
subnormal numbers included, and is asserted by the tests.
"""

import math

import numpy as np

#: Up to this size exp(x) and exp(-x) are normal numbers, in float32 too.
MODERATE = 87.0


def _as(x, value):
    """Return `value` rounded to the type of `x`; integers count as float."""
    with np.errstate(all="ignore"):
        return type(x * 1.0)(value)


# --- primitives: each target brings its own ---------------------------------------------------------------------------


def exp(x):
    """Exponential function, within 1.1 ulp.

    Underflow is gradual, overflow gives infinity.
    """
    try:
        return _as(x, math.exp(x))
    except OverflowError:
        return _as(x, math.inf)


def exp_nonpositive(x):
    """Exponential function of `x` <= 0, within 1.1 ulp: `exp` at two thirds of the cost.

    Underflow is gradual. Above 0 the result is undefined.
    """
    return exp(x)


def exp_moderate(x):
    """Exponential function of `x` within plus and minus `MODERATE`, within 1.1 ulp: `exp` at half of the cost.

    Beyond the result is undefined.
    """
    return exp(x)


def exp_number(x):
    """Exponential function of a number `x` within plus and minus `MODERATE`, within 1.1 ulp: the cheapest of all.

    Beyond, and of NaN, the result is undefined.
    """
    return exp(x)


def log(x):
    """Natural logarithm, within 1.1 ulp.

    ``log(0)`` is -inf, the logarithm of a negative number NaN.
    """
    if x > 0:
        return _as(x, math.log(x))
    return _as(x, -math.inf if x == 0 else math.nan)


def log1p(x):
    """Natural logarithm of 1 + `x`, within 1.1 ulp, also for tiny `x`.

    ``log1p(-1)`` is -inf, below that NaN; the sign of a zero is kept.
    """
    if x > -1:
        return _as(x, math.log1p(x))
    return _as(x, -math.inf if x == -1 else math.nan)


def log1p_unit(x):
    """Natural logarithm of 1 + `x` for 0 <= `x` <= 1, within 1.5 ulp: `log1p` at a third of the cost.

    Beyond 1 the result is undefined.
    """
    return log1p(x)


def log_half(x):
    """Natural logarithm of 0 <= `x` <= 1/2, within 1.5 ulp: `log` at two thirds of the cost.

    ``log_half(0)`` is -inf. Beyond 1/2, and below 0, the result is undefined.
    """
    return log(x)


def log1m_half(x):
    """Natural logarithm of 1 - `x` for 0 <= `x` <= 1/2, within 1.5 ulp: ``log1p(-x)`` at half of the cost.

    Beyond 1/2, and below 0, the result is undefined.
    """
    return log1p(_as(-x, -x))


def expm1(x):
    """Exponential of `x`, minus 1, within 1.2 ulp, also for tiny `x`.

    Overflow gives infinity; the sign of a zero is kept.
    """
    try:
        return _as(x, math.expm1(x))
    except OverflowError:
        return _as(x, math.inf)


def maximum(a, b):
    """Return the larger of `a` and `b`, exactly; NaN if either is NaN."""
    if a != a or b != b:
        return a + b
    return a if a > b else b


def where(condition, a, b):
    """Return `a` if `condition` holds, else `b`.

    Functions that are compiled for vectors, lane by lane, choose with it: there is no one condition to go by.
    """
    return a if condition else b


PRIMITIVES = (
    exp,
    exp_nonpositive,
    exp_moderate,
    exp_number,
    log,
    log1p,
    log1p_unit,
    log_half,
    log1m_half,
    expm1,
    maximum,
    where,
)


# --- compositions: written once, compiled by every target -------------------------------------------------------------


def tanh(x):
    """Hyperbolic tangent, within 2 ulp.

    With t = expm1(2 abs(x)) it is t / (t + 2), and 1 - 2 / (t + 2) where that loses nothing: the second form survives
    the overflow of t.
    """
    T = type(x)
    a = abs(x)
    t = expm1(a + a)
    s = t + T(2)
    small = t < T(2)
    ratio = (t if small else T(2)) / s
    lost = t - (s - T(2))  # by the rounding of s
    y = ratio - ratio * (T(0.5) * lost) if small else T(1) - ratio
    y = y if x > T(0) else -y
    return y if a > T(0) else x  # keeps the sign of a zero, and NaN


def sigmoid(x):
    """Logistic function 1 / (1 + exp(-x)), within 2 ulp in both tails.

    Notes
    -----
    1 - sigmoid(x) is sigmoid(-x). Written the first way it cancels.
    """
    T = type(x)
    e = exp_nonpositive(-abs(x))
    s = T(1) + e
    ratio = (T(1) if x >= T(0) else e) / s
    lost = e - (s - T(1))  # by the rounding of s
    return ratio - ratio * lost


def softplus(x):
    """Return log(1 + exp(x)), within 2 ulp, without overflow."""
    T = type(x)
    positive = x if x > T(0) else T(0)
    return positive + log1p_unit(exp_nonpositive(-abs(x)))


def log_sigmoid(x):
    """Return log(sigmoid(x)) = -softplus(-x), within 2 ulp."""
    T = type(x)
    negative = x if x < T(0) else T(0)
    return negative - log1p_unit(exp_nonpositive(-abs(x)))


def xlogy(a, y):
    """Return a log(y), within 2 ulp, and 0 where `a` is 0, whatever `y` is unless NaN."""
    t = a * log(y)
    T = type(t)
    return t if (a != T(0)) | (y != y) else T(0)


def product(a, y):
    """Return a y, exactly rounded, and 0 where `a` is 0, even if `y` is infinite; NaN if either is NaN."""
    ay = a * y
    T = type(ay)
    return where((a != T(0)) | (y != y), ay, T(0))


def exp_difference(a, b):
    """Return exp(a - b), within 2 ulp of the exponential of the exact difference.

    Rounding a - b alone would cost up to abs(a - b) / 2 ulp. What is lost, which further subtractions recover exactly,
    goes in as the factor exp(lost) = 1 + lost.

    Notes
    -----
    exp_difference(-inf, b) is 0 and exp_difference(b, b) is 1 for finite b; infinities of one sign give NaN.
    """
    d = a - b
    T = type(d)
    z = d - a
    lost = (a - (d - z)) - (b + z)
    e = exp(d)
    change = e * lost
    # Wherever e is neither 0 nor infinite, `lost` is far below 1. Elsewhere it may be anything, NaN included.
    return e + (change if abs(change) < e else T(0))


def exp_below(a, b):
    """Return exp(a - b) for `a` <= `b`, as `exp_difference`, at two thirds of its cost.

    Notes
    -----
    exp_below(a, b) is 0 where a is -inf or b is inf, but NaN where both are infinite and alike. For `a` > `b` the result
    is undefined.
    """
    d = a - b
    T = type(d)
    z = d - a
    error = (a - (d - z)) - (b + z)
    # Of a d that is infinite the error is NaN, and of a huge one huge, but then exp(d) is 0: any finite factor will do.
    error = error if error > T(-1) else T(-1)
    return exp_nonpositive(d) * (T(1) + error)


COMPOSITIONS = (tanh, sigmoid, softplus, log_sigmoid, xlogy, product, exp_difference, exp_below)
