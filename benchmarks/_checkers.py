"""Gradient checkers behind one interface: ``accepts(f, grad, x) -> bool or None``, None where a checker says nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import gradcheck

Array = np.ndarray
Function = Callable[[Array], Any]


@dataclass(eq=False)
class Checker:
    """A checker, with its calls of f and its seconds counted."""

    name: str
    _accepts: Callable[[Function, Function, Array], bool | None]
    evaluations: int = 0
    seconds: float = 0.0
    checks: int = field(default=0)

    def accepts(self, f: Function, grad: Function, x: Array) -> bool | None:
        def counted(y: Array) -> Any:
            self.evaluations += 1
            return f(y)

        self.checks += 1
        began = time.perf_counter()
        try:
            with np.errstate(all="ignore"):
                return self._accepts(counted, grad, x.copy())
        finally:
            self.seconds += time.perf_counter() - began


def ours(f: Function, grad: Function, x: Array) -> bool | None:
    verdict = gradcheck.check(f, grad, x).verdict
    return None if verdict is gradcheck.Verdict.INCONCLUSIVE else verdict is gradcheck.Verdict.PASS


def scipy_check_grad(f: Function, grad: Function, x: Array) -> bool:
    """The usual assertion on `scipy.optimize.check_grad`, which gives no verdict of its own."""
    from scipy.optimize import check_grad

    shape = x.shape
    flat = x.reshape(-1)
    return bool(
        check_grad(lambda y: f(y.reshape(shape)), lambda y: np.asarray(grad(y.reshape(shape))).reshape(-1), flat) < 1e-6
    )


def torch_checkers() -> list[Checker]:
    """`torch.autograd.gradcheck` of a function whose backward pass is the gradient under test; none without torch."""
    try:
        import torch
    except ModuleNotFoundError:
        return []

    def accepts(fast: bool) -> Callable[[Function, Function, Array], bool]:
        def check(f: Function, grad: Function, x: Array) -> bool:
            class Wrapped(torch.autograd.Function):
                @staticmethod
                def forward(ctx: Any, y: Any) -> Any:
                    ctx.save_for_backward(y)
                    return torch.tensor(float(f(y.detach().numpy().copy())), dtype=torch.float64)

                @staticmethod
                def backward(ctx: Any, upstream: Any) -> Any:
                    (y,) = ctx.saved_tensors
                    return upstream * torch.from_numpy(np.array(grad(y.detach().numpy().copy()), float))

            y = torch.from_numpy(x).requires_grad_(True)
            return bool(torch.autograd.gradcheck(Wrapped.apply, (y,), fast_mode=fast, raise_exception=False))

        return check

    return [Checker("torch slow", accepts(False)), Checker("torch fast", accepts(True))]


def checkers() -> list[Checker]:
    """All that are installed."""
    return [Checker("gradcheck", ours), *torch_checkers(), Checker("check_grad < 1e-6", scipy_check_grad)]
