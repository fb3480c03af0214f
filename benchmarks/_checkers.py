"""Gradient checkers behind one interface.

``accepts(f, grad, x, *args)`` is true, false, or None where a checker says nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import gradcheck

Array = np.ndarray
Function = Callable[..., Any]


@dataclass(eq=False)
class Checker:
    """A checker, with its calls of f and its seconds counted."""

    name: str
    _accepts: Callable[..., bool | None]
    evaluations: int = 0
    seconds: float = 0.0

    def fresh(self) -> Checker:
        """The same checker, with nothing counted."""
        return Checker(self.name, self._accepts)

    def accepts(self, f: Function, grad: Function, x: Array, *args: Array) -> bool | None:
        """Its verdict on a gradient at x."""

        def counted(*arguments: Array) -> Any:
            self.evaluations += 1
            return f(*arguments)

        began = time.perf_counter()
        try:
            with np.errstate(all="ignore"):
                return self._accepts(counted, grad, x.copy(), *args)
        finally:
            self.seconds += time.perf_counter() - began


def ours(f: Function, grad: Function, x: Array, *args: Array) -> bool | None:
    """`gradcheck.check` as it comes."""
    verdict = gradcheck.check(f, grad, x, *args).verdict
    return None if verdict is gradcheck.Verdict.INCONCLUSIVE else verdict is gradcheck.Verdict.PASS


def scipy_check_grad(f: Function, grad: Function, x: Array, *args: Array) -> bool:
    """The usual assertion on `scipy.optimize.check_grad`, which gives no verdict of its own."""
    from scipy.optimize import check_grad

    def value(y: Array, *args: Array) -> Any:
        return f(y.reshape(x.shape), *args)

    def slope(y: Array, *args: Array) -> Array:
        return np.asarray(grad(y.reshape(x.shape), *args)).reshape(-1)

    return bool(check_grad(value, slope, x.reshape(-1), *args) < 1e-6)


def torch_checkers() -> list[Checker]:
    """`torch.autograd.gradcheck` of a function whose backward pass is the gradient under test; none without torch."""
    try:
        import torch
    except ModuleNotFoundError:
        return []

    def accepts(fast: bool) -> Callable[..., bool]:
        def check(f: Function, grad: Function, x: Array, *args: Array) -> bool:
            class Wrapped(torch.autograd.Function):
                @staticmethod
                def forward(ctx: Any, y: Any) -> Any:
                    ctx.save_for_backward(y)
                    return torch.tensor(float(f(y.detach().numpy().copy(), *args)), dtype=torch.float64)

                @staticmethod
                def backward(ctx: Any, upstream: Any) -> Any:
                    (y,) = ctx.saved_tensors
                    return upstream * torch.from_numpy(np.array(grad(y.detach().numpy().copy(), *args), float))

            y = torch.from_numpy(x).requires_grad_(True)
            return bool(torch.autograd.gradcheck(Wrapped.apply, (y,), fast_mode=fast, raise_exception=False))

        return check

    return [Checker("torch slow", accepts(False)), Checker("torch fast", accepts(True))]


def checkers() -> list[Checker]:
    """All that are installed."""
    return [Checker("gradcheck", ours), *torch_checkers(), Checker("check_grad < 1e-6", scipy_check_grad)]
