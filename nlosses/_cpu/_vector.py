"""Vectors as values in compiled code, for loops whose running results must stay in registers.

LLVM makes vectors of a loop over positions, but not of one over classes with a loop over positions inside of it: what that
keeps of each position goes to memory and back for every class.  Here a vector is one value: LLVM has them of any length on
any machine, and splits them into its registers.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from functools import cache
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.datamodel import models
from numba.core.registry import cpu_target
from numba.core.typing.templates import AttributeTemplate, infer_getattr
from numba.extending import intrinsic, overload, register_jitable, register_model

from ._flags import INLINED

#: Bytes of a vector of the caller's precision: two of the widest registers, for two computations to overlap, or one, where
#: that would ask for too many registers.
BYTES, SHORT = 128, 64
#: Bytes of a cache line, which the widest vector fills: one that lies across two takes twice as long to load or store.
LINE = 64


class Vector(types.Type):
    """Numba's type of a vector of `lanes` numbers."""

    def __init__(self, dtype: Any, lanes: int) -> None:
        self.dtype, self.lanes = dtype, lanes
        super().__init__(name=f"Vector({dtype}, {lanes})")


@register_model(Vector)
class _Model(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Vector) -> None:
        super().__init__(manager, kind, ir.VectorType(manager.lookup(kind.dtype).get_value_type(), kind.lanes))


def _vector_of(array: Any, size: int) -> Vector:
    return Vector(array.dtype, size * 8 // array.dtype.bitwidth)


def _broadcast(context: Any, builder: Any, kind: Any, value: Any, vector: Vector) -> Any:
    if isinstance(kind, Vector):
        return value
    i32 = ir.IntType(32)
    empty = ir.Constant(context.get_value_type(vector), ir.Undefined)
    one = builder.insert_element(empty, context.cast(builder, value, kind, vector.dtype), i32(0))
    return builder.shuffle_vector(one, empty, ir.Constant(ir.VectorType(i32, vector.lanes), None))


def shuffled(builder: Any, a: Any, b: Any, lanes: Sequence[int]) -> Any:
    """LLVM's vector of these lanes of two vectors, which are counted through."""
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), list(lanes)))


def _elementwise(make: Any, dtype: Any = None) -> Any:
    """A function of vectors, or of vectors and numbers of their type, from what builds it of vectors."""

    @intrinsic
    def function(typing_context: Any, a: Any, b: Any) -> Any:
        vector = a if isinstance(a, Vector) else b

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            operands = [
                _broadcast(context, builder, kind, value, vector) for kind, value in zip(signature.args, args, strict=True)
            ]
            return make(builder, *operands)

        return (vector if dtype is None else Vector(dtype, vector.lanes))(a, b), generate

    return function


def _operator(symbol: Any, function: Any) -> None:
    def choose(a, b):
        if isinstance(a, Vector) or isinstance(b, Vector):
            return lambda a, b: function(a, b)
        return None

    overload(symbol, target="cpu", jit_options=INLINED)(choose)


for _symbol, _name in ((operator.add, "fadd"), (operator.sub, "fsub"), (operator.mul, "fmul"), (operator.truediv, "fdiv")):
    _operator(_symbol, _elementwise(lambda builder, a, b, name=_name: getattr(builder, name)(a, b)))
for _symbol, _name in ((operator.lt, "<"), (operator.gt, ">"), (operator.le, "<="), (operator.ge, ">="), (operator.eq, "==")):
    _operator(_symbol, _elementwise(lambda builder, a, b, name=_name: builder.fcmp_ordered(name, a, b), types.boolean))
_operator(operator.or_, _elementwise(lambda builder, a, b: builder.or_(a, b)))
_operator(operator.ne, _elementwise(lambda builder, a, b: builder.fcmp_unordered("!=", a, b), types.boolean))


@intrinsic
def _negative(typing_context: Any, vector: Any) -> Any:
    return vector(vector), lambda context, builder, signature, args: builder.fneg(args[0])


@intrinsic
def _magnitude(typing_context: Any, vector: Any) -> Any:
    return vector(vector), lambda context, builder, signature, args: _absolute(builder, args[0])


@overload(operator.neg, target="cpu", jit_options=INLINED)
def _choose_negative(a):
    return (lambda a: _negative(a)) if isinstance(a, Vector) else None


@overload(abs, target="cpu", jit_options=INLINED)
def _choose_magnitude(x):
    return (lambda x: _magnitude(x)) if isinstance(x, Vector) else None


