"""Who is measured: nlosses and its peers.  Each gives calls of no arguments that return (value, gradient), fully computed.

A peer that has not got a loss or an option gives no call.  What all have in common: inputs are in the peer's own arrays before
the clock starts, and gradients are fresh ones, not added to older ones.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from math import prod
from typing import Any, Protocol

import numba
import numpy as np

import nlosses as nl
from nlosses._memory import LARGE

from . import _numpy
from ._cases import PROBABILITIES, Problem
from ._tables import OWN, OWN_IN, OWN_NEW, OWN_OUT
from ._timing import Call


class Contender(Protocol):
    """What a contender must have: a reason for what is missing of it, and calls."""

    without: str

    def calls(self, problem: Problem) -> dict[str, Call]: ...


class Own:
    """nlosses, with a fresh gradient (a large one in memory that an earlier one has left, or in new memory of the system), into
    an array of the caller's, and into the input.
    """

    without = ""

    def __init__(self, threads: int) -> None:
        self.set_threads(threads)

    def set_threads(self, threads: int) -> None:
        numba.set_num_threads(threads)

    def calls(self, problem: Problem) -> dict[str, Call]:
        value_and_grad = nl.LOSSES[problem.case.loss].value_and_grad
        x, t, options, buffer = problem.x, problem.t, problem.arguments, np.empty_like(problem.x)
        if list(options.values()) == ["mean"]:
            options = {}  # as one calls it
        calls: dict[str, Call] = {
            OWN: lambda: value_and_grad(x, t, **options),
            OWN_OUT: lambda: value_and_grad(x, t, out=buffer, **options),
        }
        if buffer.nbytes >= LARGE:

            def new() -> Any:
                nl.release_memory()
                return value_and_grad(x, t, **options)

            calls[OWN_NEW] = new
        spec = problem.case.spec
        if not (options or spec.input.bounded or spec.log_probabilities):
            given = x.copy()  # becomes its gradient, and the next call's input: the time is that of any numbers
            calls[OWN_IN] = lambda: value_and_grad(given, t, out=given)
        return calls


class Numpy:
    """What one writes with NumPy alone."""

    without = ""

    def __init__(self, threads: int) -> None:
        pass

    def calls(self, problem: Problem) -> dict[str, Call]:
        call = _numpy.call(problem)
        return {"numpy": call} if call else {}


class Torch:
    """Torch's eager mode, and its compiler where a C++ compiler works."""

    def __init__(self, threads: int) -> None:
        os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")  # no pool of idle compilers beside the measurement
        import torch

        # A remark on the meaning of kl_div's mean.
        warnings.filterwarnings("ignore", message="reduction: 'mean' divides", category=UserWarning)
        self.torch = torch
        torch.set_num_threads(threads)
        self.without = ""
        try:
            torch.compile(lambda x: x + 1)(torch.zeros(8))
        except Exception as error:  # whatever the compiler's tool chain raises
            self.without = f"torch.compile left out: {str(error).strip().splitlines()[0][:90]}"

    def set_threads(self, threads: int) -> None:
        self.torch.set_num_threads(threads)

    def calls(self, problem: Problem) -> dict[str, Call]:
        torch, reduced = self.torch, problem.case.reduction != "none"
        loss = getattr(torch.nn.functional, problem.case.loss, None)
        if loss is None:
            return {}
        options = {k: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for k, v in problem.arguments.items()}
        leaf, target = torch.from_numpy(problem.x.copy()).requires_grad_(), torch.from_numpy(problem.t)
        upstream = None if reduced else torch.ones(problem.case.positions, dtype=leaf.dtype)

        def eager() -> tuple[Any, Any]:
            value = loss(leaf, target, **options)
            value.backward(upstream)
            grad, leaf.grad = leaf.grad, None
            return value, grad

        def summed(x: Any, t: Any) -> tuple[Any, Any]:
            value = loss(x, t, **options)
            return value.sum(), value

        def both(x: Any, t: Any) -> tuple[Any, Any]:
            grad, (_, value) = torch.func.grad_and_value(summed, has_aux=True)(x, t)
            return value, grad

        if self.without:
            return {"torch eager": eager}
        torch._dynamo.reset()  # each case is compiled for its own shape
        compiled, plain = torch.compile(both, dynamic=False), leaf.detach()
        return {"torch eager": eager, "torch.compile": lambda: compiled(plain, target)}


