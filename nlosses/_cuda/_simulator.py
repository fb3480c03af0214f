"""Numba's simulator as a backend: every CUDA thread is a Python thread, which meets the others of its block at barriers.

Numba's own launcher polls its threads, has no shuffles and forgives much. This one runs one thread at a time, up to its next
barrier, in an order that is reversed in every second block, so that a missing barrier shows. It forgets shared memory from
block to block, poisons local arrays, and does not let a negative index count from the end. A thread that misses a barrier is
an error. Warps are shorter than those of a GPU, for the time that their threads take: kernels take the length from here.
"""

from __future__ import annotations

import sys
import threading
import types as python
from collections import deque
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
from numba import cuda as _simulated
from numba.cuda.simulator.cudadrv.devicearray import FakeCUDAArray
from numba.cuda.simulator.kernelapi import FakeCUDAModule

from .._cpu._jit import _codes, reachable
from ._array import Array

#: Threads of a warp.
WARP = 8
VERSION = "simulator"


def require() -> None:
    """Raise if there is no GPU to work on; the simulator needs none."""


# --- one block -----------------------------------------------------------------------------------------------------------


class _Shared:
    """Shared arrays, one for each line that asks for one."""

    def __init__(self) -> None:
        self._arrays: dict[Any, np.ndarray] = {}
        self._lock = threading.Lock()

    def array(self, shape: Any, dtype: Any) -> np.ndarray:
        caller = sys._getframe(1)
        with self._lock:
            return self._arrays.setdefault((caller.f_code, caller.f_lineno), poisoned(shape, dtype))


class _Local:
    def array(self, shape: Any, dtype: Any) -> np.ndarray:
        return poisoned(shape, dtype)


def poisoned(shape: Any, dtype: Any) -> np.ndarray:
    dtype = np.dtype(dtype)
    if dtype.kind == "V":
        return np.zeros(shape, dtype).view(Memory)
    fill = np.nan if dtype.kind == "f" else np.iinfo(dtype).min if dtype.kind in "iu" else 1
    return np.full(shape, fill, dtype).view(Memory)


class Memory(np.ndarray):
    """An array whose indices do not wrap around."""

    def __getitem__(self, i: Any) -> Any:
        _inside(i)
        return super().__getitem__(i)

    def __setitem__(self, i: Any, value: Any) -> None:
        _inside(i)
        super().__setitem__(i, value)


def _inside(i: Any) -> None:
    if i.__class__ is tuple:
        for k in i:
            _inside(k)
    elif i < 0:
        raise IndexError(f"negative index {i}")


class _Barrier:
    def __init__(self, parties: int) -> None:
        self.parties = parties
        self.waiting: list[_Thread] = []


class _Lanes(_Barrier):
    """Lanes of a warp that exchange values; what the last exchange left, others may still have to read."""

    def __init__(self, parties: int) -> None:
        super().__init__(parties)
        self.left: list[dict[int, Any]] = [{}, {}]
        self.times: dict[int, int] = {}


class _Module(FakeCUDAModule):
    """What kernels of one block see as ``cuda``."""

    def __init__(self, grid: int, size: int) -> None:
        super().__init__((grid, 1, 1), (size, 1, 1), 0)
        self._shared = _Shared()
        self._local = _Local()


