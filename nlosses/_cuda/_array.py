"""Memory of a device as the host sees it: an address, a layout, and whatever keeps it alive.

Every call makes a dozen of these, so that they are no more than that; Numba's device arrays take as long as a small kernel.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np


class Array:
    """An array in the memory of a device, of whatever library."""

    __slots__ = ("dtype", "ndim", "owner", "pointer", "read_only", "shape", "size", "strides")

    def __init__(
        self,
        pointer: int,
        shape: tuple[int, ...],
        strides: tuple[int, ...] | None,
        dtype: np.dtype,
        owner: Any,
        read_only: bool = False,
    ) -> None:
        """Strides are in bytes; None where it is contiguous.  `owner` lives as long as the array does."""
        self.pointer = pointer
        self.shape = shape
        self.strides = contiguous_strides(shape, dtype.itemsize) if strides is None else strides
        self.dtype = dtype
        self.owner = owner
        self.read_only = read_only
        self.ndim = len(shape)
        self.size = prod(shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the elements, without what lies between them."""
        return self.size * self.dtype.itemsize

    def view(self, shape: tuple[int, ...], strides: tuple[int, ...] | None = None, offset: int = 0) -> Array:
        """Other shape and strides of the same memory, from so many bytes on; contiguous where no strides are given."""
        return Array(self.pointer + offset, shape, strides, self.dtype, self.owner)

    def retyped(self, dtype: np.dtype) -> Array:
        """The same memory as elements of another type of the same size."""
        return Array(self.pointer, self.shape, self.strides, dtype, self.owner)

    def flat(self) -> Array:
        """The elements of a contiguous array along one axis."""
        return self if self.ndim == 1 else self.view((self.size,))


def contiguous_strides(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    if len(shape) == 1:
        return (itemsize,)
    return tuple(itemsize * prod(shape[k + 1 :]) for k in range(len(shape)))


def contiguous(array: Array) -> bool:
    shape, strides = array.shape, array.strides
    steps = contiguous_strides(shape, array.dtype.itemsize)
    return strides == steps or 0 in shape or all(n == 1 or a == b for n, a, b in zip(shape, strides, steps, strict=True))


def overlap(a: Array, b: Array) -> bool:
    """Whether two contiguous arrays share memory."""
    p, q = a.pointer, b.pointer
    return a.size > 0 and b.size > 0 and p < q + b.nbytes and q < p + a.nbytes


def same(a: Array, b: Array) -> bool:
    """Whether two contiguous arrays are the same elements in the same order."""
    return a.size == b.size and a.dtype == b.dtype and a.pointer == b.pointer
