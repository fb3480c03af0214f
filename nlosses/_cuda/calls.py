"""What the calls of both families share: whose arguments, where the result goes, how a value is fetched."""

from __future__ import annotations

import math
from math import prod
from typing import Any

import numpy as np

from .. import _arrays, _validate
from .._results import divided
from .._spec import Spec
from . import arrays, copies
from ._array import Array, contiguous, overlap, same
from ._blocks import BAD, DENOMINATOR, TOTAL
from .bfloat import BFLOAT16


class Call:
    """One call of a loss with arrays on a GPU."""

    spec: Spec[Any]
    place: arrays.Place
    #: The caller's input and target, as device arrays.
    input: Array
    target: Array
    #: Shape of the unreduced loss.
    shape: tuple[int, ...]
    #: The input as kernels take it: flat, contiguous, of the precision that is computed in.
    x: Array
    unreduced: bool
    #: What the sum of the values is divided by; None where only the device knows.
    denominator: float | None

    def __init__(self, spec: Spec[Any], input: Any, target: Any, options: dict[str, Any]) -> None:
        self.spec = spec
        self.options = options
        given = {name: options[name] for name in ("weight", *spec.parameters) if options.get(name) is not None}
        self.place = arrays.Place(spec.name, {"input": input, "target": target, **given})
        self.queue = self.place.queue

    def further(self, name: str, value: Any) -> Array:
        """Another argument of the call as a device array."""
        self.place.also(name, value)
        return self.place.real(name, value)

    def upstream(self, grad_output: Any) -> tuple[Any, float]:
        """`grad_output` as a device array of the loss's shape, or as a number where the loss is one."""
        if grad_output is None:
            return None, 1.0
        array = self.further("grad_output", grad_output)
        _validate.grad_output(self.spec.name, array, self.shape if self.unreduced else ())
        return (array, 1.0) if self.unreduced else (None, float(self.place.fetched(array)[()]))

    def scaled(self, scale: float) -> float:
        """What slopes are multiplied by, apart from a denominator that only the device knows."""
        if self.denominator in (None, 1.0):
            return scale
        return scale / self.denominator if self.denominator else math.inf * scale

    def outcome(self, checked: bool, with_value: bool, values: Array | None) -> Any:
        """The value for the caller, if it is wanted: an array if unreduced, else a number, for which the host waits.

        It waits too, and raises, where a kernel may have met a forbidden element.
        """
        results = self.queue.fetched() if checked or (with_value and values is None) else []
        if checked and results[BAD]:
            raise self.bad_element()
        if not with_value:
            return None
        dtype = np.dtype(self.place.value_dtype(self.input, self.target))
        if values is not None:
            return self.place.given(values, self.shape, dtype)
        denominator = results[DENOMINATOR] if self.denominator is None else self.denominator
        with np.errstate(over="ignore"):
            return (np.float32 if dtype == BFLOAT16 else dtype.type)(divided(results[TOTAL], denominator))

    def bad_element(self) -> Exception:
        raise NotImplementedError


class Result:
    """Where the derivative with respect to `argument` is written: a fresh array, or the caller's `out` if that serves."""

    def __init__(
        self, call: Call, argument: Array, shape: tuple[int, ...], out: Any, may_be: Array | None, used: tuple[Any, ...]
    ) -> None:
        self._call, self._argument, self._shape, self._out = call, argument, shape, out
        self._dtype = call.place.result_dtype(argument)
        dtype = call.x.dtype
        self._target: Array | None = None
        if out is not None:
            self._target = array = self._validated(out)
            plain = array.shape == shape and array.dtype == dtype and contiguous(array)
            if plain and not any(overlap(array, a) for a in used if a is not None):
                if may_be is None or not overlap(array, may_be) or same(array, may_be):
                    self.flat = call.place.flat(array, dtype)
                    self._target = None
                    return
        self.flat = call.place.empty(prod(shape), dtype)

    def _validated(self, out: Any) -> Array:
        call, owner = self._call, self._call.spec.name
        if not _arrays.on_device(out):
            raise TypeError(f"{owner}: out must be an array on the device, as the input is, got {_validate.described(out)}")
        call.place.also("out", out)
        array = call.place.stored("out")
        if array.shape != self._argument.shape:
            raise ValueError(f"{owner}: out must have shape {self._argument.shape}, got {array.shape}")
        if array.dtype != self._dtype:
            wanted, got = ("bfloat16" if dtype == BFLOAT16 else dtype for dtype in (self._dtype, array.dtype))
            raise TypeError(f"{owner}: out must have dtype {wanted}, got {got}")
        if array.read_only:
            raise ValueError(f"{owner}: out must be writable, got a read-only array")
        return array

    def finished(self) -> Any:
        """The array to hand back."""
        place, own = self._call.place, self._argument.shape
        if self._out is not None and self._target is None:
            place.settle()
            return self._out
        flat = place.summed(self.flat, self._shape, own)
        if self._out is None:
            return place.given(flat, own, self._dtype)
        assert self._target is not None
        if self._target.dtype == BFLOAT16:
            flat = place.flat(flat, _arrays.F4)
        copies.write(self._call.queue, flat, self._target)
        place.settle()
        return self._out
