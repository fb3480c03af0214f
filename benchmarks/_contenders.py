"""What `benchmarks.speed` measures: the cases, nlosses, its peers and the loops that only move the bytes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import numba
import numpy as np
from scipy.special import expit, log_expit, logsumexp

import nlosses as nl

Call = Callable[[], Any]
BLOCK = 8192
SERIAL_BELOW = 20_000  # elements; a launch of threads costs more than the bytes


@dataclass(frozen=True)
class Case:
    """One problem: mean loss and gradient with respect to float32 logits."""

    name: str
    classwise: bool
    shape: tuple[int, ...]

    def data(self) -> tuple[np.ndarray, np.ndarray]:
        """Logits and targets."""
        rng = np.random.default_rng(0)
        x = (2 * rng.standard_normal(self.shape, dtype=np.float32)).astype(np.float32)
        if not self.classwise:
            return x, rng.integers(0, 2, self.shape).astype(np.float32)
        return x, rng.integers(0, self.shape[1], (self.shape[0], *self.shape[2:]))

    @property
    def loss(self) -> nl.Loss[Any]:
        return nl.cross_entropy if self.classwise else nl.binary_cross_entropy_with_logits

    @property
    def gradient_bytes(self) -> int:
        return 4 * prod(self.shape)


BCE = [Case(f"bce {n:,}", False, (n,)) for n in (10, 1_000, 100_000, 1_000_000, 10_000_000)]
SHAPES = [(32, 10), (100_000, 3), (100_000, 10), (8_192, 1_000), (256, 50_257), (4, 21, 256, 256)]
CASES = BCE + [Case(f"ce {'x'.join(map(str, shape))}", True, shape) for shape in SHAPES]


def reference(case: Case, x: np.ndarray, t: np.ndarray) -> tuple[float, np.ndarray]:
    """Value and gradient in double precision by SciPy."""
    x = x.astype(np.float64)
    if not case.classwise:
        return float(-(t * log_expit(x) + (1 - t) * log_expit(-x)).mean()), (expit(x) - t) / x.size
    log_p = x - logsumexp(x, axis=1, keepdims=True)
    chosen = np.take_along_axis(log_p, np.expand_dims(t, 1), 1)
    grad = np.exp(log_p, out=x)
    np.put_along_axis(grad, np.expand_dims(t, 1), np.exp(chosen) - 1, 1)
    grad /= t.size
    return float(-chosen.mean()), grad


# --- the limit -------------------------------------------------------------------------------------------------------


def _two_reads_one_write(x: np.ndarray, t: np.ndarray, out: np.ndarray) -> None:
    for b in numba.prange((x.size + BLOCK - 1) // BLOCK):
        xs = x[b * BLOCK : (b + 1) * BLOCK]
        ts = t[b * BLOCK : (b + 1) * BLOCK]
        gs = out[b * BLOCK : (b + 1) * BLOCK]
        for i in range(xs.size):
            gs[i] = xs[i] + ts[i]


def _one_read_one_write(x: np.ndarray, out: np.ndarray) -> None:
    for b in numba.prange((x.size + BLOCK - 1) // BLOCK):
        xs = x[b * BLOCK : (b + 1) * BLOCK]
        gs = out[b * BLOCK : (b + 1) * BLOCK]
        for i in range(xs.size):
            gs[i] = xs[i]


def limit(case: Case, x: np.ndarray, t: np.ndarray) -> dict[str, Call]:
    """Loops that read and write what the gradient must, and compute nothing, with as many threads."""
    loop = _one_read_one_write if case.classwise else _two_reads_one_write
    move: Any = numba.njit(loop, parallel=x.size >= SERIAL_BELOW)
    arguments = (x.reshape(-1),) if case.classwise else (x, t)
    buffer = np.empty(x.size, np.float32)
    move(*arguments, buffer)
    return {
        "limit": lambda: move(*arguments, np.empty(x.size, np.float32)),
        "limit, reused": lambda: move(*arguments, buffer),
    }


# --- contenders: each gives calls that return (value, gradient) ------------------------------------------------------


def own(case: Case, x: np.ndarray, t: np.ndarray) -> dict[str, Call]:
    """nlosses with a fresh gradient, and into an array of the caller's."""
    value_and_grad, buffer = case.loss.value_and_grad, np.empty_like(x)
    return {"nlosses": lambda: value_and_grad(x, t), "nlosses, out=": lambda: value_and_grad(x, t, out=buffer)}


