"""What the drivers share: block sizes, deterministic sums, and operands that are broadcast without being copied."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.core import cgutils
from numba.extending import intrinsic

from .._scalar import maximum
from . import _vector
from ._jit import inlined, jitable, optional, summable
from ._vector import LINE

#: Elements that one vector loop runs over, and the room of a `stack_buffer`.
CHUNK = 512
#: Bytes of exponentials that are summed in the caller's precision, which is a third quicker than in float64, before the sum
#: goes on in float64.
SUMMED = 2048
WIDE = np.dtype(np.float64)
#: Elements of one unit of parallel work.  Sizes depend on nothing but the number of elements, hence so do all roundings.
BLOCK = 4096
#: An operand that is broadcast: element i of it is ``data[i // inner % period]``.
Operand = tuple[Any, int, int]


@summable
def add(a, b):
    return a + b


@inlined
def compensated(total, error, x):
    """One step of Neumaier's sum: new total and new running error."""
    s = total + x
    if abs(total) >= abs(x):
        lost = (total - s) + x
    else:
        lost = (x - s) + total
    return s, error + lost


@inlined
def rounder_of(x):
    """Added to a small whole number, it leaves it in the low bits of the sum."""
    T = x.dtype.type
    return T(1.5) / T(np.finfo(T).eps)


@jitable
def total_of(partial):
    total = 0.0
    error = 0.0
    for i in range(partial.size):
        total, error = compensated(total, error, partial[i])
    return closed(total, error)


@jitable
def closed(total, error):
    """End of Neumaier's sum; once the total is infinite its error is NaN and means nothing."""
    return total + error if np.isfinite(total) else total


@inlined
def copy(target, source, n):
    for i in range(n):
        target[i] = source[i]


@inlined
def add_chunk(total, error, buffer, n):
    """Add the first n elements of a `stack_buffer` to a Neumaier sum.

    Four vectors take them up in a fixed order, a few elements for each lane, and their sum goes on in float64.  Where it is not
    finite, which may be but too large for float32, all are added one by one.
    """
    T = buffer.dtype.type
    step = _vector.short_lanes_of(buffer)
    whole = n + -n % (4 * step)
    for i in range(n, whole):
        buffer[i] = T(0)
    zero = _vector.filled_short(buffer, 0.0)
    a, b, c, d = zero, zero, zero, zero
    for k in range(0, whole, 4 * step):
        a = a + _vector.load_short(buffer, k)
        b = b + _vector.load_short(buffer, k + step)
        c = c + _vector.load_short(buffer, k + 2 * step)
        d = d + _vector.load_short(buffer, k + 3 * step)
    s = _vector.total((_vector.widened(a) + _vector.widened(b)) + (_vector.widened(c) + _vector.widened(d)))
    if np.isfinite(s):
        return compensated(total, error, s)
    for i in range(n):
        total, error = compensated(total, error, np.float64(buffer[i]))
    return total, error


@jitable
def bounds_of(xs):
    """The largest element of an array that is not empty, and the largest magnitude; NaN if it holds one."""
    m = xs[0]
    reach = abs(m)
    for j in range(xs.size):
        x = xs[j]
        m = maximum(m, x)
        reach = maximum(reach, abs(x))
    return m, reach


@optional
def pick(block, i):
    """``block[i]``, and None where there is no block."""
    return block[i]


@optional
def view(block, lo, hi):
    """``block[lo:hi]``, and None where there is no block."""
    return block[lo:hi]


@intrinsic
def _on_stack(typing_context, dtype):
    pointer = types.CPointer(dtype.dtype)

    def generate(context, builder, signature, args):
        line = LINE * 8 // dtype.dtype.bitwidth
        room = cgutils.alloca_once(builder, context.get_data_type(dtype.dtype), size=line + CHUNK)
        room.align = LINE
        return builder.gep(room, [ir.IntType(64)(line)])

    return pointer(dtype), generate


@inlined
def stack_buffer(dtype):
    """An array of `CHUNK` numbers on the stack, with room for a line before it, which LLVM knows to overlap with nothing.

    Of other arrays it must ask while running: a loop over more than a few does not vectorise, and one over two that happen
    to lie side by side runs element by element and adds in another order.
    """
    return carray(_on_stack(dtype), CHUNK)


@intrinsic
def uncounted(typing_context, array):
    """The array, and None where there is none, without its count of references, which each slice and each call would raise and
    lower again.

    The array must live on: that of an argument does, and see `alive`.
    """
    if isinstance(array, types.NoneType):
        return array(array), lambda context, builder, signature, args: args[0]

    def generate(context, builder, signature, args):
        view = cgutils.create_struct_proxy(array)(context, builder, args[0])
        for name in ("meminfo", "parent"):
            setattr(view, name, cgutils.get_null_value(getattr(view, name).type))
        return view._getvalue()

    return array(array), generate


@intrinsic
def alive(typing_context, array):
    """Keep an array until here, where nothing is done with it."""
    return types.void(array), lambda context, builder, signature, args: context.get_dummy_value()


@jitable
def aligned(n, like):
    """An array of n numbers of the type of `like` that begins with a cache line."""
    room = np.empty(n + LINE // like.itemsize, like.dtype)
    first = -room.ctypes.data % LINE // like.itemsize
    return room[first : first + n]


@intrinsic
def summed(typing_context, x):
    """How many elements of the array x are `SUMMED` bytes, as a constant that LLVM knows."""
    elements = SUMMED * 8 // x.dtype.bitwidth
    return types.intp(x), lambda context, builder, signature, args: context.get_constant(types.intp, elements)


@optional
def as_in(number, x):
    """`number` in the precision of the array x, and None where there is none."""
    return x.dtype.type(number)


@jitable
def near(out, x):
    """Whether a loop over both might take them for overlapping: the same memory, or side by side.

    Compiled loops ask while running whether what they write overlaps with what they read, and then go element by element.
    """
    return abs(np.int64(out.ctypes.data) - np.int64(x.ctypes.data)) < 2 * SUMMED


@optional
def destination(out, lo, hi, buffer, by_way):
    """Where to write the elements lo to hi of `out` first: there, or `by_way` of the buffer, as for an input that is `near`."""
    return buffer if by_way else out[lo:hi]


@optional
def placed(out):
    """`out` as a pointer, for loops that go into it vector by vector."""
    return _vector.pointer(out)


@optional
def put(target, at, vector):
    """Write a vector, if there is somewhere to write it."""
    _vector.store(target, at, vector)


@optional
def fetched(target, at):
    """Have a line fetched that is to be written, if there is one."""
    _vector.prefetch_to_write(target, at)


@optional
def staged(operand, lo, n, block, first):
    """Elements lo to lo + n of an operand ``(data, inner, period)``, whose element i is ``data[i // inner % period]``.

    They are in `block`, a `stack_buffer`, so that the loop that reads them need not ask what they overlap with.  A single
    number is put there only the `first` time.
    """
    data, inner, period = operand
    if period == 1 and not first:
        return block
    k = lo // inner % period
    i = 0
    if inner == 1:
        while i < min(n, period):
            run = min(period - k, n - i, period - i)
            copy(block[i:], data[k:], run)
            i += run
            k = 0
        while i < n:  # what is there so far are whole periods, and is doubled
            run = min(i, n - i)
            copy(block[i:], block, run)
            i += run
    else:
        left = inner - lo % inner
        while i < n:
            run = min(left, n - i)
            to = block[i:]
            number = data[k]
            for j in range(run):
                to[j] = number
            i += run
            left = inner
            k = k + 1 if k + 1 < period else 0
    return block
