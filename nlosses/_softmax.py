"""The mathematics of one row of classes, as scalar functions that every driver of every target calls.

A row of logits x has its maximum m; ``e = exp(x - m)``, and s is the sum of e over all classes but one at the maximum.  The
sum of all is 1 + s; what a sum that holds the 1 would lose is kept in s.  With ``rest = log1p(s)`` and ``r = 1 / (1 + s)``,
``-log p = (m - x) + rest``, two terms that are not negative, and ``p = e r``, while ``1 - p = s r`` at the maximum.
(Blanchard, Higham and Higham, IMA Journal of Numerical Analysis 41(4), 2021.)

A loss of the family is a function of ``u = sum_j q_j (-log p_j)``, with coefficients q and their sum S.
"""

from __future__ import annotations

from ._scalar import exp_below, exp_moderate, product


def lifted(x, m, scale):
    """exp(x - m), exactly 1 at the maximum, be it infinite.

    Where all logits are moderate, `scale` is exp(-m) and spares the care for what x - m loses; else it is None.
    """
    e = exp_below(x, m) if scale is None else exp_moderate(x) * scale
    return type(x)(1) if x == m else e


def gap(x, m):
    """m - x, exactly 0 at the maximum, be it infinite."""
    return type(x)(0) if x == m else m - x


def others(s, n, m):
    """s, from the sum below the maximum and the number n of classes at the maximum.

    Several infinite logits, or none that is not -inf, leave the probabilities undefined: NaN.
    """
    return s + (n - 1) + (m - m if n > 1 else s - s)


def raised(s, n, u, S, R, m, top):
    """The sums over some classes, whose maximum is m, as they are beside classes with the maximum `top` >= m.

    The sums are those of exp(x - m) below the maximum, the number at the maximum, of q (m - x), of q, and of q below it.
    """
    if m == top:
        return s, n, u, S, R
    T = type(s)
    return (s + n) * lifted(T(m), T(top), None), T(0), u + product(S, gap(T(m), T(top))), S, S


def coefficient(w, t, keep, even):
    """q of a class with weight w and probability t, of which `keep` is kept while `even` is given to every class.

    For class indices t is None, and the label's own share comes on top; without smoothing `even` is None too.
    """
    T = type(keep)
    if even is None:
        return T(0)
    return w * even if t is None else w * (keep * t + even)


def slope(S, q, p):
    """du/dx = S p - q."""
    return S * p - q


def slope_at_peak(R, S, s, r):
    """du/dx at a maximum with p > 1/2, where S p - q would cancel: R is the sum of the other classes' coefficients."""
    return R - S * (s * r)


def spread(e, s, r):
    """p (1 - p); where e is 1 the complement of p is s r."""
    T = type(e)
    p = e * r
    return p * (s * r if e == T(1) else T(1) - p)
