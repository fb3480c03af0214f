"""Gradients proved against finite differences that bound their own error.

>>> import numpy as np
>>> from gradcheck import check
>>> def f(x): return np.sum(np.log1p(np.exp(x)))
>>> def grad(x): return 1 / (1 + np.exp(-x))
>>> check(f, grad, np.array([0.5, -1.0, 2.0])).verdict
<Verdict.PASS: 'pass'>
"""

from ._check import check
from ._second import check_hessian_diag, check_hvp
from ._suite import Case, SuiteError, collect
from ._transfer import check_transfer
from ._verdict import Curve, Finding, GradientError, Result, Verdict

__all__ = [
    "Case",
    "Curve",
    "Finding",
    "GradientError",
    "Result",
    "SuiteError",
    "Verdict",
    "check",
    "check_hessian_diag",
    "check_hvp",
    "check_transfer",
    "collect",
]
