"""Vectors as values in compiled code, for loops whose running results must stay in registers.

LLVM makes vectors of a loop over positions, but not of one over classes with a loop over positions inside of it: what that
keeps of each position goes to memory and back for every class.  Here a vector is one value: LLVM has them of any length on
any machine, and splits them into its registers.
"""

from __future__ import annotations

import operator
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.datamodel import models
from numba.extending import intrinsic, overload, register_model

#: Of the functions here: contraction to fused multiply-adds, and no calls.
OPTIONS: Any = {"fastmath": {"contract"}, "error_model": "numpy", "forceinline": True}

#: Bytes of a vector of the caller's precision: two of the widest registers, for two computations to overlap.
BYTES = 128


class Vector(types.Type):
    """Numba's type of a vector of `lanes` numbers."""

    def __init__(self, dtype: Any, lanes: int) -> None:
        self.dtype, self.lanes = dtype, lanes
        super().__init__(name=f"Vector({dtype}, {lanes})")


@register_model(Vector)
class _Model(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Vector) -> None:
        super().__init__(manager, kind, ir.VectorType(manager.lookup(kind.dtype).get_value_type(), kind.lanes))


def _vector_of(array: Any) -> Vector:
    return Vector(array.dtype, BYTES * 8 // array.dtype.bitwidth)


def _broadcast(context: Any, builder: Any, kind: Any, value: Any, vector: Vector) -> Any:
    if isinstance(kind, Vector):
        return value
    i32 = ir.IntType(32)
    empty = ir.Constant(context.get_value_type(vector), ir.Undefined)
    one = builder.insert_element(empty, value, i32(0))
    return builder.shuffle_vector(one, empty, ir.Constant(ir.VectorType(i32, vector.lanes), None))


def _elementwise(make: Any) -> Any:
    """A function of vectors, or of vectors and numbers of their type, from what builds it of vectors."""

    @intrinsic
    def function(typing_context: Any, a: Any, b: Any) -> Any:
        vector = a if isinstance(a, Vector) else b

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            operands = [
                _broadcast(context, builder, kind, value, vector) for kind, value in zip(signature.args, args, strict=True)
            ]
            return make(builder, *operands)

        return vector(a, b), generate

    return function


def _operator(name: str) -> None:
    function = _elementwise(lambda builder, a, b: getattr(builder, "f" + name)(a, b))

    def choose(a, b):
        if isinstance(a, Vector) or isinstance(b, Vector):
            return lambda a, b: function(a, b)
        return None

    overload(getattr(operator, name), target="cpu", jit_options=OPTIONS)(choose)


for _name in ("add", "sub", "mul"):
    _operator(_name)

#: The smaller and the larger of two; the second one if either is NaN.
smaller = _elementwise(lambda builder, a, b: builder.select(builder.fcmp_ordered("<", a, b), a, b))
larger = _elementwise(lambda builder, a, b: builder.select(builder.fcmp_ordered(">", a, b), a, b))


@intrinsic
def where_equal(typing_context: Any, a: Any, b: Any, x: Any, y: Any) -> Any:
    """x where the vector a equals the number b, y elsewhere."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        b = _broadcast(context, builder, signature.args[1], args[1], signature.args[0])
        return builder.select(builder.fcmp_ordered("==", args[0], b), args[2], args[3])

    return x(a, b, x, y), generate


@intrinsic
def filled(typing_context: Any, array: Any, number: Any) -> Any:
    """A vector of the type of the array that has one number everywhere."""
    vector = _vector_of(array)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _broadcast(context, builder, number, args[1], vector)

    return vector(array, number), generate


@intrinsic
def widened(typing_context: Any, vector: Any) -> Any:
    """The vector in float64."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if signature.return_type == signature.args[0]:
            return args[0]
        return builder.fpext(args[0], context.get_value_type(signature.return_type))

    return Vector(types.float64, vector.lanes)(vector), generate


@intrinsic
def where_from(typing_context: Any, lane: Any, x: Any, y: Any) -> Any:
    """x from a lane on, y before."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        counted = ir.VectorType(ir.IntType(64), x.lanes)
        first = _broadcast(context, builder, types.int64, args[0], Vector(types.int64, x.lanes))
        here = builder.icmp_signed(">=", ir.Constant(counted, list(range(x.lanes))), first)
        return builder.select(here, args[1], args[2])

    return x(types.int64, x, y), generate


def _reduction(name: str, flags: tuple[str, ...], start: float | None = None) -> Any:
    @intrinsic
    def reduction(typing_context: Any, vector: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            kind, whole = context.get_value_type(vector.dtype), args[0].type
            before = [] if start is None else [ir.Constant(kind, start)]
            called = f"llvm.vector.reduce.{name}.v{vector.lanes}f{vector.dtype.bitwidth}"
            declared = ir.FunctionType(kind, [*(value.type for value in before), whole])
            reduce = cgutils.get_or_insert_function(builder.module, declared, called)
            return builder.call(reduce, [*before, args[0]], fastmath=flags)

        return vector.dtype(vector), generate

    return reduction


#: The largest and the smallest lane, none of them NaN, and the sum of all, by halves.
greatest, least = _reduction("fmax", ("nnan",)), _reduction("fmin", ("nnan",))
total = _reduction("fadd", ("reassoc",), -0.0)


def _place(context: Any, builder: Any, kind: Any, array: Any, at: Any, vector: Any) -> Any:
    data = cgutils.create_struct_proxy(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [at]), context.get_value_type(vector).as_pointer())


@intrinsic
def load(typing_context: Any, array: Any, at: Any) -> Any:
    """The vector that begins at element `at` of an array."""
    vector = _vector_of(array)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = _place(context, builder, array, args[0], args[1], vector)
        return builder.load(place, align=array.dtype.bitwidth // 8)

    return vector(array, types.intp), generate


@intrinsic
def store(typing_context: Any, array: Any, at: Any, vector: Any) -> Any:
    """Write a vector from element `at` of an array on."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        written, at, value = args
        builder.store(value, _place(context, builder, array, written, at, vector), align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), generate


@intrinsic
def lanes_of(typing_context: Any, array: Any) -> Any:
    """How many elements of the array are a vector, as a constant that LLVM knows."""
    lanes = _vector_of(array).lanes
    return types.intp(array), lambda context, builder, signature, args: context.get_constant(types.intp, lanes)


def _prefetch(write: int) -> Any:
    @intrinsic
    def prefetch(typing_context: Any, array: Any, at: Any) -> Any:
        """Have the cache line of element `at` of an array fetched, which need not exist."""

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            i32, pointer = ir.IntType(32), ir.IntType(8).as_pointer()
            data = cgutils.create_struct_proxy(array)(context, builder, args[0]).data
            place = builder.bitcast(builder.gep(data, [args[1]]), pointer)
            kind = ir.FunctionType(ir.VoidType(), [pointer, i32, i32, i32])
            fetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
            builder.call(fetch, [place, i32(write), i32(3), i32(1)])
            return context.get_dummy_value()

        return types.void(array, types.intp), generate

    return prefetch


prefetch, prefetch_to_write = _prefetch(0), _prefetch(1)
