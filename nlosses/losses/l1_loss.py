"""Absolute error."""

from .._scalar import where
from .._spec import Fact, elementwise


def point(x, t):
    r = x - t
    return abs(r), sign(r)


def target_slope(x, t):
    return sign(t - x)


def curvature(x, t):
    T = type(x)
    return T(0)


def sign(r):
    T = type(r)
    return where(r > T(0), T(1), where(r < T(0), T(-1), r))  # 0 stays 0 and NaN stays NaN


def kinks(t):
    return (t,)


def reference(x, t):
    return abs(x - t)


@elementwise(
    point,
    target_slope=target_slope,
    curvature=curvature,
    vectors=True,
    shapes="warn",
    mean_of_weights=True,
    module="L1Loss",
    module_omits=("weight",),
    kinks=kinks,
    reference=reference,
    facts=(Fact([1.0, 3.0], [0.0, 1.0], 1.5), Fact([1.0, 3.0], [0.0, 1.0], 1.75, {"weight": [1.0, 3.0]})),
)
def l1_loss(input, target, size_average=None, reduce=None, reduction="mean", weight=None):
    """Absolute error ``w |x - t|``.

    Parameters
    ----------
    input, target : array_like, any shape
        Predictions x and targets t of one shape; other shapes are broadcast with a warning.
    size_average, reduce : bool, optional
        Deprecated; use `reduction`.
    reduction : {'mean', 'sum', 'none'}
        'mean' divides by the number of elements, or by the sum of `weight`.
    weight : array_like, shape of `input`, optional
        Factor w of each element.

    Returns
    -------
    scalar or ndarray
        The reduced loss, in the precision of the arguments; for 'none' an array of the broadcast shape.

    Raises
    ------
    ValueError
        The shapes do not fit; `reduction` is unknown.
    TypeError
        An argument is complex, a string or an object.

    Notes
    -----
    Gradient with respect to the input: ``w sign(x - t)``, with the subgradient 0 at the kink x = t; with respect to the
    target: ``-w sign(x - t)``; second derivative: 0.

    References
    ----------
    P.-S. Laplace, Sur quelques points du systeme du monde, 1793.

    Examples
    --------
    >>> import nlosses as nl
    >>> loss, grad = nl.l1_loss.value_and_grad([1.0, 3.0, 5.0], [0.0, 4.0, 5.0], reduction="sum")
    >>> float(loss), grad.tolist()
    (2.0, [1.0, -1.0, 0.0])
    """
