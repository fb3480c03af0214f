"""Whose array is it, and what is its canonical layout."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, Literal

import numpy as np

from . import _validate

Order = Literal["C", "F"]
F4 = np.dtype(np.float32)
F8 = np.dtype(np.float64)
I8 = np.dtype(np.int64)
#: DLPack's numbers of device memory and of managed memory.
CUDA_DEVICES = (2, 13)


def on_device(value: Any) -> bool:
    """Whether `value` is an array in the memory of a CUDA device, of whatever library."""
    kind = type(value)
    if kind is np.ndarray:
        return False
    if hasattr(kind, "__cuda_ndarray__"):  # Numba's own; in its simulator they have nothing else
        return True
    if hasattr(kind, "__dlpack_device__"):
        if hasattr(kind, "is_cuda"):  # torch's tensors tell it much sooner that way
            return bool(value.is_cuda)
        return int(value.__dlpack_device__()[0]) in CUDA_DEVICES
    return hasattr(value, "__cuda_array_interface__")


def real(name: str, value: Any) -> np.ndarray:
    """`value` as an array of real numbers."""
    array = value if type(value) is np.ndarray else _host(name, value)
    if array.dtype is not F4 and array.dtype is not F8 and array.dtype.kind not in "fiub":
        raise _validate.not_real(name, array)
    return array


def _host(name: str, value: Any) -> np.ndarray:
    if on_device(value):
        raise _validate.elsewhere(name)
    return np.asarray(value)


def compute_dtype(*arrays: _validate.AnyArray) -> np.dtype:
    """float32 or float64: what NumPy promotes the floating arguments to; labels and masks of integers do not promote.

    float16 is computed in float32, which holds each of its values, and long double in float64.
    """
    floating = [a.dtype for a in arrays if a.dtype.kind == "f"]
    if arrays[0].dtype.kind != "f":
        floating.append(F8)  # an integer input has the precision of Python's numbers
    return F4 if np.result_type(*floating).itemsize <= 4 else F8


def result_dtype(array: _validate.AnyArray) -> np.dtype:
    """Type of the gradient with respect to `array`: its own, and float64 for integers."""
    if array.dtype is F4 or array.dtype is F8:
        return array.dtype
    return array.dtype.newbyteorder("=") if array.dtype.kind == "f" else F8


def value_dtype(*arrays: _validate.AnyArray) -> np.dtype:
    """Type of the value: what the floating arguments are promoted to."""
    floating = [a.dtype for a in arrays if a.dtype.kind == "f"]
    return np.result_type(*floating) if arrays[0].dtype.kind == "f" else np.result_type(F8, *floating)


def operand(name: str, value: Any, shape: tuple[int, ...], dtype: np.dtype) -> tuple[np.ndarray, int, int]:
    """`value`, broadcast to `shape` without a copy: element i is ``data[i // inner % period]``.

    Most broadcasts repeat an unbroken run of axes; only one that skips an axis in between is copied to its full size.
    """
    array = real(name, value)
    _validate.broadcasts(name, array.shape, shape)
    padded = (1,) * (len(shape) - array.ndim) + array.shape
    own = [axis for axis, (n, full) in enumerate(zip(padded, shape, strict=True)) if n == full != 1]
    if own and padded[own[0] : own[-1] + 1] != shape[own[0] : own[-1] + 1]:
        padded = shape[: own[-1] + 1] + (1,) * (len(shape) - own[-1] - 1)
        array = np.broadcast_to(array.reshape((1,) * (len(shape) - array.ndim) + array.shape), padded)
        own = list(range(own[-1] + 1))
    data = np.ascontiguousarray(array, dtype).reshape(-1)
    inner = prod(shape[own[-1] + 1 :]) if own else max(prod(shape), 1)
    return data, inner, max(data.size, 1)


def apart(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays share no memory, as two that own theirs cannot; asking NumPy takes a tenth of a small loss."""
    return (a.flags.owndata and b.flags.owndata and a is not b) or not np.may_share_memory(a, b)


def read_too(grad_output: Any, vector: np.ndarray | None) -> list[np.ndarray]:
    """What is read beside the arguments of the loss itself."""
    arrays = [] if grad_output is None else [real("grad_output", grad_output)]
    return arrays if vector is None else [*arrays, vector]


def flat(array: np.ndarray) -> np.ndarray:
    """All elements of a contiguous array in the order of the memory."""
    return array if array.ndim == 1 else array.ravel("K")


def same_order(*arrays: np.ndarray) -> Order | None:
    """'C' or 'F' where all arrays are contiguous in that order, else None."""
    if all(a.flags.c_contiguous for a in arrays):
        return "C"
    return "F" if all(a.flags.f_contiguous for a in arrays) else None


def scalar_or_array(array: np.ndarray) -> Any:
    """A zero-dimensional array as a scalar, as NumPy's functions return it."""
    return array[()]


def reduce_to(array: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Sum over the axes along which `shape` was broadcast: the adjoint of broadcasting."""
    if array.shape == tuple(shape):
        return array
    lead = array.ndim - len(shape)
    axes = tuple(range(lead)) + tuple(lead + k for k, n in enumerate(shape) if n == 1 and array.shape[lead + k] != 1)
    return array.sum(axis=axes, dtype=F8, keepdims=True).reshape(shape)
