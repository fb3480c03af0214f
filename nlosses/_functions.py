"""sigmoid, log_sigmoid, softmax and log_softmax, each with its vector-Jacobian product."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from math import prod
from typing import Any

import numpy as np

from . import _arrays, _memory, _validate
from ._spec import identity


class Function:
    """A function of an array, with ``vjp(grad_output, output)``: the gradient with respect to its input."""

    def __init__(self, declaration: Callable[..., Any]) -> None:
        self.__name__ = self.__qualname__ = declaration.__name__
        self.__doc__ = declaration.__doc__
        self.__wrapped__ = declaration

    def __repr__(self) -> str:
        return f"<function {self.__name__}>"

    def __reduce__(self) -> str:
        return self.__name__

    def _real(self, name: str, value: Any) -> np.ndarray:
        return _arrays.real(f"{self.__name__}: {name}", value)

    def _pair(self, grad_output: Any, output: Any) -> tuple[np.ndarray, np.ndarray]:
        g, y = self._real("grad_output", grad_output), self._real("output", output)
        _validate.same_shape(self.__name__, g, y)
        return g, y


class Elementwise(Function):
    """A function of each element by itself."""

    def __call__(self, input: Any) -> Any:
        if _arrays.on_device(input):
            return _on_device().elementwise(self.__name__, "forward", {"input": input})
        x = self._real("input", input)
        return self._run("forward", x, None)

    def vjp(self, grad_output: Any, output: Any) -> Any:
        """Gradient with respect to the input, from the gradient of the output and the output itself."""
        if _arrays.on_device(output) or _arrays.on_device(grad_output):
            return _on_device().elementwise(self.__name__, "backward", {"output": output, "grad_output": grad_output})
        g, y = self._pair(grad_output, output)
        return self._run("backward", y, g)

    def _run(self, direction: str, x: np.ndarray, g: np.ndarray | None) -> Any:
        from ._cpu import functions

        dtype = _arrays.compute_dtype(x)
        order: _arrays.Order = _arrays.same_order(x) or "C"
        out = _memory.empty(x.shape, dtype, order)
        flat = _arrays.flat(np.asarray(x, dtype, order))
        upstream = flat if g is None else _arrays.flat(np.asarray(g, dtype, order))
        functions.elementwise(f"{self.__name__}_{direction}", flat, upstream, _arrays.flat(out))
        return out.astype(_arrays.result_dtype(x), copy=False)[()]


class Classwise(Function):
    """A function of all elements along one axis."""

    def __call__(self, input: Any, axis: int = -1) -> Any:
        if _arrays.on_device(input):
            return _on_device().forward(self.__name__, {"input": input}, lambda x: self._layout(x, axis))
        x = self._real("input", input)
        layout = self._layout(x, axis)
        classwise = import_module("._cpu.classwise", __package__)
        dtype = _arrays.compute_dtype(x)
        x_flat = np.ascontiguousarray(x, dtype).reshape(-1)
        out = _memory.empty(x.shape, dtype)
        if x.size:
            classwise.run(identity, None, self.__name__, x_flat, layout, out=out.reshape(-1))
        return out.astype(_arrays.result_dtype(x), copy=False)

    def vjp(self, grad_output: Any, output: Any, axis: int = -1) -> Any:
        """Gradient with respect to the input, from the gradient of the output and the output itself."""
        if _arrays.on_device(output) or _arrays.on_device(grad_output):
            given = {"output": output, "grad_output": grad_output}
            return _on_device().backward(self.__name__, given, lambda y: self._layout(y, axis))
        g, y = self._pair(grad_output, output)
        layout = self._layout(y, axis)
        functions = import_module("._cpu.functions", __package__)
        dtype = _arrays.compute_dtype(y, g)
        out = _memory.empty(y.shape, dtype)
        flats = [np.ascontiguousarray(a, dtype).reshape(-1) for a in (g, y)]
        if y.size:
            functions.classwise(f"{self.__name__}_backward", *flats, layout, out.reshape(-1))
        return out.astype(_arrays.result_dtype(y), copy=False)

    def _layout(self, x: np.ndarray, axis: int) -> tuple[int, int]:
        shape = tuple(x.shape)
        axis = _validate.axis(self.__name__, axis, shape)
        return shape[axis], prod(shape[axis + 1 :])


def _on_device() -> Any:
    return import_module("._cuda.functions", __package__)


@Elementwise
def sigmoid(input):
    """Logistic function ``1 / (1 + exp(-x))`` of each element, within 2 ulp in both tails.

    Parameters
    ----------
    input : array_like of float, any shape

    Returns
    -------
    scalar or ndarray
        Of the shape and dtype of `input`; float64 for integers.

    Raises
    ------
    TypeError
        `input` is complex, a string or an object.

    Notes
    -----
    ``sigmoid.vjp(grad_output, output)`` is ``grad_output * output * (1 - output)``.

    Examples
    --------
    >>> import nlosses as nl
    >>> nl.sigmoid([0.0, -100.0]).tolist()
    [0.5, 3.720075976020836e-44]
    """


@Elementwise
def log_sigmoid(input):
    """Logarithm of the logistic function, ``-log(1 + exp(-x))``, of each element, within 2 ulp.

    Parameters
    ----------
    input : array_like of float, any shape

    Returns
    -------
    scalar or ndarray
        Of the shape and dtype of `input`; float64 for integers.

    Raises
    ------
    TypeError
        `input` is complex, a string or an object.

    Notes
    -----
    ``log_sigmoid.vjp(grad_output, output)`` is ``grad_output * (1 - exp(output))``, taken as ``-expm1(output)``.

    Examples
    --------
    >>> import nlosses as nl
    >>> nl.log_sigmoid([1000.0, -1000.0]).tolist()
    [0.0, -1000.0]
    """


@Classwise
def softmax(input, axis=-1):
    """Softmax ``exp(x) / sum(exp(x))`` along an axis.

    Parameters
    ----------
    input : array_like of float, at least one-dimensional
    axis : int
        The axis of the classes.

    Returns
    -------
    ndarray
        Of the shape and dtype of `input`; float64 for integers.

    Raises
    ------
    ValueError
        `input` has no such axis, or no element along it.
    TypeError
        `input` is complex, a string or an object.

    Notes
    -----
    ``softmax.vjp(grad_output, output, axis)`` is ``output * (grad_output - sum(grad_output * output))``.

    Examples
    --------
    >>> import nlosses as nl
    >>> nl.softmax([[0.0, 0.0], [1000.0, -float("inf")]], axis=1).tolist()
    [[0.5, 0.5], [1.0, 0.0]]
    """


@Classwise
def log_softmax(input, axis=-1):
    """Logarithm of the softmax, ``x - log(sum(exp(x)))``, along an axis, accurate also where a probability is nearly 1.

    Parameters
    ----------
    input : array_like of float, at least one-dimensional
    axis : int
        The axis of the classes.

    Returns
    -------
    ndarray
        Of the shape and dtype of `input`; float64 for integers.

    Raises
    ------
    ValueError
        `input` has no such axis, or no element along it.
    TypeError
        `input` is complex, a string or an object.

    Notes
    -----
    ``log_softmax.vjp(grad_output, output, axis)`` is ``grad_output - exp(output) * sum(grad_output)``.

    Examples
    --------
    >>> import nlosses as nl
    >>> print(f"{nl.log_softmax([40.0, 0.0])[0]:.6e}")
    -4.248354e-18
    """
