"""Elementwise losses of arrays on a GPU: from a caller's arrays to one launch, and back."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import _arrays, _validate
from .._spec import Math, Spec
from . import arrays, elementwise, sums
from .calls import Call, Result


class Problem(Call):
    """One call's arrays, flattened and of one dtype, with everything that the reduction needs."""

    def __init__(self, spec: Spec[Any], input: Any, target: Any, options: dict[str, Any]) -> None:
        super().__init__(spec, input, target, options)
        place = self.place
        self.input, self.target = place.real("input", input), place.real("target", target)
        self.shape = tuple(_validate.elementwise_shapes(spec, self.input, self.target))
        dtype = _arrays.compute_dtype(self.input, self.target)
        self.x, self.t = place.flat(self.input, dtype, self.shape), place.flat(self.target, dtype, self.shape)
        self.math: Math = spec.math
        for switch in spec.variants:
            if options[switch]:
                self.math = spec.variants[switch]
        self.weight = None if options.get("weight") is None else self._operand("weight", options["weight"])
        if self.weight is not None and spec.mean_of_weights:
            _validate.matching_weight(spec.name, place.real("weight", options["weight"]), self.input.shape)
        self.parameters = tuple(None if options[p] is None else self._operand(p, options[p]) for p in spec.parameters)
        self.domains = (spec.input.low, spec.input.high, spec.target.low, spec.target.high) if spec.checks_domains else None
        self._set_denominator(options["reduction"])

    def _operand(self, name: str, value: Any) -> arrays.Operand:
        return self.place.operand(name, value, self.shape, self.x.dtype)

    def _set_denominator(self, reduction: str) -> None:
        self.unreduced = reduction == "none"
        self.denominator = 1.0
        if reduction == "mean":
            of_weights = self.weight is not None and self.spec.mean_of_weights
            self.denominator = None if of_weights else float(self.x.size)
        elif reduction == "batchmean" and self.input.ndim:
            self.denominator = float(self.input.shape[0])

    # --- results ---------------------------------------------------------------------------------------------------------

    def value(self) -> Any:
        return self._run(self.math.point, True, True, None, None, None)

    def value_and_grad(self, grad_output: Any, out: Any) -> tuple[Any, Any]:
        return self._value_and_grad(grad_output, out, True)

    def _value_and_grad(self, grad_output: Any, out: Any, with_value: bool) -> tuple[Any, Any]:
        upstream = self.upstream(grad_output)
        result = self._result(0, out, upstream[0])
        value = self._run(self.math.point, True, with_value, upstream, None, result.flat)
        return value, result.finished()

    def check(self, argnum: int, out: Any) -> None:
        """Raise what `grad` of the same arguments would raise."""
        if argnum == 1 and self.math.target_slope is None:
            raise _validate.missing(self.spec.name, "gradient with respect to the target", "target_slope")
        if out is not None:
            self._result(argnum, out)

    def grad(self, argnum: int, grad_output: Any, out: Any) -> Any:
        if argnum == 0:
            return self._value_and_grad(grad_output, out, False)[1]
        self.check(argnum, out)
        upstream = self.upstream(grad_output)
        result = self._result(1, out, upstream[0])
        self._run(self.math.target_slope, False, False, upstream, None, result.flat)
        return result.finished()

    def hessian_diag(self, grad_output: Any, out: Any) -> Any:
        return self._second_order(grad_output, None, out)

    def hvp(self, vector: Any, grad_output: Any, out: Any) -> Any:
        vector = self.further("vector", vector)
        _validate.vector(self.spec.name, vector, self.input.shape)
        return self._second_order(grad_output, vector, out)

    def _second_order(self, grad_output: Any, vector: Any, out: Any) -> Any:
        if self.math.curvature is None:
            raise _validate.missing(self.spec.name, "second derivative", "curvature")
        upstream = self.upstream(grad_output)
        result = self._result(0, out, upstream[0], vector)
        self._run(self.math.curvature, False, False, upstream, vector, result.flat)
        return result.finished()

    def _result(self, argnum: int, out: Any, *further: Any) -> Result:
        used = [self.x if argnum else self.t, *further, *(o[0] for o in (self.weight, *self.parameters) if o is not None)]
        return Result(
            self, self.target if argnum else self.input, self.shape, out, None if argnum else self.x, tuple(used)
        )  # fmt: skip

    def _run(self, function: Any, with_slope: bool, with_value: bool, upstream: Any, vector: Any, out: Any) -> Any:
        array, scale = upstream or (None, 1.0)
        normalised = self.denominator is None
        if normalised:
            assert self.weight is not None
            sums.total(self.queue, self.weight[0])
        values = self.place.empty(self.x.size, self.x.dtype) if self.unreduced and with_value else None
        if vector is not None:
            vector = (self.place.flat(vector, self.x.dtype, self.shape), 1, 1, elementwise.FULL)
        launched = self.x.size > 0 or not self.unreduced
        if launched:
            elementwise.run(
                self.queue, function, with_slope, self.x, self.t, self.weight,
                None if array is None else self._operand("grad_output", array), vector, self.parameters,
                self.domains, self.scaled(scale), normalised, with_value and not self.unreduced, values, out,
            )  # fmt: skip
        return self.outcome(launched and self.domains is not None, with_value, values)

    def bad_element(self) -> Exception:
        """The error for an element outside of its domain, the same as on the CPU."""
        for name, array, interval in (("input", self.input, self.spec.input), ("target", self.target, self.spec.target)):
            host = self.place.fetched(array)
            if interval.bounded and not np.all((host >= interval.low) & (host <= interval.high)):
                return _validate.outside(self.spec.name, name, host, interval)
        return ValueError(f"{self.spec.name}: input or target changed during the call")
