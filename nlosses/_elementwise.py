"""Elementwise losses: from a caller's arrays to one kernel call, and back."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from . import _arrays, _memory, _validate
from ._arrays import F4, F8
from ._cpu import _threads, checks, elementwise
from ._results import Result, divided, may_share, serves
from ._spec import Math, Spec


def quick(spec: Spec[Any]) -> Any:
    """`value_and_grad` of two arrays alike, with options as they are declared, in half the time of a `Problem`.

    A function of input, target, out and the reduction; where they ask for more care it gives None, and no argument is changed.
    """
    options = spec.options
    absent = all(options.get(name) is None for name in ("weight", *spec.parameters))
    if not absent or any(options[name] for name in spec.variants):
        return None
    point, parameters = spec.math.point, (None,) * len(spec.parameters)
    summand, binary, vectors = spec.math.summand, spec.math.binary, spec.math.vectors
    unit = spec.checks_domains
    if unit and not spec.in_unit:
        return None
    kernels: dict[Any, Any] = {}

    def value_and_grad(
        input: np.ndarray, target: np.ndarray, out: np.ndarray | None, reduction: Any
    ) -> tuple[Any, np.ndarray] | None:
        dtype, shape = input.dtype, input.shape
        alike = (dtype is F4 or dtype is F8) and target.dtype is dtype and target.shape == shape
        if not (alike and input.flags.c_contiguous and target.flags.c_contiguous and shape and (n := input.size)):
            return None
        if reduction == "mean":
            denominator = n
        elif reduction == "sum":
            denominator = 1
        else:
            return None
        if out is None:
            grad = np.empty(shape, dtype) if n < _threads.SMALL else _memory.empty(shape, dtype)
        elif serves(out, shape, dtype, input, target, True):
            grad = out
        else:
            return None
        flat, in_place = grad, out is input
        if len(shape) > 1:
            input, target, flat = input.reshape(n), target.reshape(n), grad.reshape(n)
        if unit and in_place and checks.pair_leaves_unit(input, target):
            return None
        scale = 1.0 / denominator
        if n >= _threads.SMALL:
            total = elementwise.run(
                point, True, input, target, parameters=parameters, scale=scale, out=flat, summand=summand,
                binary=binary, unit=unit, vectors=vectors,
            )  # fmt: skip
        else:
            kernel = kernels.get(dtype)
            if kernel is None:
                kernel = kernels[dtype] = elementwise.serial(point, parameters, summand, binary, dtype, unit, vectors)
            total = kernel(input, target, scale, flat)
        if unit and total != total and not in_place:  # an element may be outside of its interval
            return None
        return dtype.type(total / denominator), grad

    return value_and_grad


class Problem:
    """One call's arrays, flattened in one order and of one dtype, with everything that the reduction needs."""

    __slots__ = (
        "denominator", "given", "input", "math", "options", "order", "parameters", "shape", "simple", "spec", "t", "target",
        "unchecked", "unit", "unreduced", "value_type", "weight", "x",
    )  # fmt: skip

    def __init__(self, spec: Spec[Any], input: Any, target: Any, options: dict[str, Any]) -> None:
        self.spec = spec
        self.options = options
        self.given = input, target
        if (
            type(input) is np.ndarray
            and type(target) is np.ndarray
            and ((dtype := input.dtype) is F4 or dtype is F8)
            and target.dtype is dtype
            and input.shape == target.shape
            and input.flags.c_contiguous
            and target.flags.c_contiguous
        ):
            self.input, self.target, self.shape = input, target, input.shape
            self.order: _arrays.Order = "C"
            self.x: np.ndarray = input if input.ndim == 1 else input.reshape(-1)
            self.t: np.ndarray = target if target.ndim == 1 else target.reshape(-1)
            self.simple = True
            self.value_type = dtype.type
        else:
            self.simple = False
            self._canonical(input, target)
        self.math: Math = spec.math
        for switch in spec.variants:
            if options[switch]:
                self.math = spec.variants[switch]
        self.unit = self.unchecked = False
        if spec.checks_domains:
            self.unit = self.unchecked = spec.in_unit
            if not self.unit:
                self._check_domains()
        self.weight = None if options.get("weight") is None else self._weight(options["weight"])
        self.parameters: tuple[elementwise.Operand | None, ...] = ()
        if spec.parameters:
            given = [None if options[name] is None else self._operand(name, options[name]) for name in spec.parameters]
            self.parameters = tuple(given)
        self._set_denominator(options["reduction"])

    # --- arguments -------------------------------------------------------------------------------------------------

    def _canonical(self, input: Any, target: Any) -> None:
        x = self.input = _arrays.real("input", input)
        t = self.target = _arrays.real("target", target)
        shape = self.shape = _validate.elementwise_shapes(self.spec, x, t)
        dtype = _arrays.compute_dtype(x, t)
        if x.shape != shape or t.shape != shape:
            x, t = np.broadcast_to(x, shape), np.broadcast_to(t, shape)
        order = _arrays.same_order(x, t)
        self.order = order or "C"
        self.x = _arrays.flat(np.asarray(x, dtype, self.order))
        self.t = _arrays.flat(np.asarray(t, dtype, self.order))
        self.value_type = _arrays.value_dtype(self.input, self.target).type

    def _check_domains(self) -> None:
        """Raise if an element is outside its interval; those between 0 and 1 a kernel checks as it reads them, where it writes
        over no argument.
        """
        self.unchecked = False
        if self.spec.in_unit and not checks.pair_leaves_unit(self.x, self.t):
            return
        for name, array, interval in (("input", self.x, self.spec.input), ("target", self.t, self.spec.target)):
            if interval.bounded and checks.leaves(array, interval.low, interval.high):
                raise _validate.outside(self.spec.name, name, getattr(self, name), interval)

    def _operand(self, name: str, value: Any) -> elementwise.Operand:
        value = _arrays.real(name, value)
        if self.order == "F" and value.ndim > 0:  # the memory runs over the transposed array
            _validate.broadcasts(name, value.shape, self.shape)
            value = value.reshape((1,) * (len(self.shape) - value.ndim) + value.shape).T
            return _arrays.operand(name, value, self.shape[::-1], self.x.dtype)
        return _arrays.operand(name, value, self.shape, self.x.dtype)

    def _weight(self, weight: Any) -> elementwise.Operand | None:
        if self.spec.mean_of_weights:
            _validate.matching_weight(self.spec.name, _arrays.real("weight", weight), self.input.shape)
        return self._operand("weight", weight)

    def _set_denominator(self, reduction: str) -> None:
        self.unreduced = reduction == "none"
        self.denominator = 1.0
        if reduction == "mean":
            if self.weight is not None and self.spec.mean_of_weights:
                weight = _arrays.real("weight", self.options["weight"])
                quick = (weight.dtype is F4 or weight.dtype is F8) and weight.flags.c_contiguous
                self.denominator = checks.total(weight.reshape(-1)) if quick else float(weight.sum(dtype=F8))
            else:
                self.denominator = float(self.x.size)
        elif reduction == "batchmean" and self.input.ndim:
            self.denominator = float(self.input.shape[0])

    # --- results ---------------------------------------------------------------------------------------------------

    def value(self) -> Any:
        return self._run(self.math.point, True, None, None, None)

    def value_and_grad(self, grad_output: Any, out: Any) -> tuple[Any, Any]:
        if self.simple and out is None:  # as `Result` has it, without its microseconds
            grad = _memory.empty(self.shape, self.x.dtype)
            value = self._run(self.math.point, True, grad_output, None, grad if grad.ndim == 1 else grad.reshape(-1))
            return value, grad if grad.ndim else grad[()]
        result = self._result(0, out, grad_output)
        if self.unchecked and result.buffer is out and may_share(out, (*self.given, grad_output, *self.options.values())):
            self._check_domains()
        value = self._run(self.math.point, True, grad_output, None, result.kernel_out)
        return value, result.finished()

    def check(self, argnum: int, out: Any) -> None:
        """Raise what `grad` of the same arguments would raise."""
        if self.unchecked:
            self._check_domains()
        if argnum == 1 and self.math.target_slope is None:
            raise _validate.missing(self.spec.name, "gradient with respect to the target", "target_slope")
        if out is not None:
            argument = self.target if argnum else self.input
            _validate.out(self.spec.name, out, argument.shape, _arrays.result_dtype(argument))

    def grad(self, argnum: int, grad_output: Any, out: Any) -> Any:
        if argnum == 0:
            return self.value_and_grad(grad_output, out)[1]
        self.check(argnum, out)
        assert self.math.target_slope is not None
        result = self._result(1, out, grad_output)
        self._run(self.math.target_slope, False, grad_output, None, result.kernel_out)
        return result.finished()

    def hessian_diag(self, grad_output: Any, out: Any) -> Any:
        return self._second_order(grad_output, None, out)

    def hvp(self, vector: Any, grad_output: Any, out: Any) -> Any:
        vector = _arrays.real("vector", vector)
        _validate.vector(self.spec.name, vector, self.input.shape)
        return self._second_order(grad_output, vector, out)

    def _second_order(self, grad_output: Any, vector: Any, out: Any) -> Any:
        if self.math.curvature is None:
            raise _validate.missing(self.spec.name, "second derivative", "curvature")
        result = self._result(0, out, grad_output, vector)
        vector = None if vector is None else self._operand("vector", vector)
        self._run(self.math.curvature, False, grad_output, vector, result.kernel_out)
        return result.finished()

    def _result(self, argnum: int, out: Any, grad_output: Any, vector: np.ndarray | None = None) -> Result:
        argument = self.target if argnum else self.input
        used = [self.t if argnum == 0 else self.x, *_arrays.read_too(grad_output, vector)]
        used += [o[0] for o in (self.weight, *self.parameters) if o is not None]
        kernel_argument = None if argnum else self.x
        return Result(self.spec.name, argument, self.shape, self.x.dtype, self.order, out, kernel_argument, used)

    def _run(self, function: Any, with_value: bool, grad_output: Any, vector: Any, out: Any) -> Any:
        upstream, scale = None, 1.0
        if grad_output is not None:
            upstream, scale = self._upstream(grad_output)
        if self.denominator != 1.0:
            scale = scale / self.denominator if self.denominator else math.inf * scale
        values = _memory.empty(self.shape, self.x.dtype, self.order) if self.unreduced and with_value else None
        unit = self.unit and with_value
        if self.unchecked and not unit:
            self._check_domains()
        total = elementwise.run(
            function, with_value, self.x, self.t, self.weight, upstream, vector, self.parameters, scale,
            None if values is None else _arrays.flat(values), out, self.math.summand,
            self.math.binary, unit, self.math.vectors and with_value,
        )  # fmt: skip
        if unit and self.unchecked and total != total:
            self._check_domains()
        if not with_value:
            return None
        if values is not None:
            return _arrays.scalar_or_array(values.astype(self.value_type, copy=False))
        return self.value_type(total / self.denominator if self.denominator else divided(total, 0.0))

    def _upstream(self, grad_output: Any) -> tuple[Any, float]:
        array = _arrays.real("grad_output", grad_output)
        _validate.grad_output(self.spec.name, array, self.shape if self.unreduced else ())
        return (self._operand("grad_output", array), 1.0) if self.unreduced else (None, float(array))
