"""Negative log-likelihood of log-probabilities."""

from .._spec import Fact, classwise, identity


def reference(x, q):
    """Loss of rows of log-probabilities `x` with rows of coefficients `q`."""
    import numpy as np

    return -np.where(q != 0, q * x, 0).sum(axis=-1)


@classwise(
    identity,
    log_probabilities=True,
    module="NLLLoss",
    reference=reference,
    facts=(Fact([[-1.0, -2.0], [-3.0, -0.5]], [0, 1], 0.75), Fact([[-1.0, -2.0]], [-100], 0.0, {"reduction": "sum"})),
)
def nll_loss(input, target, weight=None, size_average=None, ignore_index=-100, reduce=None, reduction="mean"):
    """Negative log-likelihood ``-w_y x_y`` of class indices, from log-probabilities.

    Parameters
    ----------
    input : array_like of float, shape (C,), (N, C) or (N, C, d1, ..., dK)
        Log-probabilities x.
    target : array_like of int, shape (), (N,) or (N, d1, ..., dK)
        Class indices y, of any integer type.
    weight : array_like, shape (C,), optional
        Factor w of each class.
    size_average, reduce : bool, optional
        Deprecated; use `reduction`.
    ignore_index : int
        Rows with this class index count for nothing.
    reduction : {'mean', 'sum', 'none'}
        'mean' divides by the sum of w_y over the rows that are not ignored.

    Returns
    -------
    scalar or ndarray
        The reduced loss, in the precision of `input`; for 'none' an array of the shape of `target`.

    Raises
    ------
    IndexError
        A class index is neither in [0, C) nor `ignore_index`.
    ValueError
        The shapes do not fit; `reduction` is unknown; `ignore_index` has more than 64 bits.
    TypeError
        `target` is not of an integer type; an argument is complex, a string or an object.

    Notes
    -----
    Gradient with respect to the input: ``-w_y`` at the class y, else 0; second derivatives are 0.

    References
    ----------
    C. M. Bishop, Pattern Recognition and Machine Learning, 2006, equation 4.108.

    Examples
    --------
    >>> import nlosses as nl
    >>> loss, grad = nl.nll_loss.value_and_grad([[-1.0, -2.0], [-3.0, -0.5]], [0, 1])
    >>> float(loss), grad.tolist()
    (0.75, [[-0.5, 0.0], [0.0, -0.5]])
    """