class _Block(_Module):
    """The same, and whose turn it is."""

    def __init__(self, run: Callable[[], None], grid: int, block: int, size: int) -> None:
        super().__init__(grid, size)
        self.barrier = _Barrier(size)
        self.warps: dict[tuple[int, int], _Lanes] = {}  # by number, and by the lanes that meet
        self.threads = [_Thread(run, self, block, k) for k in range(size)]
        self.ready = deque(self.threads[::-1] if block % 2 else self.threads)
        self.number = block
        self.error: tuple[int, BaseException] | None = None
        self.finished = threading.Semaphore(0)

    def run(self) -> None:
        for thread in self.threads:
            thread.start()
        self.hand_over()
        for _ in self.threads:
            self.finished.acquire()
        for thread in self.threads:
            thread.join()

    def hand_over(self) -> None:
        """Let the next thread run that can."""
        if self.ready:
            self.ready.popleft().turn.release()
        elif waiting := [t for barrier in (self.barrier, *self.warps.values()) for t in barrier.waiting]:
            names = [t.thread_id for t in self.threads if t not in waiting]
            self.fail(waiting[0], RuntimeError(f"threads {names} never come to the barrier at which others wait"))
            self.hand_over()

    def fail(self, thread: _Thread, error: BaseException) -> None:
        if self.error is None:
            self.error = (thread.thread_id, error)
        for barrier in (self.barrier, *self.warps.values()):
            self.ready.extend(barrier.waiting)
            barrier.waiting = []

    def meet(self, barrier: _Barrier) -> None:
        me: Any = threading.current_thread()
        barrier.waiting.append(me)
        if len(barrier.waiting) == barrier.parties:  # in every second block, who came last goes on first
            if self.number % 2:
                self.ready.extendleft(barrier.waiting)
            else:
                self.ready.extend(barrier.waiting)
            barrier.waiting = []
        self.hand_over()
        me.turn.acquire()
        if self.error is not None:
            raise _Abandoned

    def syncthreads(self) -> None:
        self.meet(self.barrier)

    def shfl_xor_sync(self, mask: int, value: Any, lanes: int) -> Any:
        me: Any = threading.current_thread()
        thread = me.thread_id
        if not mask >> thread % WARP & 1:
            raise RuntimeError(f"a shuffle among lanes {mask:b} without the thread's own")
        group = self.warps.setdefault((thread // WARP, mask), _Lanes(mask.bit_count()))
        group.times[thread] = time = group.times.get(thread, 0) + 1
        group.left[time % 2][thread] = value
        self.meet(group)
        if thread ^ lanes not in group.left[time % 2]:
            raise RuntimeError(f"a shuffle with lane {(thread ^ lanes) % WARP}, which is not among lanes {mask:b}")
        return group.left[time % 2][thread ^ lanes]


class _Abandoned(BaseException):
    """Ends a thread whose block has failed."""


class _Thread(threading.Thread):
    def __init__(self, run: Callable[[], None], module: _Block, block: int, thread: int) -> None:
        super().__init__(daemon=True)
        self._run_kernel = run
        self.module = module
        self.thread_id = thread
        self.blockIdx = python.SimpleNamespace(x=block, y=0, z=0)
        self.threadIdx = python.SimpleNamespace(x=thread, y=0, z=0)
        self.turn = threading.Lock()
        self.turn.acquire()

    def run(self) -> None:
        self.turn.acquire()
        try:
            if self.module.error is None:
                with np.errstate(all="ignore"):
                    self._run_kernel()
        except _Abandoned:
            pass
        except BaseException as error:
            self.module.fail(self, error)
        self.module.finished.release()
        self.module.hand_over()


class _InTurn(threading.Thread):
    """All threads of a grid, one after the other: for kernels in which none waits for another."""

    def __init__(self, run: Callable[[], None], grid: int, size: int) -> None:
        super().__init__(daemon=True)
        self._run_kernel = run
        self.grid, self.size = grid, size
        self.error: tuple[int, int, BaseException] | None = None

    def run(self) -> None:
        for block in range(self.grid):
            self.module = _Module(self.grid, self.size)
            self.blockIdx = python.SimpleNamespace(x=block, y=0, z=0)
            for thread in range(self.size)[:: -1 if block % 2 else 1]:
                self.threadIdx = python.SimpleNamespace(x=thread, y=0, z=0)
                try:
                    with np.errstate(all="ignore"):
                        self._run_kernel()
                except BaseException as error:
                    self.error = (block, thread, error)
                    return


class _Cuda:
    """The module ``numba.cuda``, and inside of a kernel what its thread sees of it."""

    def __getattr__(self, name: str) -> Any:
        return getattr(getattr(threading.current_thread(), "module", _simulated), name)


cuda: Any = _Cuda()


# --- kernels -------------------------------------------------------------------------------------------------------------


def device(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let kernels call `function`: Python can."""
    for _ in reachable(function):  # what could not be walked could not be compiled either
        pass
    return function


def primitive(function: Callable[..., Any], choose: Callable[..., Any]) -> None:
    """Primitives run as `nlosses._scalar` defines them."""


def load(array: Any, i: Any) -> Any:
    return array[i]


def store(array: Any, i: Any, value: Any) -> None:
    array[i] = value


def load16(buffer: Any, k: int, array: Any, i: Any) -> None:
    width = _width(array, i)
    for n in range(width):
        buffer[k + n] = array[i + n]


def store16(array: Any, i: Any, buffer: Any, k: int) -> None:
    width = _width(array, i)
    for n in range(width):
        array[i + n] = buffer[k + n]


def _width(array: np.ndarray, i: int) -> int:
    if (array.ctypes.data + i * array.itemsize) % 16:
        raise ValueError(f"16-byte access to element {i}, which is not aligned")
    return 16 // array.itemsize


_one_at_a_time = threading.Lock()


class Kernel:
    """A kernel, run block after block."""

    def __init__(self, function: Callable[..., Any], threads: int) -> None:
        self.function = function
        self.bounds = (threads, 1)
        names = {name for f in reachable(function) for code in _codes(f.__code__) for name in code.co_names}
        self._waits = not names.isdisjoint(("syncthreads", "shfl_xor_sync"))

    def launch(self, device: int, stream: int, grid: int, *args: Any) -> None:
        arrays = [_seen(a).view(Memory) if isinstance(a, Array) else a for a in args]
        with _one_at_a_time:
            if not self._waits:
                turns = _InTurn(lambda: self.function(*arrays), grid, self.bounds[0])
                turns.start()
                turns.join()
                if turns.error is not None:
                    raise self._failed(*turns.error) from turns.error[2]
                return
            for number in range(grid):
                block = _Block(lambda: self.function(*arrays), grid, number, self.bounds[0])
                block.run()
                if block.error is not None:
                    raise self._failed(number, *block.error) from block.error[1]

    def _failed(self, block: int, thread: int, error: BaseException) -> RuntimeError:
        return RuntimeError(f"{self.function.__name__}: thread {thread} of block {block}: {error!r}")


def build(
    make: Callable[..., Callable[..., Any]], name: str, cells: dict[str, Any], threads: int, blocks_per_processor: int = 1
) -> Kernel:
    """The kernel that ``make(**cells, stamp=...)`` returns, for blocks of so many threads."""
    kernel = make(**cells, stamp="")
    kernel.__name__ = kernel.__qualname__ = name
    return Kernel(kernel, threads)


# --- memory, as the host sees it ------------------------------------------------------------------------------------------


def on(number: int) -> Any:
    """Work on one of several GPUs, in a `with` statement; here there is one."""
    return nullcontext()


def _aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Uninitialised memory, aligned as that of a GPU is."""
    count = int(np.prod(shape, dtype=np.int64))
    memory = np.empty(count * dtype.itemsize + 256, np.uint8)
    start = -memory.ctypes.data % 256
    return memory[start : start + count * dtype.itemsize].view(dtype).reshape(shape)


def _of_host(host: np.ndarray, owner: Any = None) -> Array:
    return Array(host.ctypes.data, host.shape, host.strides, host.dtype, host if owner is None else owner)


def _seen(array: Array) -> np.ndarray:
    """What Python sees of an array."""
    interface = {
        "shape": array.shape, "strides": array.strides, "typestr": array.dtype.str, "data": (array.pointer, False),
        "version": 3,
    }  # fmt: skip
    return np.asarray(python.SimpleNamespace(__array_interface__=interface, owner=array.owner))


def empty(shape: tuple[int, ...], dtype: np.dtype) -> Array:
    array = _aligned(shape, np.dtype(dtype))
    array[...] = poisoned((), dtype)[()]
    return _of_host(array)


def to_device(array: np.ndarray, stream: int = 0) -> Array:
    copy = _aligned(array.shape, array.dtype)
    copy[...] = array
    return _of_host(copy)


def to_host(array: Array, stream: int = 0) -> np.ndarray:
    """A copy in host memory."""
    return np.array(_seen(array))


def shared(size: int) -> tuple[np.ndarray, Array]:
    """float64 numbers that kernels write and the host reads, without a copy, once it has waited for them."""
    host = np.zeros(size)
    return host, _of_host(host)


def synchronize(stream: int) -> None:
    """Wait for all work of a stream; here nothing runs at the same time."""


def of_numba(value: Any) -> tuple[Array, int, int]:
    """One of Numba's device arrays as an `Array`, the number of its GPU, and the stream on which it is ready."""
    return _of_host(value._ary, value), 0, 0


def for_numba(array: Array, stream: int) -> Any:
    """An `Array` as one of Numba's."""
    return FakeCUDAArray(_seen(array))


def device_at(pointer: int) -> int:
    """Number of the GPU that holds an address."""
    return 0
