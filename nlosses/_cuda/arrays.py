"""Arrays on a GPU, whoever made them: where they are, what is contiguous, and copies where none can be avoided.

An argument comes through the CUDA array interface (Numba, CuPy, torch, JAX) or, without that, through DLPack.  Results go
back as arrays of the library that the input came from, if it offers ``from_dlpack``.
"""

from __future__ import annotations

import sys
from functools import lru_cache
from math import prod
from threading import get_ident
from typing import Any

import numpy as np

from .. import _arrays, _validate
from . import _backend, copies, dlpack
from ._blocks import FULL, GRID, REPEATED, RESULTS, SINGLE
from .bfloat import BFLOAT16, BITS, is_bfloat16, retyped

ALIGNMENT = 16  # bytes of a vector access

#: An operand: its elements, `inner` and `period` (element i is ``data[i // inner % period]``), and the kind of that.
Operand = tuple[Any, int, int, int]


class Queue:
    """Where one call's work is done: a GPU, a stream of it, and the arrays that its sums go through.

    One host thread's calls on one stream follow one another, so that these arrays serve all of them.
    """

    def __init__(self, device: int, stream: Any) -> None:
        self.device = device
        self.stream = stream
        partial = _backend.empty((2 * GRID,), _arrays.F8, stream)
        counter = _backend.to_device(np.zeros(1, np.uint32), stream)
        self.results = _backend.empty((RESULTS,), _arrays.F8, stream)
        #: What kernels take to sum over their grid.
        self.summing = (partial, counter, self.results)

    def launch(self, kernel: Any, blocks: int, *args: Any) -> None:
        with _backend.on(self.device):
            kernel.launch(blocks, self.stream, *args)

    def empty(self, shape: tuple[int, ...], dtype: np.dtype) -> Any:
        with _backend.on(self.device):
            return _backend.empty(shape, dtype, self.stream)

    def fetched(self) -> list[float]:
        """The results, once all that was launched is done."""
        with _backend.on(self.device):
            return [float(r) for r in _backend.to_host(self.results, self.stream)]


def width(row: int, *arrays: Any) -> int:
    """Elements of one access: 16 bytes where all arrays, and their rows of so many elements, are aligned to them, else one."""
    elements = ALIGNMENT // arrays[0].dtype.itemsize
    return 1 if row % elements or any(_backend.pointer(a) % ALIGNMENT for a in arrays) else elements


@lru_cache(maxsize=64)
def _queue(device: int, handle: int, thread: int) -> Queue:
    return Queue(device, _backend.stream_of(handle))