@infer_getattr
class _Attributes(AttributeTemplate):
    """``type(x)`` of a vector is that of its numbers, so that functions of numbers can be compiled for vectors."""

    key = Vector

    def resolve___class__(self, vector: Vector) -> Any:
        return types.NumberClass(vector.dtype)


@intrinsic
def choice(typing_context: Any, condition: Any, a: Any, b: Any) -> Any:
    """a where the condition holds, b elsewhere; either may be a number."""
    vector = a if isinstance(a, Vector) else b if isinstance(b, Vector) else Vector(a, condition.lanes)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        operands = [_broadcast(context, builder, kind, value, vector) for kind, value in zip((a, b), args[1:], strict=True)]
        return builder.select(args[0], *operands)

    return vector(condition, a, b), generate


@register_jitable(**INLINED)
def where_other(a, b, x, y):
    """x where the vector a differs from the number b, y elsewhere.

    Not the other way round: a sum that goes on where something holds is one instruction, but not one that stays as it was.
    """
    return choice(a != b, x, y)


#: Numbers of a table in registers, which machines with registers of 512 bits look up for all lanes at once.
TABLE = 16


@cache
def has_tables() -> bool:
    """Whether the machine that is compiled for has what `entry_of` takes."""
    _, _, features = cpu_target.target_context.codegen().magic_tuple()
    return "+avx512f" in features.split(",")


def _by_registers(builder: Any, operands: Any, make: Any) -> Any:
    """What `make` gives for the parts of one or two vectors that fill a register of 512 bits, as one vector or two."""
    lanes = 512 // whole(operands[0].type).element.width
    made = None
    for first in range(0, operands[0].type.count, lanes):
        part = make(*[builder.shuffle_vector(x, x, _mask(range(first, first + lanes))) for x in operands])
        made = part if made is None else builder.shuffle_vector(made, part, _mask(range(first + lanes)))
    return made


def _mask(lanes: Any) -> Any:
    return ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), list(lanes))


def entry_of(table: list[float]) -> Any:
    """A function of a vector: the numbers of a table that the low bits of each lane name."""

    @intrinsic
    def entry(typing_context: Any, vector: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            lanes = 512 // vector.dtype.bitwidth
            part = ir.VectorType(args[0].type.element, lanes)
            tables = [ir.Constant(part, table[first : first + lanes]) for first in range(0, TABLE, lanes)]
            name = {1: "permvar.sf", 2: "vpermi2var.pd"}[len(tables)]
            kinds = [part, whole(part), *[part] * (len(tables) - 1)]

            def looked_up(numbers: Any) -> Any:
                function = _avx512(builder, name, part, kinds)
                return builder.call(function, [tables[0], builder.bitcast(numbers, whole(part)), *tables[1:]])

            return _by_registers(builder, args, looked_up)

        return vector(vector), generate

    return entry


def _avx512(builder: Any, name: str, result: Any, kinds: Any) -> Any:
    return cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, kinds), f"llvm.x86.avx512.{name}.512")


def _masked(name: str, operands: int, *constants: int) -> Any:
    """A function of so many vectors that AVX-512 has for all lanes of a register, or for some."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        lanes = 512 // signature.return_type.dtype.bitwidth
        i32, mask = ir.IntType(32), ir.IntType(lanes)

        def make(*parts: Any) -> Any:
            kind = parts[0].type
            suffix = {32: "ps", 64: "pd"}[whole(kind).element.width]
            given = [*parts, *map(i32, constants), ir.Constant(kind, ir.Undefined), mask(-1), i32(4)]  # rounded as usual
            return builder.call(_avx512(builder, f"mask.{name}.{suffix}", kind, [x.type for x in given]), given)

        return _by_registers(builder, args, make)

    if operands == 1:
        return intrinsic(lambda typing_context, x: (x(x), generate))
    return intrinsic(lambda typing_context, x, y: (x(x, y), generate))


# For machines that have tables:

#: k and m of x = 2**k m, where 3/4 <= m < 3/2; of a number below 0, m is NaN; the exponent of a number between 1 and 2 is 0.
significand, exponent = _masked("getmant", 1, 0b1011), _masked("getexp", 1)
#: y times 2 to the power of the largest whole number that x reaches, rounded once.
scaled = _masked("scalef", 2)


@intrinsic
def permuted(typing_context: Any, vector: Any, lanes: Any) -> Any:
    """Of a short vector the lanes that the low bits of another one name."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = args[0].type
        name = {32: "permvar.sf", 64: "permvar.df"}[vector.dtype.bitwidth]
        function = _avx512(builder, name, kind, [kind, whole(kind)])
        return builder.call(function, [args[0], builder.bitcast(args[1], whole(kind))])

    return vector(vector, lanes), generate


