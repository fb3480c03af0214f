"""Several threads for a kernel that was compiled once: it calls itself for a share of its blocks on each of them.

A kernel's first argument tells it what to do.  Told to `spread` itself, it hands its own arguments to `launch`, a parallel loop
that is compiled once for all kernels, and is called by each thread for some of its blocks, of which the results are kept apart.
So the threads run the machine code that a single one runs.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import prange, types
from numba.core import cgutils
from numba.extending import intrinsic

from ._blocks import compensated, total_of
from ._jit import address_of, inlined

#: What a kernel is told that shall do all blocks.  Otherwise it is the address of `launch`, or less than 0 and that of a share.
ALONE = 0

_STATUS, _WORD, _BYTES, _NUMBER = ir.IntType(32), ir.IntType(64), ir.IntType(8).as_pointer(), ir.DoubleType()
#: The first block, that after the last, and where the results of all blocks go.
_SHARE = ir.LiteralStructType((_WORD, _WORD, _WORD))
_CALL = ir.FunctionType(_STATUS, (_BYTES, _SHARE.as_pointer()))


@inlined
def own_blocks(told, n_blocks):
    """The first block that a kernel shall do, the one after the last, and where `gathered` finds room for the results."""
    return _told(told) if told < 0 else (0, n_blocks, 0)


@inlined
def gathered(total, error, room, b, result):
    """A compensated sum with the result of block b, which is kept apart if there is room."""
    if room != 0:
        _keep(room, b, result)
    return compensated(total, error, result)


@intrinsic
def _told(typing_context, told):
    def generate(context, builder, signature, args):
        given = builder.load(builder.inttoptr(builder.neg(args[0]), _SHARE.as_pointer()))
        return context.make_tuple(builder, signature.return_type, [builder.extract_value(given, i) for i in range(3)])

    return types.UniTuple(types.intp, 3)(types.intp), generate


@intrinsic
def _keep(typing_context, room, b, result):
    def generate(context, builder, signature, args):
        room, b, result = args
        builder.store(result, builder.gep(builder.inttoptr(room, _NUMBER.as_pointer()), [b]))
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.float64), generate


@intrinsic
def spread(typing_context, launcher, n_blocks):
    """Let all blocks of the kernel that this stands in be done by several threads; the sum of their results.

    The kernel's first argument is what it is told, and its result a float64.
    """

    def generate(context, builder, signature, args):
        kernel = builder.function
        kernel.attributes.add("noinline")  # of several copies, each would round in its own way
        error, passed = kernel.args[1], list(kernel.args[3:])  # where an error goes, and what follows what it is told
        kind = ir.LiteralStructType([*(value.type for value in passed), error.type.pointee])
        packed = cgutils.alloca_once(builder, kind)
        for i, value in enumerate([*passed, error.type.pointee(None)]):
            builder.store(value, cgutils.gep_inbounds(builder, packed, 0, i))
        result = cgutils.alloca_once(builder, _NUMBER)
        kind_of_launch = ir.FunctionType(_STATUS, (_NUMBER.as_pointer(), error.type, _WORD, _WORD, _WORD))  # as Numba has it
        launch = builder.inttoptr(args[0], kind_of_launch.as_pointer())
        call = builder.ptrtoint(_call_of(kernel, kind), _WORD)
        status = builder.call(launch, (result, error, call, builder.ptrtoint(packed, _WORD), args[1]))
        with cgutils.if_unlikely(builder, builder.icmp_signed("!=", status, status.type(0))):
            builder.store(builder.load(cgutils.gep_inbounds(builder, packed, 0, len(passed))), error)
            builder.ret(status)
        return builder.load(result)

    return types.float64(types.intp, types.intp), generate


def _call_of(kernel: ir.Function, kind: ir.Type) -> ir.Function:
    """A function that has the kernel do a share of its blocks, with arguments that have been packed, and an error put there."""
    function = ir.Function(kernel.module, _CALL, kernel.name + ".share")
    function.linkage = "internal"
    packed, share = function.args
    builder = ir.IRBuilder(function.append_basic_block())
    result, error = cgutils.alloca_once(builder, _NUMBER), cgutils.alloca_once(builder, kernel.args[1].type.pointee)
    room = builder.bitcast(packed, kind.as_pointer())
    *passed, failure = [cgutils.gep_inbounds(builder, room, 0, i) for i in range(len(kind.elements))]
    told = builder.neg(builder.ptrtoint(share, _WORD))
    status = builder.call(kernel, (result, error, told, *map(builder.load, passed)))
    with cgutils.if_unlikely(builder, builder.icmp_signed("!=", status, status.type(0))):
        builder.store(builder.load(error), failure)  # of several, any will do
    builder.ret(status)
    return function


@intrinsic
def _done(typing_context, call, packed, first, last, results):
    """Have a share of the blocks done, and their results put into the array; whether that failed."""

    def generate(context, builder, signature, args):
        call, packed, first, last, results = args
        data = context.make_array(signature.args[4])(context, builder, results).data
        share = cgutils.alloca_once(builder, _SHARE)
        for i, value in enumerate((first, last, builder.ptrtoint(data, _WORD))):
            builder.store(value, cgutils.gep_inbounds(builder, share, 0, i))
        call = builder.inttoptr(call, _CALL.as_pointer())
        return builder.zext(builder.call(call, (builder.inttoptr(packed, _BYTES), share)), _WORD)

    return types.intp(types.intp, types.intp, types.intp, types.intp, results), generate


@intrinsic
def _threads(typing_context):
    """As `numba.get_num_threads`, which cannot be cached."""

    def generate(context, builder, signature, args):
        function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(_WORD, ()), "get_num_threads")
        return builder.call(function, ())

    return types.intp(), generate


def make(stamp):
    def launch(call, packed, n_blocks):
        stamp  # noqa: B018  a closure cell, and so a part of the cache key
        results = np.empty(n_blocks)
        shares = min(_threads(), n_blocks)
        failed = 0
        for i in prange(shares):
            failed += _done(call, packed, np.int64(i) * n_blocks // shares, np.int64(i + 1) * n_blocks // shares, results)
        if failed != 0:
            raise RuntimeError  # in whose place the kernel raises what it has failed with
        return total_of(results)

    return launch


@cache
def launcher() -> Any:
    """The address of `launch`."""
    return address_of(make, "launch", (types.intp, types.intp, types.intp))