class Torch:
    """Torch's eager mode, and its compiler where a C++ compiler works."""

    def __init__(self, threads: int) -> None:
        os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")  # no pool of idle compilers beside the measurement
        import torch

        self.torch = torch
        torch.set_num_threads(threads)
        self.versions = [("torch", torch.__version__)]
        self.without = ""
        try:
            torch.compile(lambda x: x + 1)(torch.zeros(8))
        except Exception as error:  # whatever the compiler's tool chain raises
            self.without = f"torch.compile left out: {str(error).strip().splitlines()[0][:90]}"

    def calls(self, case: Case, x: np.ndarray, t: np.ndarray) -> dict[str, Call]:
        torch = self.torch
        functional = torch.nn.functional
        loss = functional.cross_entropy if case.classwise else functional.binary_cross_entropy_with_logits
        leaf, target = torch.from_numpy(x.copy()).requires_grad_(), torch.from_numpy(t)

        def eager() -> tuple[Any, Any]:
            leaf.grad = None
            value = loss(leaf, target)
            value.backward()
            return value, leaf.grad

        calls: dict[str, Call] = {"torch eager": eager}
        if not self.without:
            torch._dynamo.reset()  # each case is compiled for its own shape
            compiled, plain = torch.compile(torch.func.grad_and_value(loss), dynamic=False), leaf.detach()
            calls["torch.compile"] = lambda: compiled(plain, target)[::-1]
        return calls


class Jax:
    """JAX's compiled value and gradient of optax's losses."""

    def __init__(self, threads: int) -> None:
        os.environ["NPROC"] = str(threads)  # the size of XLA's thread pool
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # XLA reports slow constant folding as an error
        import jax
        import optax

        self.jax, self.optax = jax, optax
        self.versions = [("jax", jax.__version__), ("optax", optax.__version__)]
        self.without = ""

    def calls(self, case: Case, x: np.ndarray, t: np.ndarray) -> dict[str, Call]:
        jax, optax = self.jax, self.optax
        if case.classwise:
            t = t.astype(np.int32)  # JAX's own integers

            def loss(x: Any, t: Any) -> Any:
                return optax.softmax_cross_entropy_with_integer_labels(x, t, axis=1).mean()
        else:

            def loss(x: Any, t: Any) -> Any:
                return optax.sigmoid_binary_cross_entropy(x, t).mean()

        compiled = jax.jit(jax.value_and_grad(loss))
        inputs = jax.block_until_ready((jax.device_put(x), jax.device_put(t)))
        return {"jax": lambda: jax.block_until_ready(compiled(*inputs))}


def peers(threads: int) -> tuple[list[Any], list[str]]:
    """The peers that are installed, and a line for each that is left out."""
    found, left_out = [], []
    for name, kind in (("torch", Torch), ("jax with optax", Jax)):
        try:
            found.append(kind(threads))
        except ModuleNotFoundError as error:
            left_out.append(f"{name} left out: {error.name} is not installed")
    return found, left_out + [peer.without for peer in found if peer.without]


def verify(case: Case, name: str, result: Any, expected: tuple[float, np.ndarray]) -> None:
    """Stop the program if a contender's value or gradient is wrong: a wrong result is fast for nothing."""
    value, grad = result
    if hasattr(value, "detach"):
        value = value.detach()
    error = abs(float(value) / expected[0] - 1)
    grad_error = np.abs(np.asarray(grad) - expected[1]).max() / np.abs(expected[1]).max()
    if np.shape(grad) != case.shape or not (error < 1e-5 and grad_error < 1e-5):
        sys.exit(f"{name} is wrong on {case.name}: relative error {error:.1e} of the value, {grad_error:.1e} of the gradient")
