"""DLPack both ways, for libraries whose arrays come or go by it: https://dmlc.github.io/dlpack/latest/c_api.html."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from ._array import Array
from ._backend import SIMULATED, synchronize

CPU, CUDA = 1, 2
LEGACY = 1  # the stream that nothing else says
#: NumPy's letter of a kind, and DLPack's number; V is bfloat16, which NumPy has not: see `bfloat`.
KINDS = {"i": 0, "u": 1, "f": 2, "V": 4, "b": 6}


class _DataType(ctypes.Structure):
    _fields_ = [("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16)]


class _Tensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p), ("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32), ("ndim", ctypes.c_int32),
        ("dtype", _DataType), ("shape", ctypes.POINTER(ctypes.c_int64)), ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]  # fmt: skip


class _Managed(ctypes.Structure):
    pass


_Deleter = ctypes.CFUNCTYPE(None, ctypes.POINTER(_Managed))
_Managed._fields_ = [("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", _Deleter)]
_Destructor = ctypes.CFUNCTYPE(None, ctypes.c_void_p)

_python: Any = ctypes.PyDLL(None)
_python.PyCapsule_New.restype = ctypes.py_object
_python.PyCapsule_New.argtypes = [ctypes.c_void_p, ctypes.c_char_p, _Destructor]
_python.PyCapsule_IsValid.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
_python.PyCapsule_GetPointer.restype = ctypes.c_void_p
_python.PyCapsule_GetPointer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
_python.PyCapsule_SetName.argtypes = [ctypes.c_void_p, ctypes.c_char_p]

FRESH, USED = b"dltensor", b"used_dltensor"

#: What is in other hands: the description by its address, with all that must live as long.
_lent: dict[int, Any] = {}


@_Deleter
def _returned(managed: Any) -> None:
    _lent.pop(ctypes.addressof(managed.contents), None)


@_Destructor
def _never_taken(capsule: Any) -> None:
    if _python.PyCapsule_IsValid(capsule, FRESH):
        _lent.pop(_python.PyCapsule_GetPointer(capsule, FRESH), None)


class Exported:
    """A contiguous array, made on a stream, that any library's ``from_dlpack`` takes."""

    def __init__(self, array: Array, device: int, stream: int = 0) -> None:
        self.array = array
        self._stream = stream or LEGACY
        self._device = (CPU, 0) if SIMULATED else (CUDA, device)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._device

    def __dlpack__(self, *, stream: Any = None, **_: Any) -> Any:
        if stream != -1 and self._stream != (int(stream) if stream else LEGACY):
            synchronize(self._stream)  # it is ready on that stream alone
        dtype = self.array.dtype
        shape = (ctypes.c_int64 * max(self.array.ndim, 1))(*self.array.shape)
        kind = _DataType(KINDS[dtype.kind], dtype.itemsize * 8, 1)
        tensor = _Tensor(self.array.pointer, *self._device, self.array.ndim, kind, shape, None, 0)
        managed = _Managed(tensor, None, _returned)
        address = ctypes.addressof(managed)
        _lent[address] = (managed, shape, self.array)
        return _python.PyCapsule_New(address, FRESH, _never_taken)


class _Taken:
    """Memory that another library has lent."""

    def __init__(self, managed: Any) -> None:
        self._managed = managed

    def __del__(self) -> None:
        if self._managed.contents.deleter:
            self._managed.contents.deleter(self._managed)


def imported(name: str, value: Any) -> Array:
    """The array of a library without a CUDA array interface, over the same memory."""
    try:
        capsule = value.__dlpack__()
    except (AttributeError, BufferError, RuntimeError, TypeError) as error:
        raise TypeError(f"{name} cannot be read through __dlpack__: {error}") from None
    address = _python.PyCapsule_GetPointer(id(capsule), FRESH)
    managed = ctypes.cast(address, ctypes.POINTER(_Managed))
    _python.PyCapsule_SetName(id(capsule), USED)
    owner = _Taken(managed)
    tensor = managed.contents.tensor
    letters = [k for k, code in KINDS.items() if code == tensor.dtype.code]
    odd = letters == ["V"] and tensor.dtype.bits != 16
    if not letters or odd or tensor.dtype.lanes != 1:
        got = f"DLPack's type {tensor.dtype.code} of {tensor.dtype.bits} bits"
        raise TypeError(f"{name} must hold real numbers that NumPy has, or bfloat16, got {got}")
    dtype = np.dtype(f"{letters[0]}{tensor.dtype.bits // 8}")
    shape = tuple(tensor.shape[k] for k in range(tensor.ndim))
    strides = tuple(tensor.strides[k] * dtype.itemsize for k in range(tensor.ndim)) if tensor.strides else None
    return Array((tensor.data or 0) + tensor.byte_offset, shape, strides, dtype, owner)
