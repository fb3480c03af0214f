"""Classwise losses: from a caller's arrays to one kernel call, and back."""

from __future__ import annotations

import math
from math import prod
from typing import Any

import numpy as np

from . import _arrays, _memory, _validate
from ._arrays import F4, F8, I8
from ._cpu import _threads, checks, classwise, gather
from ._cpu._indices import ALLOWED, CHECKED, COUNTING, FEW
from ._results import Result, divided, may_share, serves
from ._spec import Spec


def hoped_for(reduction: str, classes: int, ignored: int, size: int) -> int:
    """What a kernel may take class indices for without a census, which reads them once more.

    If there are ignored ones, a mean is computed twice, and of a large array the first time may take as long as the second: so
    that is tried where labels are much of what is read, and hardly ever ignored.
    """
    if reduction != "mean":
        return ALLOWED
    return COUNTING if (classes <= FEW or size < _threads.SMALL) and not 0 <= ignored < classes else CHECKED


def quick(spec: Spec[Any]) -> Any:
    """`value_and_grad` of rows and their class indices, with options as they are declared, in half the time of a
    `Problem`.

    A function of input, target, out and the reduction; where they ask for more care it gives None, and no argument is changed.
    """
    options = spec.options
    if options.get("weight") is not None or options.get("label_smoothing"):
        return None
    math, ignored, in_place = spec.math, options.get("ignore_index", -100), not spec.log_probabilities
    kernels: dict[Any, Any] = {}

    def value_and_grad(
        input: np.ndarray, target: np.ndarray, out: np.ndarray | None, reduction: Any
    ) -> tuple[Any, np.ndarray] | None:
        dtype, shape, size = input.dtype, input.shape, input.size
        alike = (dtype is F4 or dtype is F8) and target.dtype is I8 and len(shape) == 2 and target.shape == shape[:1]
        if not (alike and input.flags.c_contiguous and target.flags.c_contiguous and size):
            return None
        if reduction not in ("mean", "sum") or (out is not None and not serves(out, shape, dtype, input, target, in_place)):
            return None
        classes, small = shape[1], size < _threads.SMALL
        grad = out if out is not None else np.empty(shape, dtype) if small else _memory.empty(shape, dtype)
        flat, to = input.reshape(size), grad.reshape(size)
        denominator = float(target.size) if reduction == "mean" else 1.0
        hope = CHECKED if out is input else hoped_for(reduction, classes, ignored, size)
        for expected in (hope, CHECKED):
            if expected == CHECKED:
                bad, counted = checks.census(target, classes, ignored, None)
                if bad or not counted:
                    return None
                if reduction == "mean":
                    denominator = counted
            scale = 1.0 / denominator
            if small:
                kernel = kernels.get((dtype, classes))
                if kernel is None:
                    kernel = kernels[dtype, classes] = (
                        gather.serial(math.point, dtype, classes)
                        if spec.log_probabilities
                        else classwise.serial(math.point, math.curvature, dtype, classes)
                    )
                total = kernel(flat, target, expected, ignored, scale, to)
            elif spec.log_probabilities:
                total = gather.run(math.point, None, flat, (classes, 1), target, None, None, ignored, scale, None, to, expected)
            else:
                total = classwise.run(
                    math.point, math.curvature, "grad", flat, (classes, 1), target, ignored=ignored, scale=scale, out=to,
                    expected=expected,
                )  # fmt: skip
            if total == total or expected == CHECKED:
                break
        return dtype.type(total / denominator), grad

    return value_and_grad


