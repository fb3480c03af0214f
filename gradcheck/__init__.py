"""Gradients proved against finite differences that bound their own error.

>>> import numpy as np
>>> from gradcheck import check
>>> def f(x): return np.sum(np.log1p(np.exp(x)))
>>> def grad(x): return 1 / (1 + np.exp(-x))
>>> check(f, grad, np.array([0.5, -1.0, 2.0])).verdict
<Verdict.PASS: 'pass'>
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._check import check
    from ._second import check_hessian_diag, check_hvp
    from ._suite import Case, SuiteError, collect
    from ._testing import GradientWarning, pytest_cases
    from ._transfer import check_transfer
    from ._verdict import Curve, Finding, GradientError, Result, Verdict

__all__ = [
    "Case",
    "Curve",
    "Finding",
    "GradientError",
    "GradientWarning",
    "Result",
    "SuiteError",
    "Verdict",
    "check",
    "check_hessian_diag",
    "check_hvp",
    "check_transfer",
    "collect",
    "pytest_cases",
]

#: Where the public names live.  They are fetched when they are first asked for, because pytest imports this package at the
#: start of every run of every project beside which it is installed: neither numpy nor scipy may be loaded by that.
_HOMES = {
    "Case": "_suite",
    "Curve": "_verdict",
    "Finding": "_verdict",
    "GradientError": "_verdict",
    "GradientWarning": "_testing",
    "Result": "_verdict",
    "SuiteError": "_suite",
    "Verdict": "_verdict",
    "check": "_check",
    "check_hessian_diag": "_second",
    "check_hvp": "_second",
    "check_transfer": "_transfer",
    "collect": "_suite",
    "pytest_cases": "_testing",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
