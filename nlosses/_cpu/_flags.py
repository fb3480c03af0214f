"""How Numba compiles for the CPU: all kernels, and the functions that they call."""

from typing import Any

#: Never nnan or ninf; reassoc only in `_blocks.add`.  A wrapper for callers in C, of which there are none, would be optimised
#: and translated like the function itself.
FLAGS: Any = {"fastmath": {"contract"}, "error_model": "numpy", "no_cfunc_wrapper": True}
#: What LLVM finds too long to inline would stay a call, and keep the loop around it scalar.
INLINED: Any = {**FLAGS, "forceinline": True}
