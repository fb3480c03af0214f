"""Binary cross entropy of logits."""

from .._scalar import exp_nonpositive, exp_number, log1p_unit, product, where
from .._spec import Fact, elementwise


def factors(x, t, a):
    """Of the part of the value that grows with abs(x), and of the other; with the sign of the slope that comes of each."""
    above = x > type(x)(0)
    b = type(x)(1) - t
    return where(above, b, -a), where(above, -a, b)


def slope(wrong, right, e):
    """The derivative, in terms of which none cancels: sigmoid(x) - t would, and is 0 from abs(x) = 17 on."""
    return (wrong + right * e) / (type(e)(1) + e)


def point(x, t, pos_weight):
    T = type(x)
    e = exp_nonpositive(-abs(x))
    a = t if pos_weight is None else pos_weight * t
    wrong, right = factors(x, t, a)
    rest = log1p_unit(e)  # softplus(-|x|)
    rest = rest if pos_weight is None else (a + (T(1) - t)) * rest
    linear = where(wrong != T(0), wrong * x, T(0))  # an infinite logit on the right side costs nothing
    return rest + linear, slope(wrong, right, e)


def summand(x, t):
    e = exp_number(-abs(x))
    wrong, right = factors(x, t, t)
    return wrong * x, e, slope(wrong, right, e)


def target_slope(x, t, pos_weight):
    """pos_weight softplus(-x) - softplus(x), arranged so that pos_weight = 1 gives -x exactly."""
    if pos_weight is None:
        return -x
    T = type(x)
    rest = log1p_unit(exp_nonpositive(-abs(x)))
    return (pos_weight - T(1)) * rest - product(pos_weight if x < T(0) else T(1), x)


def curvature(x, t, pos_weight):
    T = type(x)
    e = exp_nonpositive(-abs(x))
    big = T(1) / (T(1) + e)
    both = T(1) if pos_weight is None else pos_weight * t + (T(1) - t)
    return both * (e * big * big)


def reference(x, t, pos_weight=1.0):
    from scipy.special import log_expit

    return -(pos_weight * t * log_expit(x) + (1 - t) * log_expit(-x))


@elementwise(
    point,
    target_slope=target_slope,
    curvature=curvature,
    summand=summand,
    vectors=True,
    module="BCEWithLogitsLoss",
    reference=reference,
    facts=(Fact([[0.5, 1.0, 0.8], [0.2, 0.4, 0.6]], [[0, 1, 0], [0, 0, 1]], 0.76784690),),
)
def binary_cross_entropy_with_logits(
    input, target, weight=None, size_average=None, reduce=None, reduction="mean", pos_weight=None
):
    """Binary cross entropy between sigmoid(input) and targets, in one step.

    With ``s(x) = log(1 + exp(x))``, the loss of one element is ``w (pos_weight t s(-x) + (1 - t) s(x))``.  Its
    relative accuracy holds for every finite logit.

    Parameters
    ----------
    input : array_like of float, any shape
        Logits x.
    target : array_like, shape of `input`
        Targets t, usually in [0, 1] (not checked); floating, integer or bool.
    weight : array_like, optional
        Factor w of each element; broadcasts to the shape of `input`.
    size_average, reduce : bool, optional
        Deprecated; use `reduction`.
    reduction : {'mean', 'sum', 'none'}
        'mean' divides by the number of elements, whatever the weights are.
    pos_weight : array_like, optional
        Factor of the positive part; broadcasts to the shape of `input`.

    Returns
    -------
    scalar or ndarray
        The reduced loss, in the precision of the arguments; for 'none' an array of the shape of `input`.

    Raises
    ------
    ValueError
        The shapes do not fit; `reduction` is unknown.
    TypeError
        An argument is complex, a string or an object.

    Notes
    -----
    Gradient with respect to the input: ``w ((1 - t) sigmoid(x) - pos_weight t sigmoid(-x))``; with respect to the target:
    ``w (pos_weight s(-x) - s(x))``, which is ``-w x`` without `pos_weight`; second derivative:
    ``w (pos_weight t + 1 - t) sigmoid(x) sigmoid(-x)``.  At infinite logits a term whose factor is 0 counts as 0.

    References
    ----------
    M. Maechler, Accurately computing log(1 - exp(-|a|)), Rmpfr vignette, 2012, for the branches of softplus.

    Examples
    --------
    >>> import nlosses as nl
    >>> loss, grad = nl.binary_cross_entropy_with_logits.value_and_grad([0.0, -100.0], [1, 0], reduction="sum")
    >>> print(f"{loss:.6f} {grad[0]:.2f} {grad[1]:.3e}")
    0.693147 -0.50 3.720e-44
    """
