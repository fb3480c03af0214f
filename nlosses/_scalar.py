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


def _as(x, value):
    """Return `value` rounded to the type of `x`; integers count as float."""
    with np.errstate(all="ignore"):
        return type(x * 1.0)(value)


# --- primitives: each target brings its own ---------------------------------------------------------------------------


def exp(x):
    """Exponential function, within 1 ulp.

    Underflow is gradual, overflow gives infinity.
    """
    try:
        return _as(x, math.exp(x))
    except OverflowError:
        return _as(x, math.inf)


def log(x):
    """Natural logarithm, within 1 ulp.

    ``log(0)`` is -inf, the logarithm of a negative number NaN.
    """
    if x > 0:
        return _as(x, math.log(x))
    return _as(x, -math.inf if x == 0 else math.nan)


def log1p(x):
    """Natural logarithm of 1 + `x`, within 1 ulp, also for tiny `x`.

    ``log1p(-1)`` is -inf, below that NaN; the sign of a zero is kept.
    """
    if x > -1:
        return _as(x, math.log1p(x))
    return _as(x, -math.inf if x == -1 else math.nan)


def expm1(x):
    """Exponential of `x`, minus 1, within 1.1 ulp, also for tiny `x`.

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


PRIMITIVES = (exp, log, log1p, expm1, maximum)


# --- compositions: written once, compiled by every target -------------------------------------------------------------


def tanh(x):
    """Hyperbolic tangent, within 2 ulp.

    With t = expm1(2 abs(x)) it is t / (t + 2), or 1 - 2 / (t + 2) once that is the smaller error: the second form
    also survives the overflow of t.
    """
    T = type(x)
    a = abs(x)
    t = expm1(a + a)
    small = t < T(2)
    ratio = (t if small else T(2)) / (t + T(2))
    y = ratio if small else T(1) - ratio
    y = y if x > T(0) else -y
    return y if a > T(0) else x  # keeps the sign of a zero, and NaN


def sigmoid(x):
    """Logistic function 1 / (1 + exp(-x)), within 2 ulp in both tails.

    Notes
    -----
    1 - sigmoid(x) is sigmoid(-x): written the first way, the right tail cancels.
    """
    T = type(x)
    e = exp(-abs(x))
    return (T(1) if x >= T(0) else e) / (T(1) + e)


def softplus(x):
    """Return log(1 + exp(x)), within 2 ulp, without overflow."""
    T = type(x)
    positive = x if x > T(0) else T(0)
    return positive + log1p(exp(-abs(x)))


def log_sigmoid(x):
    """Return log(sigmoid(x)) = -softplus(-x), within 2 ulp."""
    T = type(x)
    negative = x if x < T(0) else T(0)
    return negative - log1p(exp(-abs(x)))


def xlogy(a, y):
    """Return a log(y), within 2 ulp, and 0 where `a` is 0, whatever `y` is unless NaN."""
    t = a * log(y)
    T = type(t)
    return t if a != T(0) or y != y else T(0)


def product(a, y):
    """Return a y, exactly rounded, and 0 where `a` is 0, even if `y` is infinite; NaN if either is NaN."""
    ay = a * y
    T = type(ay)
    return ay if a != T(0) or y != y else T(0)


def exp_difference(a, b):
    """Return exp(a - b), within 2 ulp of the exponential of the exact difference.

    Rounding a - b alone would cost abs(a - b) / 2 ulp. The rounding error, which two more subtractions recover exactly,
    goes in as the factor exp(error) = 1 + error.

    Notes
    -----
    exp_difference(-inf, b) is 0 and exp_difference(b, b) is 1 for finite b; both infinite and alike is NaN.
    """
    d = a - b
    T = type(d)
    z = d - a
    error = (a - (d - z)) - (b + z)
    # Where exp(d) is neither 0 nor infinity, d is below 746 and its error below 2**-15; what lies above belongs to a d
    # that is infinite (the error is then NaN) or so large that the factor, which may be negative, must not be applied.
    error = error if abs(error) < T(0.5) else T(0)
    return exp(d) * (T(1) + error)


COMPOSITIONS = (tanh, sigmoid, softplus, log_sigmoid, xlogy, product, exp_difference)
