"""The functions of the user behind one interface, with their calls counted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Arguments = tuple[Any, ...]


class Subject:
    """What is under test.

    `value` of (x, *args) is a number, or an array if there is a `vjp`; `gradient` gives one array for each position of
    `wrt`.  The argument in front of `gradient` is the upstream gradient, None for a scalar function.
    """

    def __init__(
        self, f: Callable[..., Any], grad: Callable[..., Any] | None, vjp: Callable[..., Any] | None,
        value_and_grad: bool, wrt: tuple[int, ...], several: bool,
    ):  # fmt: skip
        self._f = f
        self._grad = grad
        self._vjp = vjp
        self._fused = value_and_grad
        self.wrt = wrt
        self._several = several
        self.evaluations = 0
        self.gradient_evaluations = 0

    def value(self, arguments: Arguments) -> Any:
        self.evaluations += 1
        result = self._f(*arguments)
        return _pair(result)[0] if self._fused else result

    def gradient(self, upstream: np.ndarray | None, arguments: Arguments, **options: Any) -> tuple[Any, ...]:
        self.gradient_evaluations += 1
        if self._vjp is not None:
            result = self._vjp(upstream, *arguments, **options)
        elif self._fused:
            result = _pair(self._f(*arguments, **options))[1]
        else:
            assert self._grad is not None
            result = self._grad(*arguments, **options)
        if not self._several:
            return (result,)
        if not isinstance(result, Sequence) or len(result) != len(self.wrt):
            raise TypeError(
                f"the gradient must be a tuple of {len(self.wrt)} arrays, one for each of wrt={self.wrt}, was {_kind(result)}"
            )
        return tuple(result)

    @property
    def separate(self) -> Callable[..., Any] | None:
        """The unfused gradient, where both were given."""
        return self._grad if self._fused else None


def _pair(result: Any) -> tuple[Any, Any]:
    if not isinstance(result, tuple) or len(result) != 2:
        raise TypeError(f"with value_and_grad=True, f must return (value, gradient), was {_kind(result)}")
    return result


def _kind(result: Any) -> str:
    return f"a {type(result).__name__}" + (f" of {len(result)}" if isinstance(result, Sequence) else "")


def copied(arguments: Arguments) -> Arguments:
    """Arguments with arrays of their own; layouts stay."""
    return tuple(a.copy(order="K") if isinstance(a, np.ndarray) else a for a in arguments)


def same(a: Any, b: Any) -> bool:
    """Whether two results have the same bits, NaN and signs of zero included."""
    a, b = np.asarray(a), np.asarray(b)
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()