class Jax:
    """JAX's compiled value and gradient of optax's losses, and of a line of jax.numpy where optax has none."""

    without = ""

    def __init__(self, threads: int) -> None:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # XLA reports slow constant folding as an error
        import jax
        import optax

        jax.config.update("jax_enable_x64", True)
        self.jax, self.optax = jax, optax

    def calls(self, problem: Problem) -> dict[str, Call]:
        jax, case = self.jax, problem.case
        values = getattr(self, case.loss, None)
        if values is None:
            return {}
        weight = problem.options.get("weight") if not case.classwise else None
        options = {name: v for name, v in problem.options.items() if case.classwise or name != "weight"}
        divisor = {"sum": 1.0, "batchmean": case.shape[0], "mean": prod(case.positions)}.get(case.reduction, 1.0)

        def reduced(x: Any, t: Any, w: Any, arrays: Any) -> tuple[Any, Any]:
            of_elements = values(x, t, **{**options, **arrays})
            of_elements, weights = of_elements if isinstance(of_elements, tuple) else (of_elements, None)
            total = (of_elements if w is None else w * of_elements).sum()
            if case.reduction == "mean" and (weights is not None or (w is not None and case.spec.mean_of_weights)):
                return (value := total / (w if weights is None else weights).sum()), value
            return total / divisor, (of_elements if w is None else w * of_elements)

        def both(*arguments: Any) -> tuple[Any, Any]:
            (value, of_elements), grad = jax.value_and_grad(reduced, has_aux=True)(*arguments)
            return of_elements if case.reduction == "none" else value, grad

        t = problem.t.astype(np.int32) if case.labelled else problem.t  # JAX's own integers
        arrays = {name: v for name, v in options.items() if isinstance(v, np.ndarray)}
        compiled = jax.jit(both)
        inputs = jax.block_until_ready(jax.device_put((problem.x, t, weight, arrays)))
        return {"jax": lambda: jax.block_until_ready(compiled(*inputs))}

    # --- values of the elements or rows, and the weights of the rows where a mean divides by them ---

    def binary_cross_entropy(self, x: Any, t: Any) -> Any:
        jnp = self.jax.numpy
        return -(t * jnp.maximum(jnp.log(x), -100) + (1 - t) * jnp.maximum(jnp.log1p(-x), -100))

    def binary_cross_entropy_with_logits(self, x: Any, t: Any, pos_weight: Any = None) -> Any:
        if pos_weight is None:
            return self.optax.sigmoid_binary_cross_entropy(x, t)
        softplus = self.jax.nn.softplus
        return pos_weight * t * softplus(-x) + (1 - t) * softplus(x)

    def kl_div(self, x: Any, t: Any, log_target: bool = False) -> Any:
        losses = self.optax.losses
        divergence = losses.kl_divergence_with_log_targets if log_target else losses.kl_divergence
        return divergence(x, t, axis=())  # optax sums over classes; here elements are wanted

    def l1_loss(self, x: Any, t: Any) -> Any:
        return self.jax.numpy.abs(x - t)

    def mse_loss(self, x: Any, t: Any) -> Any:
        return self.optax.squared_error(x, t)

    def cross_entropy(self, x: Any, t: Any, weight: Any = None, label_smoothing: float = 0, ignore_index: Any = None) -> Any:
        jax, optax, C = self.jax, self.optax, x.shape[1]
        if t.ndim == x.ndim or label_smoothing:
            q = t if t.ndim == x.ndim else jax.nn.one_hot(t, C, axis=1, dtype=x.dtype)
            return optax.softmax_cross_entropy(x, optax.smooth_labels(q, label_smoothing, axis=1), axis=1)

        def loss(x: Any, t: Any) -> Any:
            return optax.softmax_cross_entropy_with_integer_labels(x, t, axis=1)

        return self._of_labels(loss, x, t, weight, ignore_index)

    def nll_loss(self, x: Any, t: Any, weight: Any = None, ignore_index: Any = None) -> Any:
        def chosen(x: Any, t: Any) -> Any:
            return -self.jax.numpy.take_along_axis(x, t[:, None], 1)[:, 0]

        return self._of_labels(chosen, x, t, weight, ignore_index)

    def _of_labels(self, loss: Callable[..., Any], x: Any, t: Any, weight: Any, ignore_index: Any) -> Any:
        """Values of rows, weighted by class or left out."""
        jnp = self.jax.numpy
        if ignore_index is not None:
            counted = t != ignore_index
            return jnp.where(counted, loss(x, jnp.where(counted, t, 0)), 0), counted.astype(x.dtype)
        return loss(x, t) if weight is None else (weight[t] * loss(x, t), weight[t])


