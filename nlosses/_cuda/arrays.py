"""The arrays of one call: where they are, in which stream, what is contiguous, and copies where none can be avoided."""

from __future__ import annotations

from functools import lru_cache
from math import prod
from threading import get_ident
from typing import Any

import numpy as np

from .. import _arrays, _validate
from . import _backend, copies
from ._array import Array, contiguous, contiguous_strides
from ._blocks import FULL, GRID, REPEATED, RESULTS, SINGLE
from .bfloat import BFLOAT16, is_bfloat16
from .dlpack import LEGACY
from .libraries import adopted, library_of

ALIGNMENT = 16  # bytes of a vector access

#: An operand: its elements, `inner` and `period` (element i is ``data[i // inner % period]``), and the kind of that.
Operand = tuple[Array, int, int, int]


class Queue:
    """Where one call's work is done: a GPU, a stream of it, and the arrays that its sums go through.

    One host thread's calls on one stream follow one another, so that these arrays serve all of them.
    """

    def __init__(self, device: int, stream: int) -> None:
        self.device = device
        self.stream = stream
        with _backend.on(device):
            partial = _backend.empty((2 * GRID,), _arrays.F8)
            counter = _backend.to_device(np.zeros(1, np.uint32), stream)
            results = _backend.empty((RESULTS,), _arrays.F8)
            self._results, seen = _backend.shared(RESULTS)
        #: What kernels take to sum over their grid; the last of them is seen by the host.
        self.summing = (partial, counter, results, seen)

    def launch(self, kernel: Any, blocks: int, *args: Any) -> None:
        with _backend.on(self.device):
            kernel.launch(self.device, self.stream, blocks, *args)

    def fetched(self) -> list[float]:
        """The results, once all that was launched is done."""
        with _backend.on(self.device):
            _backend.synchronize(self.stream)
        return self._results.tolist()


def width(row: int, *arrays: Array) -> int:
    """Elements of one access: 16 bytes where all arrays, and their rows of so many elements, are aligned to them, else one."""
    elements = ALIGNMENT // arrays[0].dtype.itemsize
    return 1 if row % elements or any(a.pointer % ALIGNMENT for a in arrays) else elements


@lru_cache(maxsize=64)
def _queue(device: int, stream: int, thread: int) -> Queue:
    return Queue(device, stream)


