"""Binary cross entropy of probabilities."""

import math

from .._scalar import log, log1m_half, log1p, log_half, where
from .._spec import UNIT, Fact, elementwise

LOG_LIMIT = 100.0  # -log(p) is limited to this, so that one wrong certain prediction cannot make a mean infinite
SMALLEST_VARIANCE = 9.999999960041972e-13  # 1e-12 as a float32: the floor that torch puts under x (1 - x)


def point(x, t):
    T = type(x)
    upper, y, s, least = x > T(0.5), T(1) - x, T(1) - t, T(-LOG_LIMIT)
    p = where(upper, y, x)  # the smaller one of both probabilities, without a rounding
    log_p = log_half(p)
    log_p = where(log_p > least, log_p, least)
    return -(where(upper, s, t) * log_p + where(upper, t, s) * log1m_half(p)), (x - t) / variance(x)


def summand(x, t):
    """With the odds of the smaller probability, whose logarithm and that of 1 + odds are all that is asked for."""
    T = type(x)
    upper, y, s, most = x > T(0.5), T(1) - x, T(1) - t, T(LOG_LIMIT)
    odds = where(upper, y, x) / where(upper, x, y)
    surprisal = -log(odds)
    surprisal = where(surprisal < most, surprisal, most)
    return where(upper, s, t) * surprisal, odds, (x - t) / variance(x)


def binary(x, t):
    """With the odds against what came: infinite where the limits of `point` might be reached."""
    T = type(x)
    d, v, floor = x - t, x * (T(1) - x), T(SMALLEST_VARIANCE)
    enough, o = v > floor, abs(d)
    slope = d / where(enough, v, floor)
    beyond = where(o > T(0.5), T(math.inf), o + o * o)
    return where(enough, d * slope, beyond), slope


def variance(x):
    T = type(x)
    v, floor = x * (T(1) - x), T(SMALLEST_VARIANCE)
    return where(v > floor, v, floor)


def target_slope(x, t):
    """-logit(x); around one half, where log(1 - x) - log(x) would cancel, by log1p of the distance from it."""
    T = type(x)
    d = T(1) - (x + x)
    upper = d <= T(0)
    near = log1p((-d if upper else d) / (T(1) - x if upper else x))
    return -near if upper else (near if x > T(0.25) else log1p(-x) - log(x))


def curvature(x, t):
    T = type(x)
    y = T(1) - x
    v = x * y
    floor = T(SMALLEST_VARIANCE)
    exact = t / (x * x) + (T(1) - t) / (y * y)
    return exact if v > floor else T(1) / floor


def reference(x, t):
    from scipy.special import xlog1py, xlogy

    return -(xlogy(t, x) + xlog1py(1 - t, -x))


@elementwise(
    point,
    target_slope=target_slope,
    curvature=curvature,
    summand=summand,
    binary=binary,
    vectors=True,
    input=UNIT,
    target=UNIT,
    module="BCELoss",
    reference=reference,
    facts=(
        Fact([[0.5, 1.0, 0.8], [0.2, 0.4, 0.6]], [[0, 1, 0], [0, 0, 1]], 0.59122998),
        Fact(
            [[0.5, 1.0, 0.8], [0.2, 0.4, 0.6]],
            [[0, 1, 0], [0, 0, 1]],
            0.12723308,
            {"weight": [[0.1, 0.9, 0.1], [0.1, 0.1, 0.9]]},
        ),
        Fact([0.54983400, 0.59868766, 0.64565631], [0, 1, 1], 0.58288069, digits=7),
    ),
)
def binary_cross_entropy(input, target, weight=None, size_average=None, reduce=None, reduction="mean"):
    """Binary cross entropy between probabilities and targets.

    The loss of one element is ``-w (t log x + (1 - t) log(1 - x))``, where each logarithm is limited to -100 from below.
    Take `binary_cross_entropy_with_logits` where the probabilities come from a sigmoid: it is faster and keeps the
    accuracy that a probability near 1 has already lost.

    Parameters
    ----------
    input : array_like of float, any shape
        Probabilities x in [0, 1].
    target : array_like, shape of `input`
        Targets t in [0, 1]; floating, integer or bool.
    weight : array_like, optional
        Factor w of each element; broadcasts to the shape of `input`.
    size_average, reduce : bool, optional
        Deprecated; use `reduction`.
    reduction : {'mean', 'sum', 'none'}
        'mean' divides by the number of elements, whatever the weights are.

    Returns
    -------
    scalar or ndarray
        The reduced loss, in the precision of the arguments; for 'none' an array of the shape of `input`.

    Raises
    ------
    ValueError
        An element of `input` or `target` lies outside [0, 1] or is NaN; the shapes differ; `reduction` is unknown.
    TypeError
        An argument is complex, a string or an object.

    Notes
    -----
    Gradient with respect to the input: ``w (x - t) / max(x (1 - x), 1e-12)``; with respect to the target:
    ``-w log(x / (1 - x))``; second derivative: ``w (t / x**2 + (1 - t) / (1 - x)**2)``, and 1e12 where x (1 - x) is below
    1e-12, as the gradient has it there.

    References
    ----------
    C. M. Bishop, Pattern Recognition and Machine Learning, 2006, equation 4.90.

    Examples
    --------
    >>> import nlosses as nl
    >>> x, t = [[0.5, 1.0, 0.8], [0.2, 0.4, 0.6]], [[0, 1, 0], [0, 0, 1]]
    >>> print(f"{nl.binary_cross_entropy(x, t):.8f}")
    0.59122998
    """