@intrinsic
def ended_by(typing_context: Any, first: Any, second: Any, n: Any) -> Any:
    """A short vector of the last n lanes of one, and then of the first lanes of another; without tables n must be 0."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = args[0].type
        lanes = whole(kind)
        if not has_tables():
            return args[1]
        begin = builder.sub(ir.IntType(64)(kind.count), args[2])
        begins = _broadcast(context, builder, types.int64, begin, Vector(types.int64, kind.count))
        begins = builder.trunc(begins, lanes) if lanes.element.width < 64 else begins
        places = builder.add(begins, ir.Constant(lanes, list(range(kind.count))))
        name = {32: "vpermi2var.ps", 64: "vpermi2var.pd"}[first.dtype.bitwidth]
        return builder.call(_avx512(builder, name, kind, [kind, lanes, kind]), [args[0], places, args[1]])

    return first(first, second, types.int64), generate


@intrinsic
def widened(typing_context: Any, vector: Any) -> Any:
    """The vector in float64."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if signature.return_type == signature.args[0]:
            return args[0]
        return builder.fpext(args[0], context.get_value_type(signature.return_type))

    return Vector(types.float64, vector.lanes)(vector), generate


@intrinsic
def narrowed(typing_context: Any, vector: Any, array: Any) -> Any:
    """The vector in the precision of an array."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if signature.return_type == signature.args[0]:
            return args[0]
        return builder.fptrunc(args[0], context.get_value_type(signature.return_type))

    return Vector(array.dtype, vector.lanes)(vector, array), generate


def whole(kind: Any) -> Any:
    """Integers as wide as LLVM's numbers of a type, or as those of a vector."""
    if isinstance(kind, ir.VectorType):
        return ir.VectorType(whole(kind.element), kind.count)
    return ir.IntType({"float": 32, "double": 64}[str(kind)])


def _absolute(builder: Any, a: Any) -> Any:
    called = f"llvm.fabs.v{a.type.count}f{whole(a.type).element.width}"
    return builder.call(cgutils.get_or_insert_function(builder.module, ir.FunctionType(a.type, [a.type]), called), [a])


def _higher(builder: Any, a: Any, b: Any) -> Any:
    bits, other = (builder.bitcast(x, whole(a.type)) for x in (a, b))
    return builder.bitcast(builder.select(builder.icmp_unsigned(">", bits, other), bits, other), a.type)


#: That of two numbers whose bits are the larger ones: NaN before negative numbers before positive ones.
higher = _elementwise(_higher)
#: The larger one of the magnitude of the first and of the second, which has no sign; NaN, the largest of all bits, wins.
farther = _elementwise(lambda builder, a, b: _higher(builder, _absolute(builder, a), b))


@intrinsic
def farthest(typing_context: Any, vector: Any) -> Any:
    """The largest lane of a vector without signs; NaN wins."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = whole(args[0].type)
        declared = ir.FunctionType(kind.element, [kind])
        called = f"llvm.vector.reduce.umax.v{kind.count}i{kind.element.width}"
        reduce = cgutils.get_or_insert_function(builder.module, declared, called)
        bits = builder.call(reduce, [builder.bitcast(args[0], kind)])
        return builder.bitcast(bits, context.get_value_type(vector.dtype))

    return vector.dtype(vector), generate


@intrinsic
def largest(typing_context: Any, vector: Any) -> Any:
    """The largest lane; NaN counts for nothing."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = context.get_value_type(vector.dtype)
        declared = ir.FunctionType(kind, [args[0].type])
        reduce = cgutils.get_or_insert_function(builder.module, declared, f"llvm.vector.reduce.fmax.{_name_of(vector)}")
        return builder.call(reduce, args)

    return vector.dtype(vector), generate


@intrinsic
def first_lane(typing_context: Any, condition: Any) -> Any:
    """The first lane where a condition holds, or how many lanes there are if it holds nowhere."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.IntType(condition.lanes)
        return builder.zext(builder.cttz(builder.bitcast(args[0], kind), ir.IntType(1)(0)), ir.IntType(64))

    return types.int64(condition), generate


def _compared(context: Any, builder: Any, vector: Vector, order: str, n: Any) -> Any:
    """Which lanes are below n, say: as numbers of the vector, which lanes are exactly, and n where it is near to any."""
    kind = context.get_value_type(vector)
    lanes = ir.Constant(kind, [float(lane) for lane in range(vector.lanes)])
    number = _broadcast(context, builder, vector.dtype, builder.sitofp(n, kind.element), vector)
    return builder.fcmp_unordered(order, lanes, number)


def _name_of(vector: Vector) -> str:
    """How LLVM's functions call the type of a vector."""
    return f"v{vector.lanes}f{vector.dtype.bitwidth}"