class Problem:
    """One call's logits as (N, classes, inner), its target, and everything that the reduction needs."""

    __slots__ = (
        "denominator", "even", "expected", "given", "ignored", "input", "keep", "labelled", "layout", "options", "shape",
        "spec", "t", "target", "unreduced", "value_type", "weight", "x",
    )  # fmt: skip

    def __init__(self, spec: Spec[Any], input: Any, target: Any, options: dict[str, Any]) -> None:
        self.spec = spec
        self.options = options
        self.given = input, target
        if (
            type(input) is np.ndarray
            and type(target) is np.ndarray
            and ((dtype := input.dtype) is F4 or dtype is F8)
            and target.dtype is I8
            and input.ndim == 2
            and target.shape == input.shape[:1]
            and input.shape[1]
            and input.flags.c_contiguous
            and target.flags.c_contiguous
        ):  # what `_canonical` would find too, in three times the time
            self.input, self.target, self.shape = input, target, target.shape
            self.labelled, self.value_type, self.layout = True, dtype.type, (input.shape[1], 1)
            self.x: np.ndarray = input.reshape(-1)
        else:
            self._canonical(input, target)
        classes = self.layout[0]
        self._set_weight(options.get("weight"), classes)
        self._set_coefficients(options, classes)
        self._set_target(classes, options["reduction"])

    # --- arguments -------------------------------------------------------------------------------------------------

    def _canonical(self, input: Any, target: Any) -> None:
        spec = self.spec
        x = self.input = _arrays.real("input", input)
        t = self.target = _arrays.real("target", target)
        self.labelled = not (spec.class_probabilities and t.shape == x.shape and t.dtype.kind == "f")
        if self.labelled:
            _validate.integer_target(spec, x, t)
        _validate.class_shapes(spec, x, t, self.labelled)
        dtype = x.dtype
        if (dtype is F4 or dtype is F8) and (self.labelled or t.dtype is dtype):
            self.value_type = dtype.type
        else:
            dtype = _arrays.compute_dtype(x) if self.labelled else _arrays.compute_dtype(x, t)
            self.value_type = _arrays.value_dtype(x, t).type
        self.x = _flat(x, dtype)
        if x.ndim == 1:
            self.shape, self.layout = (), (x.shape[0], 1)
        else:
            self.shape, self.layout = (x.shape[0], *x.shape[2:]), (x.shape[1], prod(x.shape[2:]))

    def _set_weight(self, weight: Any, classes: int) -> None:
        self.weight = None
        if weight is not None:
            weight = _arrays.real("weight", weight)
            _validate.class_weight(self.spec.name, weight, classes)
            self.weight = np.ascontiguousarray(weight, self.x.dtype)

    def _set_coefficients(self, options: dict[str, Any], classes: int) -> None:
        smoothing = options.get("label_smoothing", 0.0)
        self.keep = 1.0 - smoothing
        self.even = smoothing / classes if smoothing or not self.labelled else None
        self.ignored = options.get("ignore_index", -100)
        if not self.labelled and self.ignored >= 0:
            raise _validate.ignored_probabilities(self.spec.name, self.ignored)

    def _set_target(self, classes: int, reduction: str) -> None:
        t = self.target
        self.unreduced = reduction == "none"
        self.denominator = 1.0
        self.expected = CHECKED
        if not self.labelled:
            self.t = _flat(t, self.x.dtype)
            if reduction == "mean":
                self.denominator = float(prod(self.shape))
            return
        if t.dtype.kind == "u" and t.size and t.max() > np.iinfo(np.int64).max:
            raise _validate.bad_index(self.spec.name, t, classes, self.ignored)
        self.t = _flat(t, I8)
        if reduction == "mean":
            self.denominator = float(self.t.size)
        if self.weight is None:
            self.expected = hoped_for(reduction, classes, self.ignored, self.x.size)
        if self.expected == CHECKED:
            self._count()

    def _make_sure(self) -> None:
        """Raise if a label is no class and not ignored, unless that is known."""
        if self.expected != CHECKED:
            self._count()

    def _count(self) -> None:
        """Take a census, whatever is known: raise if it finds a wrong label, and let a mean count what it has counted."""
        self.expected = CHECKED
        bad, counted = checks.census(self.t, self.layout[0], self.ignored, self.weight)
        if bad:
            raise _validate.bad_index(self.spec.name, self.target, self.layout[0], self.ignored)
        if self.options["reduction"] == "mean":
            self.denominator = counted

    # --- results ---------------------------------------------------------------------------------------------------

    def value(self) -> Any:
        return self._run("value", None, None, None)

    def value_and_grad(self, grad_output: Any, out: Any) -> tuple[Any, Any]:
        if self.expected != CHECKED and isinstance(out, np.ndarray):
            arguments = *self.given, grad_output, *self.options.values()
            if self.even is not None or may_share(out, arguments):  # smoothing may have been an array of one number
                self._count()
        # What follows, without the microseconds of the general case.
        if self.input.dtype is self.x.dtype and (out is None or (grad_output is None and self._serves(out))):
            grad = _memory.empty(self.input.shape, self.x.dtype) if out is None else out
            return self._run("grad", grad_output, None, grad.reshape(-1)), grad
        result = self._result(0, out, grad_output)
        value = self._run("grad", grad_output, None, result.kernel_out)
        return value, result.finished()

    def _serves(self, out: Any) -> bool:
        """Whether a kernel can write to `out` as it is."""
        in_place = not self.spec.log_probabilities
        return self.weight is None and serves(out, self.input.shape, self.x.dtype, self.input, self.target, in_place)

    def check(self, argnum: int, out: Any) -> None:
        """Raise what `grad` of the same arguments would raise."""
        self._make_sure()
        if argnum == 1 and self.labelled:
            raise _validate.no_target_gradient(self.spec.name)
        if out is not None:
            argument = self.target if argnum else self.input
            _validate.out(self.spec.name, out, argument.shape, _arrays.result_dtype(argument))

    def grad(self, argnum: int, grad_output: Any, out: Any) -> Any:
        if argnum == 0:
            return self.value_and_grad(grad_output, out)[1]
        self.check(argnum, out)
        result = self._result(1, out, grad_output)
        self._run("target_grad", grad_output, None, result.kernel_out)
        return result.finished()

    def hessian_diag(self, grad_output: Any, out: Any) -> Any:
        result = self._result(0, out, grad_output)
        self._run("hessian", grad_output, None, result.kernel_out)
        return result.finished()

    def hvp(self, vector: Any, grad_output: Any, out: Any) -> Any:
        vector = _arrays.real("vector", vector)
        _validate.vector(self.spec.name, vector, self.input.shape)
        vector = _flat(vector, self.x.dtype)
        result = self._result(0, out, grad_output, vector)
        self._run("hvp", grad_output, vector, result.kernel_out)
        return result.finished()

    def _result(self, argnum: int, out: Any, grad_output: Any, vector: np.ndarray | None = None) -> Result:
        argument = self.target if argnum else self.input
        may_be_input = not argnum and not self.spec.log_probabilities
        used = [self.t] if may_be_input else [self.x, self.t]
        used += _arrays.read_too(grad_output, vector)
        if self.weight is not None:
            used.append(self.weight)
        kernel_argument = self.x if may_be_input else None
        return Result(self.spec.name, argument, argument.shape, self.x.dtype, "C", out, kernel_argument, used)

    def _run(self, mode: str, grad_output: Any, vector: np.ndarray | None, out: np.ndarray | None) -> Any:
        upstream, scale = None, 1.0
        if grad_output is not None:
            upstream, scale = self._upstream(grad_output)
        with_value = mode in ("value", "grad")
        if not with_value:
            self._make_sure()
        if self.denominator != 1.0:
            scale = scale / self.denominator if self.denominator else math.inf * scale
        values = _memory.empty((prod(self.shape),), self.x.dtype) if self.unreduced and with_value else None
        if self.spec.log_probabilities:
            total = self._gather(mode, upstream, scale, vector, values, out)
        else:
            total = classwise.run(
                self.spec.math.point, self.spec.math.curvature, mode, self.x, self.layout, self.t, self.weight, vector,
                upstream, self.keep, self.even, self.ignored, scale, values, out, self.expected,
            )  # fmt: skip
        if total != total and self.expected != CHECKED:  # labels may not be what they were taken for
            self._count()
            return self._run(mode, grad_output, vector, out)
        if not with_value:
            return None
        if values is not None:
            return _arrays.scalar_or_array(values.reshape(self.shape).astype(self.value_type, copy=False))
        return self.value_type(divided(total, self.denominator))

    def _gather(self, mode: str, upstream: Any, scale: float, vector: Any, values: Any, out: Any) -> float:
        curvature = self.spec.math.curvature if mode in ("hessian", "hvp") else None
        if mode in ("hessian", "hvp") and curvature is None:
            out[:] = 0
            return 0.0
        total = gather.run(
            self.spec.math.point, curvature, self.x, self.layout, self.t, self.weight, upstream, self.ignored, scale, values,
            out, self.expected,
        )  # fmt: skip
        if vector is not None:
            out *= vector
        return total

    def _upstream(self, grad_output: Any) -> tuple[np.ndarray | None, float]:
        array = _arrays.real("grad_output", grad_output)
        _validate.grad_output(self.spec.name, array, self.shape if self.unreduced else ())
        return (_flat(array, self.x.dtype), 1.0) if self.unreduced else (None, float(array))


def _flat(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    if array.dtype is not dtype or not array.flags.c_contiguous:
        array = np.ascontiguousarray(array, dtype)
    return array if array.ndim == 1 else array.reshape(-1)