class Place:
    """The one GPU that holds all arrays of a call, and what the first of them decides: the stream, and the kind of results."""

    def __init__(self, owner: str, arguments: dict[str, Any]) -> None:
        _backend.require()
        self.owner = owner
        self._widened: dict[int, Any] = {}  # what bfloat16 came in
        where = {name: _number(value) for name, value in arguments.items() if not _is_number(value)}
        devices = set(where.values())
        if len(devices) > 1:
            raise _validate.scattered(owner, where)
        (device,) = devices
        assert device is not None
        first = next(value for value in arguments.values() if not _is_number(value))
        self._library = _library(first)
        self.device: int = device
        with _backend.on(self.device):
            own = _handle(first)
            self.queue = _queue(self.device, own, get_ident())
            for handle in {_handle(v) for v in arguments.values() if not _is_number(v)} - {own}:
                stream = _backend.stream_of(handle)
                if stream:  # the work goes on in the first one's stream, so the host waits for the others
                    stream.synchronize()

    # --- from the caller ---------------------------------------------------------------------------------------------------

    def real(self, name: str, value: Any) -> Any:
        """`value` as a device array of real numbers; nothing is copied but bfloat16, to float32."""
        if _is_number(value):
            return _constant(self.device, float(value), _arrays.F8)
        array = self.stored(name, value)
        if array.dtype != BFLOAT16:
            return array
        shape = tuple(array.shape)
        wide = _backend.view(self.flat(array, _arrays.F4), shape)
        self._widened[id(wide)] = wide
        return wide

    def stored(self, name: str, value: Any) -> Any:
        """`value` as it is in memory, where bfloat16 is `BFLOAT16`."""
        array = _adopted(name, value)
        if is_bfloat16(array.dtype):
            return array if array.dtype == BFLOAT16 else retyped(array, BFLOAT16)
        if array.dtype.kind not in "fiub" or array.dtype.itemsize > 8:
            raise _validate.not_real(name, array)
        return array

    def result_dtype(self, array: Any) -> np.dtype:
        """As `_arrays.result_dtype`, with bfloat16."""
        return BFLOAT16 if id(array) in self._widened else _arrays.result_dtype(array)

    def value_dtype(self, *several: Any) -> np.dtype:
        """As `_arrays.value_dtype`, with bfloat16."""
        floating = [a for a in several if a.dtype.kind == "f"]
        narrow = several[0].dtype.kind == "f" and all(id(a) in self._widened for a in floating)
        return BFLOAT16 if narrow else np.dtype(_arrays.value_dtype(*several))

    def flat(self, array: Any, dtype: np.dtype, shape: tuple[int, ...] | None = None) -> Any:
        """All elements in row-major order, of one type, broadcast to `shape`; copied only if they are not like that."""
        shape = tuple(array.shape) if shape is None else shape
        if tuple(array.shape) == shape and array.dtype == dtype and contiguous(array):
            return array if array.ndim == 1 else _backend.view(array, (prod(shape),))
        out = self.queue.empty((prod(shape),), dtype)
        copies.copy(self.queue, _broadcast(array, shape), shape, out)
        return out

    def operand(self, name: str, value: Any, shape: tuple[int, ...], dtype: np.dtype) -> Operand:
        """`value`, broadcast to `shape` without a copy where it repeats an unbroken run of axes: see `_arrays.operand`."""
        if _is_number(value):
            return self.flat(_constant(self.device, float(value), dtype), dtype), 1, 1, SINGLE
        array = self.real(name, value)
        own_shape = tuple(array.shape)
        _validate.broadcasts(name, own_shape, shape)
        padded = (1,) * (len(shape) - len(own_shape)) + own_shape
        own = [axis for axis, (n, full) in enumerate(zip(padded, shape, strict=True)) if n == full != 1]
        if own and padded[own[0] : own[-1] + 1] != shape[own[0] : own[-1] + 1]:
            own_shape = shape[own[0] : own[-1] + 1] + (1,) * (len(shape) - own[-1] - 1)
        data = self.flat(array, dtype, own_shape)
        if data.size == 1:
            return data, 1, 1, SINGLE
        inner = prod(shape[own[-1] + 1 :]) if own else 1
        kind = FULL if inner == 1 and data.size == prod(shape) else REPEATED
        return data, inner, max(data.size, 1), kind

    # --- to the caller -----------------------------------------------------------------------------------------------------

    def given(self, array: Any, shape: tuple[int, ...], dtype: np.dtype) -> Any:
        """A flat result in the shape and type that the caller is to see, as an array of the caller's library."""
        if array.dtype != dtype:
            narrow = dtype == BFLOAT16
            array = self.flat(array, _arrays.F4) if narrow else array
            cast = self.queue.empty((prod(shape),), BITS if narrow else dtype)
            cast = retyped(cast, dtype) if narrow and cast.size else cast
            copies.copy(self.queue, array, tuple(array.shape), cast)
            array = cast
        shaped = _backend.view(array, shape).bind(self.queue.stream)  # whoever reads it can tell where it is ready
        return shaped if self._library is None else self._library.from_dlpack(dlpack.Exported(shaped, self.device))

    def summed(self, array: Any, shape: tuple[int, ...], to: tuple[int, ...]) -> Any:
        """Flat sum over the axes along which `to` was broadcast to `shape`: the adjoint of broadcasting."""
        if shape == to:
            return array
        lead = len(shape) - len(to)
        axes = [*range(lead), *(lead + k for k, n in enumerate(to) if n == 1 and shape[lead + k] != 1)]
        kept = [k for k in range(len(shape)) if k not in axes]
        steps = _steps(shape, array.dtype.itemsize)
        order = kept + axes
        n, count = prod(shape[k] for k in kept), prod(shape[k] for k in axes)
        sorted_ = self.queue.empty((n * count,), array.dtype)
        if n * count:
            moved = _backend.view(array, tuple(shape[k] for k in order), tuple(steps[k] for k in order))
            copies.copy(self.queue, moved, tuple(moved.shape), sorted_)
        out = self.queue.empty((n,), array.dtype)
        copies.sum_rows(self.queue, sorted_, count, out)
        return out


