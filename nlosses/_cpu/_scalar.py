"""Vectorisable exp, expm1, log, log1p and maximum for the CPU, attached to the plain functions of `nlosses._scalar`.

They stand in `_exponentials` and `_logarithms`. Numba's `math.exp` calls the C library for each element, which also keeps the
loop around it scalar. There is arithmetic only, so that LLVM vectorises the loop on any target:

* Choices are selects; NaN needs none where it comes through the arithmetic by itself.
* Floating point and integers meet in bit casts and in sums with `Format.rounder`. Conversions of 64-bit integers, and
  their arithmetic shift, are absent from most vector units.
* Fused multiply-add comes from contraction alone: spelled out, it is a library call on a machine that has none.
* No reassociation: it would remove the rounding trick and the error terms.

Each algorithm is written once for both formats, and float32 computes in float32 alone. The casts ``U(...)`` are there
because Numba widens the result of 32-bit arithmetic to 64 bits.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

from .. import _scalar as scalar
from . import _exponentials as exponentials
from . import _logarithms as logarithms
from . import _vector
from ._flags import INLINED
from ._formats import FLOAT32, FLOAT64, Format
from ._vector import Vector, choice, has_tables

where = scalar.where


@intrinsic
def _maximum(typing_context, a, b):
    """LLVM's maximum of two numbers of one type: unlike a comparison it vectorises in a reduction, and NaN wins."""

    def generate(context, builder, signature, args):
        kind = args[0].type
        maximum = builder.module.declare_intrinsic("llvm.maximum", [kind], ir.FunctionType(kind, [kind, kind]))
        return builder.call(maximum, args, fastmath=("nsz",))

    return a(a, a), generate


def exp_kept(x, zero):
    """`exp_number` for the CPU alone.

    Of vectors both take powers of 2 from a table, where the machine can look them up, which spares terms of the polynomial.
    With `zero`, a number or the result of `_vector.unknown_zero`, constants become sums that a loop computes once and keeps in
    registers: constants as such LLVM would rather load anew for each vector.
    """
    return scalar.exp_number(x)


def log1p_all(xs, n):
    """Let each of the first n numbers of an array x >= 0 give way to log1p(x), within 1.5 ulp, for the CPU alone.

    The array has room for a vector beyond.  An x that is not a finite number, or large enough for 1 + x not to be one, gives
    NaN or infinity.
    """
    for i in range(n):
        xs[i] = scalar.log1p(xs[i])


@overload(where, target="cpu", jit_options=INLINED)
def _choose_where(condition, a, b):
    if isinstance(condition, Vector):
        return lambda condition, a, b: choice(condition, a, b)
    return lambda condition, a, b: a if condition else b


_Make = Callable[[Format], Callable[..., Any]]


def _attach(function: Callable[..., Any], make: _Make, by_table: _Make | None = None) -> None:
    implementations, tabled = _formats(make), _formats(by_table or make)

    def choose(x):
        if x in implementations:
            return implementations[x]
        if isinstance(x, Vector):
            return (tabled if has_tables() else implementations)[x.dtype]
        if isinstance(x, types.Integer):
            return lambda x: function(np.float64(x))
        return None

    overload(function, target="cpu", jit_options=INLINED)(choose)


def _formats(make: _Make) -> dict[Any, Callable[..., Any]]:
    return {types.float32: make(FLOAT32), types.float64: make(FLOAT64)}


def _exp_number(F: Format) -> Callable[..., Any]:
    zero = F.T(0)

    def exp_number(x):
        return exp_kept(x, zero)

    return exp_number


def _exp_of_vectors(F: Format) -> Callable[..., Any]:
    def exp_of_vectors(x):
        return exp_kept(x, _vector.unknown_zero(x))

    return exp_of_vectors


_attach(scalar.exp, exponentials.exp, exponentials.exp_by_table)
_attach(scalar.exp_nonpositive, exponentials.exp_nonpositive, exponentials.exp_nonpositive_by_table)
_attach(scalar.exp_moderate, exponentials.exp_moderate, _exp_of_vectors)
_attach(scalar.exp_number, _exp_number, _exp_of_vectors)
_attach(scalar.expm1, exponentials.expm1)
_attach(scalar.log, logarithms.log, logarithms.log_by_table)
_attach(scalar.log1p, logarithms.log1p)
_attach(scalar.log1p_unit, logarithms.log1p_unit, logarithms.log1p_unit_by_table)
_attach(scalar.log_half, logarithms.log_half, logarithms.log_by_table)
_attach(scalar.log1m_half, logarithms.log1m_half, logarithms.log1m_half_by_table)

_LOG1P_BY_TABLE = _formats(logarithms.log1p_positive_by_table)
_KEPT, _KEPT_BY_TABLE = _formats(exponentials.exp_kept), _formats(exponentials.exp_kept_by_table)


@overload(exp_kept, target="cpu", jit_options=INLINED)
def _choose_exp_kept(x, zero):
    if isinstance(x, Vector):
        return (_KEPT_BY_TABLE if has_tables() else _KEPT)[x.dtype]
    return _KEPT[x]


@overload(log1p_all, target="cpu", jit_options=INLINED)
def _choose_log1p_all(xs, n):
    log1p = _LOG1P_BY_TABLE[xs.dtype]

    def by_vectors(xs, n):
        for k in range(0, n, _vector.lanes_of(xs)):
            _vector.store(xs, k, log1p(_vector.load(xs, k)))

    return by_vectors if has_tables() else log1p_all


@overload(scalar.maximum, target="cpu", jit_options=INLINED)
def _choose_maximum(a, b):
    if a == b and isinstance(a, types.Float):
        return lambda a, b: _maximum(a, b)
    if isinstance(a, types.Number) and isinstance(b, types.Number):
        return lambda a, b: _maximum(np.float64(a), np.float64(b))
    return None
