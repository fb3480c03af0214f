"""numba-cuda: compilation, launches, 16-byte accesses and memory.

Kernels are closures over plain Python functions, as on the CPU, so that Numba's disk cache finds them again (see
`nlosses._cpu._jit`); every compiler flag of the target stands here.
"""

from __future__ import annotations

import threading
import types as python
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib import metadata
from typing import Any

import numpy as np
from numba import types

from .. import _scalar, _softmax
from .._cpu._jit import _warn_uncached, reachable, stamp


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

from llvmlite import ir  # noqa: E402
from numba import cuda as _cuda  # noqa: E402
from numba.cuda import cgutils as _cgutils  # type: ignore[attr-defined]  # noqa: E402
from numba.cuda import extending as _extending  # noqa: E402

# What Numba itself has under these names is an older target, which is all that a type checker sees.
cuda: Any = _cuda
cgutils: Any = _cgutils
extending: Any = _extending
intrinsic, overload = extending.intrinsic, extending.overload

INLINED: Any = {"forceinline": True}  # never fastmath: NaN and infinities keep their meaning

_registered: set[Callable[..., Any]] = set(_scalar.PRIMITIVES)
_one_at_a_time = threading.RLock()


@cache
def require() -> None:
    """Raise if there is no GPU to work on."""
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
        self._configured = cache(self._configuration)

    def _configuration(self, grid: int, stream: Any) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of small grids: small problems have no others
            return self._compiled[grid, self.bounds[0], stream]

    def launch(self, grid: int, stream: Any, *args: Any) -> None:
        self._configured(grid, stream)(*args)


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


@contextmanager
def on(number: int) -> Iterator[None]:
    """Work on one of several GPUs."""
    if _alone():
        yield
    else:
        with cuda.gpus[number]:
            yield


@cache
def _alone() -> bool:
    return len(cuda.gpus) == 1


def empty(shape: tuple[int, ...], dtype: np.dtype, stream: Any = 0) -> Any:
    return cuda.device_array(shape, dtype, stream=stream)


def to_device(array: np.ndarray, stream: Any = 0) -> Any:
    return cuda.to_device(array, stream=stream)


def to_host(array: Any, stream: Any = 0) -> np.ndarray:
    """A copy in host memory, once all work of the stream is done."""
    host = array.copy_to_host(stream=stream)
    if stream:
        stream.synchronize()
    return host


def pointer(array: Any) -> int:
    return array.__cuda_array_interface__["data"][0]


def from_pointer(address: int, shape: tuple[int, ...], strides: tuple[int, ...] | None, dtype: np.dtype, owner: Any) -> Any:
    """Foreign memory as a device array; strides in bytes."""
    interface = {"shape": shape, "strides": strides, "typestr": dtype.str, "data": (address, False), "version": 3}
    return cuda.from_cuda_array_interface(interface, owner=owner, sync=False)


def view(array: Any, shape: tuple[int, ...], strides: tuple[int, ...] | None = None, offset: int = 0) -> Any:
    """Other shape and strides (in bytes) of the same memory; contiguous where no strides are given."""
    if 0 in shape:
        return empty(shape, array.dtype)
    return from_pointer(pointer(array) + offset, shape, strides, array.dtype, array)


def device_of(array: Any) -> int:
    """Number of the GPU that holds the memory of a device array."""
    return int(array.gpu_data.context.device.id) if array.size else cuda.get_current_device().id


def stream_of(handle: int) -> Any:
    """Numba's stream for a raw handle; 1 and 2 stand for the default streams, as in the CUDA array interface."""
    if handle in (0, 1):
        return 0
    return cuda.per_thread_default_stream() if handle == 2 else cuda.external_stream(handle)