# --- foreign arrays -----------------------------------------------------------------------------------------------------------


def _is_number(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | np.number | np.bool_)


@lru_cache(maxsize=256)
def _constant(device: int | None, value: float, dtype: np.dtype) -> Any:
    return _backend.view(_backend.to_device(np.full(1, value, dtype)), ())


def _number(value: Any) -> int | None:
    """The GPU that a value is on, or None for host memory."""
    if not _arrays.on_device(value):
        return None
    if not hasattr(type(value), "__cuda_ndarray__") and hasattr(type(value), "__dlpack_device__"):
        return int(value.__dlpack_device__()[1])
    return _backend.device_of(_adopted("argument", value))


def _library(value: Any) -> Any:
    """The module of a foreign array's kind, if it takes arrays back."""
    if hasattr(type(value), "__cuda_ndarray__"):
        return None
    module = sys.modules.get(type(value).__module__.partition(".")[0])
    return module if hasattr(module, "from_dlpack") else None


def _handle(value: Any) -> int:
    """The stream on which a value is ready: the one that it states, else the current one of torch, else the default."""
    if hasattr(type(value), "__cuda_ndarray__"):
        return int(value.stream) if value.stream else 0
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        return int(torch.cuda.current_stream(value.device).cuda_stream)
    interface = getattr(value, "__cuda_array_interface__", None)
    return int(interface.get("stream") or 0) if interface is not None else 0


def _adopted(name: str, value: Any) -> Any:
    """A foreign array as one of Numba's, over the same memory."""
    if hasattr(type(value), "__cuda_ndarray__"):
        return value
    try:
        interface = value.__cuda_array_interface__
    except AttributeError:
        return dlpack.imported(name, value)
    except (TypeError, RuntimeError) as error:  # of torch: a tensor that requires grad, or of a type without a NumPy name
        raise TypeError(f"{name} cannot be read through __cuda_array_interface__: {error}") from None
    strides, dtype = interface.get("strides"), np.dtype(interface["typestr"])
    strides = None if strides is None else tuple(strides)
    if 0 in interface["shape"]:
        return _backend.empty(tuple(interface["shape"]), dtype)
    return _backend.from_pointer(interface["data"][0], tuple(interface["shape"]), strides, dtype, value)


def _steps(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    return tuple(itemsize * prod(shape[k + 1 :]) for k in range(len(shape)))


def contiguous(array: Any) -> bool:
    shape, strides = tuple(array.shape), tuple(array.strides)
    steps = _steps(shape, array.dtype.itemsize)
    return 0 in shape or all(n == 1 or a == b for n, a, b in zip(shape, strides, steps, strict=True))


def _broadcast(array: Any, shape: tuple[int, ...]) -> Any:
    """`array` of another shape, by strides of zero."""
    lead = len(shape) - array.ndim
    if lead < 0:  # leading axes of length 1, of a shape that names what is repeated alone
        return _broadcast(_backend.view(array, tuple(array.shape)[-lead:], tuple(array.strides)[-lead:]), shape)
    strides = tuple(0 if n == 1 else s for n, s in zip(array.shape, array.strides, strict=True))
    return _backend.view(array, shape, (0,) * lead + strides)


def overlap(a: Any, b: Any) -> bool:
    """Whether two contiguous arrays share memory."""
    p, q = _backend.pointer(a), _backend.pointer(b)
    return a.size > 0 and b.size > 0 and p < q + b.nbytes and q < p + a.nbytes


def same(a: Any, b: Any) -> bool:
    """Whether two contiguous arrays are the same elements in the same order."""
    return a.size == b.size and a.dtype == b.dtype and _backend.pointer(a) == _backend.pointer(b)


def fetched(array: Any) -> np.ndarray:
    """A copy in host memory, of whatever layout, for error messages and single numbers."""
    shape = tuple(array.shape)
    if 0 in shape:
        return np.empty(shape, array.dtype)
    queue = _queue(_backend.device_of(array), 0, get_ident())
    flat = queue.empty((prod(shape),), array.dtype)
    copies.copy(queue, array, shape, flat)
    return _backend.to_host(flat).reshape(shape)