def _where(order: str) -> Any:
    @intrinsic
    def where_lanes(typing_context: Any, lane: Any, x: Any, y: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.select(_compared(context, builder, x, order, args[0]), args[1], args[2])

        return x(types.int64, x, y), generate

    return where_lanes


#: Of a lane, which need not exist, x and y: x from that lane on, or x in all lanes but that one; y elsewhere.
where_from, where_not = _where(">="), _where("!=")


@intrinsic
def total(typing_context: Any, vector: Any) -> Any:
    """The sum of all lanes, by halves."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind, lanes = context.get_value_type(vector.dtype), args[0].type
        declared = ir.FunctionType(kind, [kind, lanes])
        reduce = cgutils.get_or_insert_function(builder.module, declared, f"llvm.vector.reduce.fadd.{_name_of(vector)}")
        return builder.call(reduce, [ir.Constant(kind, -0.0), args[0]], fastmath=("reassoc",))

    return vector.dtype(vector), generate


def _data(context: Any, builder: Any, kind: Any, array: Any) -> Any:
    return array if isinstance(kind, types.CPointer) else cgutils.create_struct_proxy(kind)(context, builder, array).data


@intrinsic
def pointer(typing_context: Any, array: Any) -> Any:
    """Where the elements of an array begin: what is below takes it for the array, and nobody counts references to it.

    The array must live on, so it must be used afterwards.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _data(context, builder, array, args[0])

    return types.CPointer(array.dtype)(array), generate


def _place(context: Any, builder: Any, kind: Any, array: Any, at: Any, vector: Any) -> Any:
    return builder.bitcast(builder.gep(_data(context, builder, kind, array), [at]), context.get_value_type(vector).as_pointer())


def _sized(size: int) -> tuple[Any, Any, Any]:
    """What makes vectors of so many bytes."""

    @intrinsic
    def filled(typing_context: Any, array: Any, number: Any) -> Any:
        """A vector of the type of the array that has one number everywhere."""
        vector = _vector_of(array, size)

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return _broadcast(context, builder, number, args[1], vector)

        return vector(array, number), generate

    @intrinsic
    def load(typing_context: Any, array: Any, at: Any) -> Any:
        """The vector that begins at element `at` of an array."""
        vector = _vector_of(array, size)

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            place = _place(context, builder, array, args[0], args[1], vector)
            return builder.load(place, align=array.dtype.bitwidth // 8)

        return vector(array, types.intp), generate

    @intrinsic
    def lanes_of(typing_context: Any, array: Any) -> Any:
        """How many elements of the array are a vector, as a constant that LLVM knows."""
        lanes = _vector_of(array, size).lanes
        return types.intp(array), lambda context, builder, signature, args: context.get_constant(types.intp, lanes)

    return load, filled, lanes_of


@intrinsic
def unknown_zero(typing_context: Any, like: Any) -> Any:
    """A vector of zeros, of which LLVM does not know that they are: as the vector `like`, or of the type of an array."""
    vector = like if isinstance(like, Vector) else _vector_of(like, BYTES)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        number = context.get_value_type(vector.dtype)
        kind = whole(number)
        nothing = ir.InlineAsm(ir.FunctionType(kind, [kind]), "", "=r,0")  # an empty instruction, of any machine
        zero = builder.bitcast(builder.call(nothing, [kind(0)], attrs=("readnone", "nounwind")), number)
        return _broadcast(context, builder, vector.dtype, zero, vector)

    return vector(like), generate


load, filled, lanes_of = _sized(BYTES)
load_short, filled_short, short_lanes_of = _sized(SHORT)


@intrinsic
def indices(typing_context: Any, array: Any, at: Any, like: Any) -> Any:
    """The whole numbers from element `at` of an array on, as a vector of the type of another one."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.VectorType(context.get_value_type(array.dtype), like.lanes)
        place = builder.gep(_data(context, builder, array, args[0]), [args[1]])
        numbers = builder.load(builder.bitcast(place, kind.as_pointer()), align=array.dtype.bitwidth // 8)
        return builder.sitofp(numbers, context.get_value_type(like))

    return like(array, types.intp, like), generate


@intrinsic
def pick(typing_context: Any, array: Any, at: Any) -> Any:
    """Element `at` of an array, by a load of its own: of a loop of such LLVM makes gathers, which take longer."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = builder.gep(_data(context, builder, array, args[0]), [args[1]])
        return builder.load_atomic(place, "unordered", array.dtype.bitwidth // 8)

    return array.dtype(array, types.intp), generate


@intrinsic
def put(typing_context: Any, array: Any, at: Any, number: Any) -> Any:
    """Write element `at` of an array, by a store of its own."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = builder.gep(_data(context, builder, array, args[0]), [args[1]])
        builder.store_atomic(args[2], place, "unordered", array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, number), generate


@intrinsic
def load_part(typing_context: Any, array: Any, at: Any, n: Any) -> Any:
    """A short vector of the n elements from `at` on, and of zeros; no other element is touched."""
    vector = _vector_of(array, SHORT)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = _place(context, builder, array, args[0], args[1], vector)
        mask, name = _compared(context, builder, vector, "<", args[2]), _name_of(vector)
        kind, i32 = context.get_value_type(vector), ir.IntType(32)
        declared = ir.FunctionType(kind, [place.type, i32, mask.type, kind])
        function = cgutils.get_or_insert_function(builder.module, declared, f"llvm.masked.load.{name}.p0{name}")
        return builder.call(function, [place, i32(array.dtype.bitwidth // 8), mask, ir.Constant(kind, [0.0] * vector.lanes)])

    return vector(array, types.intp, types.intp), generate


@intrinsic
def store_part(typing_context: Any, array: Any, at: Any, n: Any, vector: Any) -> Any:
    """Write the first n lanes of a vector."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = _place(context, builder, array, args[0], args[1], vector)
        mask, name = _compared(context, builder, vector, "<", args[2]), _name_of(vector)
        i32 = ir.IntType(32)
        declared = ir.FunctionType(ir.VoidType(), [args[3].type, place.type, i32, mask.type])
        function = cgutils.get_or_insert_function(builder.module, declared, f"llvm.masked.store.{name}.p0{name}")
        builder.call(function, [args[3], place, i32(array.dtype.bitwidth // 8), mask])
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, vector), generate


@intrinsic
def store(typing_context: Any, array: Any, at: Any, vector: Any) -> Any:
    """Write a vector from element `at` of an array on."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        written, at, value = args
        builder.store(value, _place(context, builder, array, written, at, vector), align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), generate


@intrinsic
def offset(typing_context: Any, array: Any, at: Any) -> Any:
    """Where element `at` of an array is in memory, counted in elements."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        i64 = ir.IntType(64)
        place = builder.ptrtoint(builder.gep(_data(context, builder, array, args[0]), [args[1]]), i64)
        return builder.udiv(place, i64(array.dtype.bitwidth // 8))

    return types.intp(array, types.intp), generate


@register_jitable(**INLINED)
def late(array, at):
    """How many elements lie between the begin of a cache line and element `at` of an array, which is in that line."""
    return offset(array, at) % short_lanes_of(array)


@intrinsic
def stream(typing_context: Any, array: Any, at: Any, vector: Any) -> Any:
    """Write a short vector, which must be a whole cache line, past the caches: it need not be read before it is written.

    Other threads see it after `settle`.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        written, at, value = args
        stored = builder.store(value, _place(context, builder, array, written, at, vector), align=LINE)
        stored.set_metadata("nontemporal", builder.module.add_metadata([ir.IntType(32)(1)]))
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), generate


@intrinsic
def settle(typing_context: Any) -> Any:
    """Have all that was written before, by `stream` too, seen before whatever is written next."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), generate


def _prefetch(write: int, level: int) -> Any:
    @intrinsic
    def prefetch(typing_context: Any, array: Any, at: Any) -> Any:
        """Have the cache line of element `at` of an array fetched to a cache of the level; it need not exist."""

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            i32, byte = ir.IntType(32), ir.IntType(8).as_pointer()
            place = builder.bitcast(builder.gep(_data(context, builder, array, args[0]), [args[1]]), byte)
            kind = ir.FunctionType(ir.VoidType(), [byte, i32, i32, i32])
            fetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
            builder.call(fetch, [place, i32(write), i32(4 - level), i32(1)])
            return context.get_dummy_value()

        return types.void(array, types.intp), generate

    return prefetch


prefetch, prefetch_to_write = _prefetch(0, 1), _prefetch(1, 1)
#: For many lines that follow no pattern: the first cache waits for a third as many at a time as the second.
prefetch_far = _prefetch(0, 2)
