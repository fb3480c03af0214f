"""Calls with arrays on a device, for the verification: arrays go there in their layout, and results come back."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

SIMULATOR = "NUMBA_ENABLE_CUDASIM=1"


@cache
def labels() -> dict[str, str]:
    """How cases of device kernels are run here: on a GPU, or else in Numba's simulator, in a process that has it on."""
    note = {"note": "in Numba's simulator, not on a GPU"}
    try:
        from .._cuda import _backend

        _backend.require()
    except (ImportError, RuntimeError):
        reason = "no GPU that Numba can use; --device cuda verifies its kernels in Numba's simulator"
        return {"skip": reason, "environment": SIMULATOR, **note}
    return note if _backend.SIMULATED else {}


class OnDevice:
    """A function, or what it has as attributes, whose arrays are moved to the device and back.

    What a kernel writes to its arguments, or to the results of the call before, is written to the arrays of the host too, so
    that whoever watches these sees it.
    """

    def __init__(self, function: Any, results: list[tuple[np.ndarray, Any]] | None = None) -> None:
        self._function = function
        self._results = [] if results is None else results

    def __getattr__(self, name: str) -> Any:
        return OnDevice(getattr(self._function, name), self._results)

    def __call__(self, *args: Any, **options: Any) -> Any:
        moved: list[Copy] = []

        def there(value: Any) -> Any:
            if not isinstance(value, np.ndarray):
                return value
            moved.append(Copy(value))
            return moved[-1].array

        result = self._function(*map(there, args), **{name: there(value) for name, value in options.items()})
        for copy in moved:
            _update(copy.host, copy.now())
        for host, array in self._results:
            _update(host, array.copy_to_host())
        parts = result if isinstance(result, tuple) else (result,)
        pairs = [(part.copy_to_host(), part) if hasattr(part, "copy_to_host") else (part, None) for part in parts]
        self._results[:] = [(host, array) for host, array in pairs if array is not None]
        returned = tuple(host for host, _ in pairs)
        return returned if isinstance(result, tuple) else returned[0]


class Copy:
    """A copy of an array on the device, in the same layout."""

    def __init__(self, host: np.ndarray) -> None:
        from .._cuda import _backend
        from .._cuda._array import Array

        self.host = host
        low, high = np.lib.array_utils.byte_bounds(host)
        self._start = host.ctypes.data - low
        memory = np.zeros(max(high - low, 1), np.uint8)
        self._of(memory)[...] = host
        self._memory = _backend.to_device(memory)
        address = self._memory.pointer + self._start
        self.array = _backend.for_numba(Array(address, host.shape, host.strides, host.dtype, self._memory), 0)

    def now(self) -> np.ndarray:
        """What it holds."""
        from .._cuda import _backend

        return self._of(_backend.to_host(self._memory))

    def _of(self, memory: np.ndarray) -> np.ndarray:
        host = self.host
        return np.ndarray(host.shape, host.dtype, memory, self._start, host.strides)


def _update(host: np.ndarray, now: np.ndarray) -> None:
    if host.tobytes() != now.tobytes():
        host[...] = now