class Place:
    """The one GPU that holds all arrays of a call, and what the first of them decides: the stream, and the kind of results."""

    def __init__(self, owner: str, arguments: dict[str, Any]) -> None:
        _backend.require()
        self.owner = owner
        self._adopted: dict[str, Array] = {}
        self._further: dict[str, Any] = {}  # what has come by `also`
        self._widened: dict[int, Array] = {}  # what bfloat16 came in
        where: dict[str, int | None] = {}
        streams = []
        first: Any = None
        for name, value in arguments.items():
            if _is_number(value):
                continue
            first = value if first is None else first
            where[name] = None
            if _arrays.on_device(value):
                self._adopted[name], where[name], stream = adopted(name, value)
                streams.append(stream)
        if len(set(where.values())) > 1:
            raise _validate.scattered(owner, where)
        self._first, device = next(iter(where.items()))
        assert device is not None
        self._library = library_of(first)
        self.device: int = device
        self.queue = _queue(device, 0 if streams[0] == LEGACY else streams[0], get_ident())
        self._scattered = False  # over several streams
        for stream in streams:
            self._wait(stream)

    def _wait(self, stream: int) -> None:
        """The work goes on in the first array's stream, so that the host waits for those of others, where they state one."""
        if stream and stream != (self.queue.stream or LEGACY):
            self._scattered = True
            with _backend.on(self.device):
                _backend.synchronize(stream)

    def settle(self) -> None:
        """Wait for the work, if its arrays may be used or freed in other streams."""
        if self._scattered:
            with _backend.on(self.device):
                _backend.synchronize(self.queue.stream)

    # --- from the caller ---------------------------------------------------------------------------------------------------

    def also(self, name: str, value: Any) -> None:
        """Take another argument of the call, which `real` or `stored` give then."""
        device = None
        if not _is_number(value) and self._further.get(name) is not value:
            self._further[name] = value
            if _arrays.on_device(value):
                self._adopted[name], device, stream = adopted(name, value)
                self._wait(stream)
            if device != self.device:
                raise _validate.scattered(self.owner, {self._first: self.device, name: device})

    def real(self, name: str, value: Any, label: str | None = None) -> Array:
        """An argument as an array of real numbers; nothing is copied but bfloat16, to float32."""
        if _is_number(value):
            return _constant(self.device, float(value), _arrays.F8)
        array = self.stored(name, label)
        if array.dtype != BFLOAT16:
            return array
        wide = self.flat(array, _arrays.F4).view(array.shape)
        self._widened[id(wide)] = wide
        return wide

    def stored(self, name: str, label: str | None = None) -> Array:
        """An argument as it is in memory, where bfloat16 is `BFLOAT16`."""
        array = self._adopted[name]
        if is_bfloat16(array.dtype):
            return array if array.dtype == BFLOAT16 else array.retyped(BFLOAT16)
        if array.dtype.kind not in "fiub" or array.dtype.itemsize > 8:
            raise _validate.not_real(label or name, array)
        return array

    def result_dtype(self, array: Array) -> np.dtype:
        """As `_arrays.result_dtype`, with bfloat16."""
        return BFLOAT16 if id(array) in self._widened else _arrays.result_dtype(array)

    def value_dtype(self, *several: Array) -> np.dtype:
        """As `_arrays.value_dtype`, with bfloat16."""
        floating = [a for a in several if a.dtype.kind == "f"]
        narrow = several[0].dtype.kind == "f" and all(id(a) in self._widened for a in floating)
        return BFLOAT16 if narrow else np.dtype(_arrays.value_dtype(*several))

    def flat(self, array: Array, dtype: np.dtype, shape: tuple[int, ...] | None = None) -> Array:
        """All elements in row-major order, of one type, broadcast to `shape`; copied only if they are not like that."""
        shape = array.shape if shape is None else shape
        if array.shape == shape and array.dtype == dtype and contiguous(array):
            return array.flat()
        out = self.empty(prod(shape), dtype)
        copies.copy(self.queue, _broadcast(array, shape), shape, out)
        return out

    def operand(self, name: str, value: Any, shape: tuple[int, ...], dtype: np.dtype) -> Operand:
        """`value`, broadcast to `shape` without a copy where it repeats an unbroken run of axes: see `_arrays.operand`."""
        if _is_number(value):
            return self.flat(_constant(self.device, float(value), dtype), dtype), 1, 1, SINGLE
        array = self.real(name, value)
        own_shape = array.shape
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

    def fetched(self, array: Array) -> np.ndarray:
        """A copy in host memory, of whatever layout, for error messages and single numbers."""
        if 0 in array.shape:
            return np.empty(array.shape, array.dtype)
        flat = self.flat(array, array.dtype)
        with _backend.on(self.device):
            return _backend.to_host(flat, self.queue.stream).reshape(array.shape)

    # --- to the caller -----------------------------------------------------------------------------------------------------

    def empty(self, size: int, dtype: np.dtype) -> Array:
        """New memory for so many elements, which may become the caller's."""
        with _backend.on(self.device):
            return self._library.empty((size,), dtype, self.device)

    def given(self, array: Array, shape: tuple[int, ...], dtype: np.dtype) -> Any:
        """A result in memory that `empty` gave, as the caller's kind of array, of the shape and type that it is to have."""
        if array.dtype != dtype:
            source = self.flat(array, _arrays.F4) if dtype == BFLOAT16 else array
            array = self.empty(array.size, dtype)
            copies.copy(self.queue, source, source.shape, array)
        self.settle()
        with _backend.on(self.device):
            return self._library.given(array, shape, self.device, self.queue.stream)

    def summed(self, array: Array, shape: tuple[int, ...], to: tuple[int, ...]) -> Array:
        """Flat sum over the axes along which `to` was broadcast to `shape`: the adjoint of broadcasting."""
        if shape == to:
            return array
        lead = len(shape) - len(to)
        axes = [*range(lead), *(lead + k for k, n in enumerate(to) if n == 1 and shape[lead + k] != 1)]
        kept = [k for k in range(len(shape)) if k not in axes]
        steps = contiguous_strides(shape, array.dtype.itemsize)
        order = kept + axes
        n, count = prod(shape[k] for k in kept), prod(shape[k] for k in axes)
        sorted_ = self.empty(n * count, array.dtype)
        if n * count:
            moved = array.view(tuple(shape[k] for k in order), tuple(steps[k] for k in order))
            copies.copy(self.queue, moved, moved.shape, sorted_)
        out = self.empty(n, array.dtype)
        copies.sum_rows(self.queue, sorted_, count, out)
        return out


def _is_number(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | np.number | np.bool_)


@lru_cache(maxsize=256)
def _constant(device: int, value: float, dtype: np.dtype) -> Array:
    with _backend.on(device):
        return _backend.to_device(np.full(1, value, dtype)).view(())


def _broadcast(array: Array, shape: tuple[int, ...]) -> Array:
    """`array` of another shape, by strides of zero."""
    lead = len(shape) - array.ndim
    if lead < 0:  # leading axes of length 1, of a shape that names what is repeated alone
        return _broadcast(array.view(array.shape[-lead:], array.strides[-lead:]), shape)
    strides = tuple(0 if n == 1 else s for n, s in zip(array.shape, array.strides, strict=True))
    return array.view(shape, (0,) * lead + strides)
