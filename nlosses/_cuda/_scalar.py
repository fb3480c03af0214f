"""The primitives of `nlosses._scalar` for the CUDA target.

NVIDIA's libdevice has exp, log, log1p and expm1 within 1 ulp in both precisions, subnormal numbers included, which is what
the primitives promise; its fast forms (``__expf`` and the like) lose 2 ulp and more and flush subnormal numbers. Only
`log1p_unit` has a polynomial of its own, the CPU's: a third of the instructions, and no branch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from numba import types

from .. import _scalar as scalar
from .._cpu._formats import FLOAT32, FLOAT64
from .._cpu._logarithms import log1p_unit
from ._backend import primitive

_UNIT = {types.float32: log1p_unit(FLOAT32), types.float64: log1p_unit(FLOAT64)}


def _unary(function: Callable[..., Any]) -> Callable[..., Any]:
    """Choose libdevice's function for the type of the argument; integers count as float64."""

    def choose(x):
        return (lambda x: function(x)) if isinstance(x, types.Number) else None

    return choose


def _log1p_unit(x):
    return _UNIT.get(x) or (lambda x: math.log1p(x))


def _log1m_half(x):
    return (lambda x: math.log1p(-x)) if isinstance(x, types.Number) else None


def _maximum(a, b):
    return lambda a, b: a if (a > b) | (a != a) else b


def _where(condition, a, b):
    return lambda condition, a, b: a if condition else b


#: By name, so that primitives that other targets tell apart may be one here.
IMPLEMENTATIONS: dict[str, Callable[..., Any]] = {
    "exp": _unary(math.exp),
    "exp_nonpositive": _unary(math.exp),
    "exp_moderate": _unary(math.exp),
    "exp_number": _unary(math.exp),
    "log": _unary(math.log),
    "log1p": _unary(math.log1p),
    "log1p_unit": _log1p_unit,
    "log_half": _unary(math.log),
    "log1m_half": _log1m_half,
    "expm1": _unary(math.expm1),
    "maximum": _maximum,
    "where": _where,
}

for _function in scalar.PRIMITIVES:
    primitive(_function, IMPLEMENTATIONS[_function.__name__])
