"""bfloat16, the upper half of a float32: stored in two bytes, computed in float32.

NumPy has no such type.  Its arrays come and go as two bytes without a meaning, the ``"<V2"`` that torch and ml_dtypes have in
array interfaces, or under DLPack's own number.  Conversions are made of the bits, as integers, so that they are the same on
every target.
"""

from __future__ import annotations

import numpy as np

from ._backend import device

BFLOAT16 = np.dtype("V2")
BITS = np.dtype(np.uint16)
#: Of float32.
WIDE_BITS = np.dtype(np.uint32)


def is_bfloat16(dtype: np.dtype) -> bool:
    """Whether arrays of this type, which may be that of ml_dtypes, hold bfloat16."""
    return dtype.kind == "V" and dtype.itemsize == 2 and dtype.names is None and dtype.subdtype is None


@device
def unchanged(x):
    return x


@device
def widened(bits):
    """Bits of the float32 of the same value."""
    return np.int64(bits) << 16


@device
def narrowed(bits):
    """Bits of the bfloat16 next to a float32, the even one of two; NaN stays NaN, of its sign."""
    b = np.int64(bits)
    rounded = (b + 0x7FFF + ((b >> 16) & 1)) >> 16
    return (b >> 16) | 0x40 if b & 0x7FFFFFFF > 0x7F800000 else rounded