class Sklearn:
    """The losses inside scikit-learn's estimators, scaled in place where they are defined by another factor."""

    without = ""
    FACTORS = {
        "binary_cross_entropy_with_logits": ("HalfBinomialLoss", 1),
        "cross_entropy": ("HalfMultinomialLoss", 1),
        "l1_loss": ("AbsoluteError", 1),
        "mse_loss": ("HalfSquaredError", 2),
    }

    def __init__(self, threads: int) -> None:
        from sklearn._loss import loss

        self.module = loss
        self.set_threads(threads)

    def set_threads(self, threads: int) -> None:
        self.threads = threads

    def calls(self, problem: Problem) -> dict[str, Call]:
        case, unknown = problem.case, set(problem.options) - {"weight"}
        if case.loss not in self.FACTORS or unknown or case.option == PROBABILITIES or (case.classwise and len(case.shape) > 2):
            return {}
        name, factor = self.FACTORS[case.loss]
        kind = getattr(self.module, name)
        loss = kind(n_classes=case.shape[1]) if case.classwise else kind()
        x = problem.x if case.classwise else problem.x.reshape(-1)
        t = problem.t.astype(x.dtype).reshape(-1)
        weight, of_row = problem.options.get("weight"), problem.t
        if weight is not None and not case.classwise:
            weight = np.ascontiguousarray(np.broadcast_to(weight, case.shape)).reshape(-1)
        by_weight = case.classwise or case.spec.mean_of_weights

        def value_and_grad() -> tuple[Any, np.ndarray]:
            w = weight[of_row] if weight is not None and case.classwise else weight
            value, grad = loss.loss_gradient(t, x, w, n_threads=self.threads)
            scale: Any = factor
            if case.reduction == "mean":
                scale = factor / (t.size if w is None or not by_weight else w.sum())
            if scale != 1:
                grad *= scale
            if case.reduction != "none":
                return value.sum() * scale, grad.reshape(case.shape)
            return (value if scale == 1 else value * scale).reshape(case.positions), grad.reshape(case.shape)

        return {"scikit-learn": value_and_grad}


PEERS: dict[str, Any] = {"torch": Torch, "jax": Jax, "scikit-learn": Sklearn, "numpy": Numpy}


def peers(names: list[str], threads: int) -> tuple[list[Contender], list[str]]:
    """The peers that are installed, and a line for each that is left out."""
    found, left_out = [], []
    for name in names:
        try:
            found.append(PEERS[name](threads))
        except ModuleNotFoundError as error:
            left_out.append(f"{name} left out: {error.name} is not installed")
    return found, left_out + [peer.without for peer in found if peer.without]
