"""numba-cuda: compilation, launches, 16-byte accesses and memory.

Kernels are closures over plain Python functions, as on the CPU, so that Numba's disk cache finds them again (see
`nlosses._cpu._jit`); every compiler flag of the target stands here.
"""

from __future__ import annotations

import ctypes
import struct
import threading
import types as python
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from functools import cache
from importlib import metadata
from math import prod
from typing import Any

import numpy as np
from numba import types

from .. import _scalar, _softmax
from .._cpu._jit import _warn_uncached, reachable, stamp
from ._array import Array


def _versions() -> str:
    """Version of numba-cuda, if what is installed can work together."""
    try:
        version = metadata.version("numba-cuda")
    except metadata.PackageNotFoundError:
        raise ImportError(
            "arrays on a CUDA device need numba-cuda, which is not installed: pip install 'nlosses[cuda]'"
        ) from None
    if tuple(map(int, np.__version__.split(".")[:2])) >= (2, 5):  # it uses np.row_stack, and will not be mended
        raise ImportError(
            f"numba-cuda {version} cannot compile with NumPy {np.__version__}, only below 2.5: pip install 'nlosses[cuda]'"
        )
    return version


VERSION = _versions()
#: Threads of a warp.
WARP = 32

from cuda.bindings import driver  # noqa: E402
from llvmlite import ir  # noqa: E402
from numba import cuda as _cuda  # noqa: E402
from numba.cuda import cgutils as _cgutils  # type: ignore[attr-defined]  # noqa: E402
from numba.cuda import extending as _extending  # noqa: E402
from numba.cuda.cudadrv import driver as _memory  # noqa: E402
from numba.cuda.np.numpy_support import from_dtype  # noqa: E402

# What Numba itself has under these names is an older target, which is all that a type checker sees.
cuda: Any = _cuda
cgutils: Any = _cgutils
extending: Any = _extending
intrinsic, overload = extending.intrinsic, extending.overload

INLINED: Any = {"forceinline": True}  # never fastmath: NaN and infinities keep their meaning

_registered: set[Callable[..., Any]] = set(_scalar.PRIMITIVES)
_one_at_a_time = threading.RLock()


def require() -> None:
    """Raise if there is no GPU to work on, and see to it that this thread can."""
    _available()
    status, context = driver.cuCtxGetCurrent()
    if status or not int(context):
        cuda.current_context()


@cache
def _available() -> None:
    if not cuda.is_available():
        raise RuntimeError(f"no CUDA device or no driver was found: {cuda.cuda_error()}")


# --- functions that kernels call ---------------------------------------------------------------------------------------


