"""Cross entropy of logits with class indices or class probabilities."""

from .._spec import Fact, classwise, identity


def reference(x, q):
    """Loss of rows of logits `x` with rows of coefficients `q`."""
    from scipy.special import log_softmax

    return -(q * log_softmax(x, axis=-1)).sum(axis=-1)


@classwise(
    identity,
    class_probabilities=True,
    module="CrossEntropyLoss",
    reference=reference,
    facts=(
        Fact([[16.0, 0.0, 0.0]], [0], 2.2507e-7, digits=11),
        Fact([[0.0, 0.0]], [1], 0.69314718),
        Fact([[1.0, 2.0, 3.0]], [2], 0.40760596),
    ),
)
def cross_entropy(
    input,
    target,
    weight=None,
    size_average=None,
    ignore_index=-100,
    reduce=None,
    reduction="mean",
    label_smoothing=0.0,
):
    """Cross entropy between softmax(input) and class indices or class probabilities.

    With ``p = softmax(x)`` along the class axis and C classes, the loss of one row is ``-sum_j q_j log p_j``.  For a class
    index y the coefficients are ``q_j = (1 - label_smoothing) w_y [j = y] + (label_smoothing / C) w_j``; for probabilities
    t they are ``q_j = w_j ((1 - label_smoothing) t_j + label_smoothing / C)``.

    Parameters
    ----------
    input : array_like of float, shape (C,), (N, C) or (N, C, d1, ..., dK)
        Logits x.
    target : array_like
        Class indices of any integer type, shape (), (N,) or (N, d1, ..., dK); or class probabilities of the shape of
        `input`, floating.
    weight : array_like, shape (C,), optional
        Factor w of each class.
    size_average, reduce : bool, optional
        Deprecated; use `reduction`.
    ignore_index : int
        Rows with this class index count for nothing: neither their values nor their gradients are looked at.
    reduction : {'mean', 'sum', 'none'}
        'mean' divides by the sum of w_y over the rows that are not ignored (class indices), or by the number of rows (class
        probabilities).
    label_smoothing : float in [0, 1]
        Share of the target that is spread evenly over all classes.

    Returns
    -------
    scalar or ndarray
        The reduced loss, in the precision of the arguments; for 'none' an array of the shape of the class indices.

    Raises
    ------
    IndexError
        A class index is neither in [0, C) nor `ignore_index`.
    ValueError
        The shapes do not fit; `label_smoothing` lies outside [0, 1] or is NaN; `reduction` is unknown; `ignore_index` has more
        than 64 bits.
    TypeError
        An argument is complex, a string or an object; the target is neither integer nor of the input's shape.

    Notes
    -----
    Gradient with respect to the input: ``S p_j - q_j`` with ``S = sum_j q_j``; with respect to class probabilities:
    ``-(1 - label_smoothing) w_j log p_j``; diagonal of the Hessian: ``S p_j (1 - p_j)``; Hessian times vector:
    ``S p (v - p.v)``.  Logits of -inf are classes that cannot be: where their coefficient is 0 they contribute nothing.

    References
    ----------
    P. Blanchard, D. J. Higham, N. J. Higham, Accurately computing the log-sum-exp and softmax functions, IMA Journal of
    Numerical Analysis 41(4), 2021.  C. Szegedy et al., Rethinking the Inception architecture, 2016, for smoothing.

    Examples
    --------
    >>> import nlosses as nl
    >>> loss, grad = nl.cross_entropy.value_and_grad([[2.0, 0.0, -1.0], [0.0, 30.0, 0.0]], [0, 1], reduction="none")
    >>> print(f"{loss[0]:.6f} {loss[1]:.6e}")
    0.169846 1.871525e-13
    """
