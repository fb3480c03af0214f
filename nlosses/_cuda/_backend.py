"""The one door to the CUDA toolchain: whatever else stands in this package takes `cuda`, kernels and memory from here.

On a machine with a GPU it is numba-cuda, in `_device`; its successor would be a second module like that. With
``NUMBA_ENABLE_CUDASIM=1`` it is Numba's simulator, in `_simulator`, for tests without a GPU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from numba import config

#: Whether kernels are run by Python, thread by thread, instead of a GPU.
SIMULATED = bool(getattr(config, "ENABLE_CUDASIM", 0))

if TYPE_CHECKING or not SIMULATED:
    from ._device import (
        WARP,
        Kernel,
        build,
        cuda,
        device,
        device_at,
        empty,
        for_numba,
        load,
        load16,
        of_numba,
        on,
        primitive,
        require,
        shared,
        store,
        store16,
        synchronize,
        to_device,
        to_host,
    )
else:
    from ._simulator import (
        WARP,
        Kernel,
        build,
        cuda,
        device,
        device_at,
        empty,
        for_numba,
        load,
        load16,
        of_numba,
        on,
        primitive,
        require,
        shared,
        store,
        store16,
        synchronize,
        to_device,
        to_host,
    )

__all__ = [
    "SIMULATED",
    "WARP",
    "Kernel",
    "build",
    "cuda",
    "device",
    "device_at",
    "empty",
    "for_numba",
    "load",
    "load16",
    "of_numba",
    "on",
    "primitive",
    "require",
    "shared",
    "store",
    "store16",
    "synchronize",
    "to_device",
    "to_host",
]
