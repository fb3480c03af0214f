"""Classwise losses of arrays on a GPU: from a caller's arrays to one launch, and back."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from .. import _arrays, _validate
from .._spec import Spec
from . import classwise, copies, gather, sums
from .calls import Call, Result


class Problem(Call):
    """One call's logits as (N, classes, inner), its target, and everything that the reduction needs."""

    def __init__(self, spec: Spec[Any], input: Any, target: Any, options: dict[str, Any]) -> None:
        super().__init__(spec, input, target, options)
        place = self.place
        x, t = self.input, self.target = place.real("input", input), place.real("target", target)
        x_shape, t_shape = x.shape, t.shape
        self.labelled = not (spec.class_probabilities and t_shape == x_shape and t.dtype.kind == "f")
        if self.labelled:
            _validate.integer_target(spec, x, t)
        _validate.class_shapes(spec, x, t, self.labelled)
        dtype = _arrays.compute_dtype(x, *(() if self.labelled else (t,)))
        self.x = place.flat(x, dtype)
        if x.ndim == 1:
            classes, self.shape = x_shape[0], ()
        else:
            classes, self.shape = x_shape[1], (x_shape[0], *x_shape[2:])
        self.layout = (classes, prod(self.shape[1:]))
        self.weight = None
        if options.get("weight") is not None:
            weight = place.real("weight", options["weight"])
            _validate.class_weight(spec.name, weight, classes)
            self.weight = place.flat(weight, dtype)
        smoothing = options.get("label_smoothing", 0.0)
        self.keep = 1.0 - smoothing
        self.even = smoothing / classes if smoothing or not self.labelled else None
        self.ignored = options.get("ignore_index", -100)
        if not self.labelled and self.ignored >= 0:
            raise _validate.ignored_probabilities(spec.name, self.ignored)
        self._set_target(t, dtype, options["reduction"])

    def _set_target(self, t: Any, dtype: np.dtype, reduction: str) -> None:
        self.unreduced = reduction == "none"
        self.denominator = 1.0
        self.t = self.place.flat(t, (np.dtype(np.uint8) if t.dtype.kind == "b" else t.dtype) if self.labelled else dtype)
        if reduction == "mean":
            self.denominator = None if self.labelled else float(prod(self.shape))

    # --- results ---------------------------------------------------------------------------------------------------------

    def value(self) -> Any:
        return self._run("value", True, (None, 1.0), None, None)

    def value_and_grad(self, grad_output: Any, out: Any) -> tuple[Any, Any]:
        return self._derived("grad", grad_output, None, out, with_value=True)

    def check(self, argnum: int, out: Any) -> None:
        """Raise what `grad` of the same arguments would raise."""
        if argnum == 1 and self.labelled:
            raise _validate.no_target_gradient(self.spec.name)
        if out is not None:
            self._result(argnum, out)

    def grad(self, argnum: int, grad_output: Any, out: Any) -> Any:
        self.check(argnum, out)
        return self._derived("target_grad" if argnum else "grad", grad_output, None, out, argnum=argnum)[1]

    def hessian_diag(self, grad_output: Any, out: Any) -> Any:
        return self._derived("hessian", grad_output, None, out)[1]

    def hvp(self, vector: Any, grad_output: Any, out: Any) -> Any:
        vector = self.further("vector", vector)
        _validate.vector(self.spec.name, vector, self.input.shape)
        return self._derived("hvp", grad_output, self.place.flat(vector, self.x.dtype), out)[1]

    def _derived(
        self, mode: str, grad_output: Any, vector: Any, out: Any, with_value: bool = False, argnum: int = 0
    ) -> tuple[Any, Any]:
        upstream = self.upstream(grad_output)
        result = self._result(argnum, out, upstream[0], vector)
        value = self._run(mode, with_value, upstream, vector, result.flat)
        return value, result.finished()

    def _result(self, argnum: int, out: Any, *further: Any) -> Result:
        may_be_input = not argnum and not self.spec.log_probabilities
        used = (self.t, *(() if may_be_input else (self.x,)), *further, self.weight)
        argument = self.target if argnum else self.input
        return Result(self, argument, argument.shape, out, self.x if may_be_input else None, used)

    def _run(self, mode: str, with_value: bool, upstream: tuple[Any, float], vector: Any, out: Any) -> Any:
        array, scale = upstream
        if array is not None:
            array = self.place.flat(array, self.x.dtype)
        if self.denominator is None:
            sums.census(self.queue, self.t, self.layout[0], self.ignored, self.weight)
        normalised = self.denominator is None and out is not None
        values = self.place.empty(prod(self.shape), self.x.dtype) if self.unreduced and with_value else None
        if self.spec.log_probabilities:
            self._gather(mode, array, self.scaled(scale), normalised, vector, values, out)
        else:
            labels, probabilities = (self.t, None) if self.labelled else (None, self.t)
            classwise.run(
                self.queue, self.spec.math.point, self.spec.math.curvature, mode, self.x, self.layout, labels, probabilities,
                self.weight, vector, array, self.keep, self.even, self.ignored, self.scaled(scale), normalised,
                with_value and not self.unreduced, values, out,
            )  # fmt: skip
        return self.outcome(self.labelled, with_value, values)

    def _gather(self, mode: str, upstream: Any, scale: float, normalised: bool, vector: Any, values: Any, out: Any) -> None:
        second = mode in ("hessian", "hvp")
        curvature = self.spec.math.curvature if second else None
        if out is not None:
            copies.fill(self.queue, out, 0.0)
        gather.run(
            self.queue, self.spec.math.point, curvature, self.x, self.layout, self.t, self.weight, vector, upstream,
            self.ignored, scale, normalised, values, None if second and curvature is None else out,
        )  # fmt: skip

    def bad_element(self) -> Exception:
        """The error for a class index out of range, the same as on the CPU."""
        return _validate.bad_index(self.spec.name, self.place.fetched(self.target), self.layout[0], self.ignored)
