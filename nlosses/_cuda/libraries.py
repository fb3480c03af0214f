"""Whose arrays they are: how each library's are read, where its memory for results comes from, and how they are handed back.

Most libraries are served by the CUDA array interface and by DLPack.  torch and CuPy give results memory of their own, which
costs a small fraction of what the driver takes for new memory, and torch's tensors are read without an interface in between.
"""

from __future__ import annotations

import sys
from functools import cache
from typing import Any

import numpy as np

from . import _backend, dlpack
from ._array import Array
from .bfloat import BFLOAT16

#: An array, the number of its GPU, and the handle of the stream on which it is ready; 0 where none is stated.
Adopted = tuple[Array, int, int]


# --- results ------------------------------------------------------------------------------------------------------------------


class Numba:
    """Results are Numba's device arrays, in memory that Numba gives."""

    def empty(self, shape: tuple[int, ...], dtype: np.dtype, device: int) -> Array:
        return _backend.empty(shape, dtype)

    def given(self, array: Array, shape: tuple[int, ...], device: int, stream: int) -> Any:
        """The caller's kind of array over all the memory that `empty` gave."""
        return _backend.for_numba(array.view(shape), stream)


class ByDLPack(Numba):
    """Results in Numba's memory, as arrays of a library that takes what ``__dlpack__`` offers."""

    def __init__(self, from_dlpack: Any) -> None:
        self._from_dlpack = from_dlpack

    def given(self, array: Array, shape: tuple[int, ...], device: int, stream: int) -> Any:
        return self._from_dlpack(dlpack.Exported(array.view(shape), device, stream))


class Torch(Numba):
    """torch's memory is that of its current stream, which is the one that the work is done on."""

    def __init__(self, torch: Any) -> None:
        self._torch = torch
        self._kinds = {dtype: kind for kind, dtype in torch_types(torch).items()}

    def empty(self, shape: tuple[int, ...], dtype: np.dtype, device: int) -> Array:
        if dtype not in self._kinds:  # copies of class indices: results are of torch's own types
            return super().empty(shape, dtype, device)
        tensor = self._torch.empty(shape, dtype=self._kinds[dtype], device=_torch_device(self._torch, device))
        return Array(tensor.data_ptr(), shape, None, dtype, tensor)

    def given(self, array: Array, shape: tuple[int, ...], device: int, stream: int) -> Any:
        return array.owner.view(shape)


class CuPy(ByDLPack):
    """CuPy's memory is that of its current stream, which its arrays state; bfloat16, which it allocates none of, by DLPack."""

    def __init__(self, cupy: Any) -> None:
        super().__init__(cupy.from_dlpack)
        self._cupy = cupy

    def empty(self, shape: tuple[int, ...], dtype: np.dtype, device: int) -> Array:
        if dtype == BFLOAT16:
            return super().empty(shape, dtype, device)
        with self._cupy.cuda.Device(device):
            array = self._cupy.empty(shape, dtype)
        return Array(array.data.ptr, shape, None, dtype, array)

    def given(self, array: Array, shape: tuple[int, ...], device: int, stream: int) -> Any:
        if array.dtype == BFLOAT16:
            return super().given(array, shape, device, stream)
        return array.owner.reshape(shape)


NUMBA = Numba()


def library_of(value: Any) -> Numba:
    """How results go back to whoever made `value`."""
    kind = type(value)
    if hasattr(kind, "__cuda_ndarray__"):
        return NUMBA
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):  # or of a subclass, of whatever module
        return _of_module(torch)
    name = kind.__module__.partition(".")[0]
    module = sys.modules.get("jax" if name == "jaxlib" else name)
    return NUMBA if module is None else _of_module(module)


@cache
def _of_module(module: Any) -> Numba:
    own = {"torch": Torch, "cupy": CuPy}.get(module.__name__)
    if own is not None:
        return own(module)
    taker = module.numpy if module.__name__ == "jax" else module
    return ByDLPack(taker.from_dlpack) if hasattr(taker, "from_dlpack") else NUMBA


# --- arguments ----------------------------------------------------------------------------------------------------------------


def adopted(name: str, value: Any) -> Adopted:
    """What a caller's array is, over the same memory."""
    if hasattr(type(value), "__cuda_ndarray__"):
        return _backend.of_numba(value)
    torch = sys.modules.get("torch")
    try:
        if torch is not None and isinstance(value, torch.Tensor):
            return _of_torch(torch, value)
        interface = getattr(value, "__cuda_array_interface__", None)
    except (TypeError, RuntimeError, AttributeError) as error:  # it says what cannot be read, and why
        raise TypeError(f"{name} cannot be read through __cuda_array_interface__: {error}") from None
    by_dlpack = hasattr(type(value), "__dlpack_device__")
    if interface is None:
        return dlpack.imported(name, value), int(value.__dlpack_device__()[1]) if by_dlpack else 0, dlpack.LEGACY
    array = _of_interface(interface, value)
    device = int(value.__dlpack_device__()[1]) if by_dlpack else _backend.device_at(array.pointer)
    return array, device, int(interface.get("stream") or 0)


def _of_interface(interface: dict[str, Any], owner: Any) -> Array:
    strides, shape = interface.get("strides"), tuple(interface["shape"])
    strides = None if strides is None or 0 in shape else tuple(strides)
    pointer, read_only = interface["data"]
    return Array(pointer or 0, shape, strides, np.dtype(interface["typestr"]), owner, bool(read_only))


def _of_torch(torch: Any, tensor: Any) -> Adopted:
    dtype = torch_types(torch).get(tensor.dtype)
    if dtype is None or tensor.requires_grad or tensor.layout is not torch.strided or tensor.is_neg():
        array = _of_interface(tensor.__cuda_array_interface__, tensor)  # which of these tells what cannot be read
    else:
        strides = tuple(dtype.itemsize * step for step in tensor.stride())
        array = Array(tensor.data_ptr(), tuple(tensor.shape), strides, dtype, tensor)
    device = tensor.get_device()
    return array, device, _torch_stream(torch)(device) or dlpack.LEGACY


@cache
def _torch_stream(torch: Any) -> Any:
    """The handle of the current stream of a device; torch's public function makes an object each time."""
    raw = getattr(torch._C, "_cuda_getCurrentRawStream", None)
    return raw or (lambda device: torch.cuda.current_stream(device).cuda_stream)


@cache
def _torch_device(torch: Any, number: int) -> Any:
    return torch.device("cuda", number)


@cache
def torch_types(torch: Any) -> dict[Any, np.dtype]:
    """NumPy's types of torch's."""
    names = ("float32", "float64", "float16", "int64", "int32", "int16", "int8", "uint8", "bool")
    types = {getattr(torch, name): np.dtype(name) for name in names}
    return {**types, torch.bfloat16: BFLOAT16}
