"""Where a gradient is written: a fresh array, the caller's `out`, or a buffer that is copied into it at the end."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from . import _arrays, _memory, _validate

#: Types of arguments that have no memory which anything else might be written to.
MEMORYLESS = (type(None), str, bool, int, float, np.generic)


def divided(a: float, b: float) -> float:
    """a / b as floating point has it."""
    if b != 0:
        return a / b
    return math.nan if a == 0 or a != a else math.copysign(math.inf, a)


def same_memory(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two contiguous arrays are the same elements in the same order."""
    return a.size == b.size and a.dtype == b.dtype and a.__array_interface__["data"] == b.__array_interface__["data"]


def serves(out: Any, shape: tuple[int, ...], dtype: np.dtype, input: np.ndarray, target: np.ndarray, in_place: bool) -> bool:
    """Whether a kernel that computes in `dtype` and reads nothing but input and target can write to `out` as it is, and if it
    is the input, where the kernel can do that `in_place`.

    What `Result` finds out too, without its microseconds and for C order alone.
    """
    if type(out) is not np.ndarray or out.dtype is not dtype or not (flags := out.flags).carray or out.shape != shape:
        return False
    if out is target or (out is input and not in_place):
        return False
    if flags.owndata and input.flags.owndata and target.flags.owndata:  # arrays that own their memory share none
        return True
    return (out is input or not np.may_share_memory(out, input)) and not np.may_share_memory(out, target)


def may_share(out: np.ndarray, arguments: tuple[Any, ...]) -> bool:
    """Whether an argument, as it was given, may have memory of `out`; what holds memory in its own way may."""
    holding = [a for a in arguments if not isinstance(a, MEMORYLESS)]
    return any(not isinstance(a, np.ndarray) or not _arrays.apart(out, a) for a in holding)


class Result:
    """The derivative with respect to `argument`, of its shape and dtype.

    `kernel_out` is what the kernel writes: contiguous, aligned, of the compute dtype and the shape of the loss.  It may be the
    memory of `kernel_argument`, element for element, but never overlaps the arrays of `used`.
    """

    __slots__ = ("argument", "buffer", "kernel_out", "out")

    def __init__(
        self,
        owner: str,
        argument: np.ndarray,
        shape: tuple[int, ...],
        dtype: np.dtype,
        order: _arrays.Order,
        out: Any,
        kernel_argument: np.ndarray | None,
        used: Sequence[np.ndarray],
    ) -> None:
        self.argument = argument
        self.out = out
        if out is None:
            self.buffer = _memory.empty(shape, dtype, order)
            self.kernel_out = _arrays.flat(self.buffer)
            return
        _validate.out(owner, out, argument.shape, _arrays.result_dtype(argument))
        contiguous = out.flags.f_contiguous if order == "F" else out.flags.c_contiguous
        if type(out) is np.ndarray and contiguous and out.flags.aligned and out.dtype == dtype and out.shape == shape:
            flat = _arrays.flat(out)
            clear = all(_arrays.apart(out, array) for array in used)
            if clear and kernel_argument is not None and not _arrays.apart(out, kernel_argument):
                clear = same_memory(flat, kernel_argument)
            if clear:
                self.buffer = out
                self.kernel_out = flat
                return
        self.buffer = _memory.empty(shape, dtype, order)
        self.kernel_out = _arrays.flat(self.buffer)

    def finished(self) -> Any:
        """The array to hand back."""
        if self.out is None:
            grad = self.buffer
            if grad.shape != self.argument.shape:
                grad = _arrays.reduce_to(grad, self.argument.shape)
            dtype = _arrays.result_dtype(self.argument)
            return _arrays.scalar_or_array(grad if grad.dtype is dtype else grad.astype(dtype, copy=False))
        if self.buffer is not self.out:
            self.out[...] = _arrays.reduce_to(self.buffer, self.argument.shape)
        return self.out