def device(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let kernels call `function`, and all that it calls, as they stand; a decorator."""
    for f in reachable(function):
        if f not in _registered:
            _registered.add(f)
            _attach(f)
    return function


def _attach(function: Callable[..., Any]) -> None:
    overload(function, target="cuda", jit_options=INLINED, strict=False)(lambda *args: function)


def primitive(function: Callable[..., Any], choose: Callable[..., Any]) -> None:
    """Give a primitive of `nlosses._scalar` its implementation; `choose` takes the types of the arguments."""
    overload(function, target="cuda", jit_options=INLINED)(choose)


for _function in (*_scalar.COMPOSITIONS, *vars(_softmax).values()):
    if isinstance(_function, python.FunctionType):
        device(_function)


# --- memory, as kernels see it -------------------------------------------------------------------------------------------
# An index is never negative here, and Numba's own indexing spends instructions on the case that it were.


def _address(context: Any, builder: Any, kind: Any, array: Any, i: Any) -> Any:
    data = cgutils.create_struct_proxy(kind)(context, builder, array).data
    return builder.gep(data, [i])


@intrinsic
def load(typing_context, array, i):
    """``array[i]``."""
    kind = array

    def generate(context, builder, signature, args):
        index = context.cast(builder, args[1], signature.args[1], types.int64)
        pointer = _address(context, builder, kind, args[0], index)
        return context.unpack_value(builder, kind.dtype, pointer)

    return array.dtype(array, i), generate


@intrinsic
def store(typing_context, array, i, value):
    """``array[i] = value``."""
    kind = array

    def generate(context, builder, signature, args):
        index = context.cast(builder, args[1], signature.args[1], types.int64)
        pointer = _address(context, builder, kind, args[0], index)
        context.pack_value(builder, kind.dtype, args[2], pointer)
        return context.get_dummy_value()

    return types.void(array, i, array.dtype), generate


def _vector(context: Any, dtype: Any) -> tuple[Any, int]:
    width = 128 // dtype.bitwidth
    return ir.VectorType(context.get_value_type(dtype), width), width


@intrinsic
def load16(typing_context, buffer, k, array, i):
    """16 bytes of `array`, from its element i on, to the elements of `buffer` from k on, in one access."""
    into, source = buffer, array

    def generate(context, builder, signature, args):
        k, i = (context.cast(builder, args[n], signature.args[n], types.int64) for n in (1, 3))
        vector, width = _vector(context, source.dtype)
        pointer = builder.bitcast(_address(context, builder, source, args[2], i), vector.as_pointer())
        loaded = builder.load(pointer, align=16)
        for n in range(width):
            offset = builder.add(k, ir.Constant(k.type, n))
            element = builder.extract_element(loaded, ir.Constant(ir.IntType(32), n))
            builder.store(element, _address(context, builder, into, args[0], offset))
        return context.get_dummy_value()

    return types.void(buffer, k, array, i), generate


@intrinsic
def store16(typing_context, array, i, buffer, k):
    """The inverse of `load16`."""
    target, source = array, buffer

    def generate(context, builder, signature, args):
        i, k = (context.cast(builder, args[n], signature.args[n], types.int64) for n in (1, 3))
        vector, width = _vector(context, target.dtype)
        packed = ir.Constant(vector, ir.Undefined)
        for n in range(width):
            offset = builder.add(k, ir.Constant(k.type, n))
            element = builder.load(_address(context, builder, source, args[2], offset))
            packed = builder.insert_element(packed, element, ir.Constant(ir.IntType(32), n))
        pointer = builder.bitcast(_address(context, builder, target, args[0], i), vector.as_pointer())
        builder.store(packed, pointer, align=16)
        return context.get_dummy_value()

    return types.void(array, i, buffer, k), generate


# --- kernels -------------------------------------------------------------------------------------------------------------


def checked(status: tuple[Any, ...]) -> Any:
    """What the driver returned, or the error that it reported."""
    if status[0]:
        raise RuntimeError(f"the CUDA driver reports {status[0].name}")
    return status[1] if len(status) > 1 else None


class Kernel:
    """A kernel, compiled at its first launch for the types that it is given."""

    def __init__(self, function: Callable[..., Any], threads: int, blocks_per_processor: int) -> None:
        self.function = function
        self.bounds = (threads, blocks_per_processor)
        try:
            self._compiled = cuda.jit(function, cache=True, launch_bounds=self.bounds)
        except RuntimeError as error:  # no folder for the cache can be written
            _warn_uncached(str(error))
            self._compiled = cuda.jit(function, launch_bounds=self.bounds)
        self._loaded: dict[tuple[Any, ...], _Loaded] = {}

    def launch(self, device: int, stream: int, grid: int, *args: Any) -> None:
        """Run `grid` blocks in a stream; what is not an `Array` is a float or an integer of 64 bits.

        Numba's own launch takes several times as long as a small kernel runs, most of it for arrays of which it need not know
        the type.
        """
        key: list[Any] = [device]
        words: list[Any] = []
        for a in args:
            if a.__class__ is Array:
                key.append((a.dtype, a.ndim))
                words += (0, 0, a.size, a.dtype.itemsize, a.pointer, *a.shape, *a.strides)
            else:
                key.append(float if isinstance(a, float) else int)
                words.append(a)
        loaded = self._loaded.get(tuple(key))
        if loaded is None:
            loaded = self._loaded[tuple(key)] = self._load(tuple(key[1:]))
        loaded.launch(stream, grid, words)

    def _load(self, kinds: tuple[Any, ...]) -> _Loaded:
        """The kernel for arguments of these kinds, in the memory of the current device."""
        with _one_at_a_time, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of small grids: small problems have no others
            compiled = self._compiled.compile(types.void(*map(_numba_type, kinds)))
            handle = int(compiled._codelibrary.get_cufunc().handle)
        return _Loaded(handle, self.bounds[0], "".join(map(_letters, kinds)))


def _numba_type(kind: Any) -> Any:
    if isinstance(kind, tuple):
        return types.Array(from_dtype(kind[0]), kind[1], "C" if kind[1] == 1 else "A")
    return types.float64 if kind is float else types.int64


def _letters(kind: Any) -> str:
    """How `struct` packs an argument: an array is two empty pointers, size, item size, address, shape and strides."""
    if isinstance(kind, tuple):
        return "q" * (5 + 2 * kind[1])
    return "d" if kind is float else "q"


class _Loaded(threading.local):
    """A compiled kernel on one device, and each host thread's memory for its arguments, which are eight bytes each."""

    def __init__(self, handle: int, threads: int, letters: str) -> None:
        self._function = driver.CUfunction(handle)
        self._threads = threads
        self._words = struct.Struct(f"={letters}")
        self._memory = ctypes.create_string_buffer(self._words.size)
        start = ctypes.addressof(self._memory)
        self._each = (ctypes.c_void_p * len(letters))(*(start + 8 * k for k in range(len(letters))))
        self._arguments = ctypes.addressof(self._each)

    def launch(self, stream: int, grid: int, words: list[Any]) -> None:
        self._words.pack_into(self._memory, 0, *words)
        checked(
            driver.cuLaunchKernel(self._function, grid, 1, 1, self._threads, 1, 1, 0, stream, self._arguments, 0)
        )  # fmt: skip


def build(
    make: Callable[..., Callable[..., Any]], name: str, cells: dict[str, Any], threads: int, blocks_per_processor: int = 1
) -> Kernel:
    """The kernel that ``make(**cells, stamp=...)`` returns, for blocks of so many threads."""
    with _one_at_a_time:
        functions = tuple(c for c in cells.values() if isinstance(c, python.FunctionType))
        for function in functions:
            device(function)
        kernel = make(**cells, stamp=stamp(*functions))
        kernel.__name__ = kernel.__qualname__ = name
        return Kernel(kernel, threads, blocks_per_processor)


# --- memory, as the host sees it ------------------------------------------------------------------------------------------
# A stream is its handle, a number; 0 is the legacy default stream.

_HERE: Any = nullcontext()


def on(number: int) -> Any:
    """Work on one of several GPUs, in a `with` statement."""
    return _HERE if _alone() else cuda.gpus[number]


@cache
def _alone() -> bool:
    return len(cuda.gpus) == 1


def empty(shape: tuple[int, ...], dtype: np.dtype) -> Array:
    size = prod(shape) * dtype.itemsize
    if size == 0:
        return Array(0, shape, None, dtype, None)
    memory = cuda.current_context().memalloc(size)
    return Array(int(memory.device_pointer), shape, None, dtype, memory)


def to_device(array: np.ndarray, stream: int = 0) -> Array:
    copy = empty(array.shape, array.dtype)
    array = np.ascontiguousarray(array)
    if array.size:
        checked(driver.cuMemcpyHtoDAsync(copy.pointer, array.ctypes.data, array.nbytes, stream))
        synchronize(stream)
    return copy


def to_host(array: Array, stream: int = 0) -> np.ndarray:
    """A copy of a contiguous array in host memory, once all work of the stream is done."""
    host = np.empty(array.shape, array.dtype)
    if host.size:
        checked(driver.cuMemcpyDtoHAsync(host.ctypes.data, array.pointer, host.nbytes, stream))
        synchronize(stream)
    return host


def shared(size: int) -> tuple[np.ndarray, Array]:
    """float64 numbers that kernels write and the host reads, without a copy, once it has waited for them."""
    mapped = cuda.mapped_array(size, np.float64)
    host = np.ndarray.view(mapped, np.ndarray)  # without the methods of a device array
    host[...] = 0
    return host, Array(int(mapped.gpu_data.device_pointer), (size,), None, host.dtype, mapped)


def synchronize(stream: int) -> None:
    """Wait for all work of a stream."""
    checked(driver.cuStreamSynchronize(stream))


def of_numba(value: Any) -> tuple[Array, int, int]:
    """One of Numba's device arrays as an `Array`, the number of its GPU, and the stream on which it is ready."""
    pointer = int(value.gpu_data.device_pointer) if value.size else 0
    array = Array(pointer, value.shape, value.strides, value.dtype, value)
    return array, device_of(value), _handle(value.stream)


def _handle(stream: Any) -> int:
    """1 and 2 stand for the default streams, as in the CUDA array interface and for the driver."""
    return int(stream) if stream else 0


def for_numba(array: Array, stream: int) -> Any:
    """A contiguous `Array` as one of Numba's, which tells on which stream it is ready."""
    memory = array.owner
    if array.size and int(getattr(memory, "device_pointer", 0)) != array.pointer:
        memory = _memory.MemoryPointer(cuda.current_context(), driver.CUdeviceptr(array.pointer), array.nbytes, owner=array)
    return cuda.cudadrv.devicearray.DeviceNDArray(
        array.shape, array.strides, array.dtype, stream=_numba_stream(stream), gpu_data=memory
    )


@cache
def _numba_stream(handle: int) -> Any:
    return cuda.external_stream(handle) if handle > 1 else 0


def device_of(value: Any) -> int:
    """Number of the GPU that holds one of Numba's device arrays."""
    if _alone():
        return 0
    return int(value.gpu_data.context.device.id) if value.size else cuda.get_current_device().id


def device_at(pointer: int) -> int:
    """Number of the GPU that holds an address."""
    if _alone() or not pointer:
        return 0
    attribute = driver.CUpointer_attribute.CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL
    return int(checked(driver.cuPointerGetAttribute(attribute, pointer)))
