"""Kullback-Leibler divergence of log-probabilities from a target distribution."""

from .._scalar import exp, log, product, where
from .._spec import REDUCTIONS, Fact, Math, elementwise


def point(x, t):
    T = type(x)
    d = where(t != T(0), log(t), T(0)) - x  # t = 0 contributes nothing, even where x is -inf
    return product(t, d), -t


def target_slope(x, t):
    T = type(x)
    return log(t) + T(1) - x


def curvature(x, t):
    T = type(x)
    return T(0)


def point_log(x, t):
    T = type(x)
    p = exp(t)
    d = where(t != x, t - x, T(0))  # equal infinities are equal
    return product(p, d), -p


def target_slope_log(x, t):
    T = type(x)
    d = t - x
    return product(exp(t), (d if t != x else T(0)) + T(1))


def reference(x, t, log_target=False):
    import numpy as np
    from scipy.special import xlogy

    return np.exp(t) * (t - x) if log_target else xlogy(t, t) - t * x


@elementwise(
    point,
    target_slope=target_slope,
    curvature=curvature,
    vectors=True,
    variants={"log_target": Math(point_log, target_slope_log, curvature, vectors=True)},
    reductions=(*REDUCTIONS, "batchmean"),
    shapes="broadcast",
    module="KLDivLoss",
    reference=reference,
    facts=(
        Fact(
            [[-1.3859393177, -0.8859393177, -1.0859393177], [-1.3119014326, -1.1119014326, -0.9119014326]],
            [[0.3, 0.4, 0.3], [0.1, 0.5, 0.4]],
            0.05779619,
            {"reduction": "batchmean"},
        ),
    ),
)
def kl_div(input, target, size_average=None, reduce=None, reduction="mean", log_target=False):
    """Kullback-Leibler divergence KL(target || input), from log-probabilities.

    The loss of one element is ``t (log t - x)``, and with `log_target` it is ``exp(t) (t - x)``.  Mind the order, which is
    torch's: the first argument holds the *logarithms* of the model's probabilities, the second the target distribution.

    Parameters
    ----------
    input : array_like of float, any shape
        Log-probabilities x of the model.
    target : array_like
        Probabilities t, or their logarithms if `log_target`; broadcasts with `input`.
    size_average, reduce : bool, optional
        Deprecated; use `reduction`.
    reduction : {'mean', 'batchmean', 'sum', 'none'}
        'batchmean' divides by the length of the first axis of `input` and is the divergence itself; 'mean' divides by the
        number of elements.
    log_target : bool
        Whether `target` holds logarithms.

    Returns
    -------
    scalar or ndarray
        The reduced loss, in the precision of the arguments; for 'none' an array of the broadcast shape.

    Raises
    ------
    ValueError
        The shapes do not broadcast; `reduction` is unknown.
    TypeError
        An argument is complex, a string or an object.

    Notes
    -----
    Gradient with respect to the input: ``-t``, or ``-exp(t)``; with respect to the target: ``log t + 1 - x``, or
    ``exp(t) (t - x + 1)``; second derivative with respect to the input: 0.  An element with t = 0 counts as 0 and a
    negative t as NaN.

    References
    ----------
    S. Kullback, R. A. Leibler, On information and sufficiency, Annals of Mathematical Statistics 22, 1951.

    Examples
    --------
    >>> import nlosses as nl
    >>> log_q = nl.log_softmax([[0.5, 1.0, 0.8], [0.2, 0.4, 0.6]], axis=1)
    >>> print(f"{nl.kl_div(log_q, [[0.3, 0.4, 0.3], [0.1, 0.5, 0.4]], reduction='batchmean'):.8f}")
    0.05779619
    """
