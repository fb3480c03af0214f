"""Squared error."""

from .._spec import Fact, elementwise


def point(x, t):
    r = x - t
    return r * r, r + r


def target_slope(x, t):
    r = t - x
    return r + r


def curvature(x, t):
    T = type(x)
    return T(2)


def reference(x, t):
    return (x - t) ** 2


@elementwise(
    point,
    target_slope=target_slope,
    curvature=curvature,
    vectors=True,
    shapes="warn",
    mean_of_weights=True,
    module="MSELoss",
    module_omits=("weight",),
    reference=reference,
    facts=(Fact([1.0, 3.0], [0.0, 1.0], 2.5), Fact([1.0, 3.0], [0.0, 1.0], 3.25, {"weight": [1.0, 3.0]})),
)
def mse_loss(input, target, size_average=None, reduce=None, reduction="mean", weight=None):
    """Squared error ``w (x - t)**2``.

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
    Gradient with respect to the input: ``2 w (x - t)``; with respect to the target: ``-2 w (x - t)``; second derivative:
    ``2 w``.

    References
    ----------
    C. F. Gauss, Theoria combinationis observationum erroribus minimis obnoxiae, 1823.

    Examples
    --------
    >>> import nlosses as nl
    >>> loss, grad = nl.mse_loss.value_and_grad([1.0, 3.0], [0.0, 1.0])
    >>> float(loss), grad.tolist()
    (2.5, [1.0, 2.0])
    """
