"""Losses with known gradients, to test the checker on: written in plain NumPy, in the precision of their arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Array = np.ndarray
Draw = Callable[[np.random.Generator, tuple[int, ...]], Array]


@dataclass(frozen=True)
class Specimen:
    """A loss of `x` and `t`, arrays of one shape, and its gradient with respect to `x`.

    Attributes
    ----------
    name : str
    terms, slopes : callable
        ``terms(x, t)``: the unreduced loss; ``slopes(x, t)``: the gradient of its sum.
    draw_x, draw_t : callable
        ``draw(rng, shape)``: arguments at which the loss is defined.
    kinks : callable
        ``kinks(x, t)``: an `x` as near as possible to `x` with kinks, None for a smooth loss.
    rowwise : bool
        Terms are those of rows, not of entries.
    domain : (low, high)
        Where `x` must stay.
    product : callable
        ``product(v, x, t)``: the Hessian of the sum times `v`.
    slips : mapping of str to callable
        Wrong slopes that people write for this loss.
    """

    name: str
    terms: Callable[[Array, Array], Array]
    slopes: Callable[[Array, Array], Array]
    draw_x: Draw
    draw_t: Draw
    kinks: Callable[[Array, Array], Array] | None = None
    rowwise: bool = False
    domain: tuple[float, float] | None = None
    product: Callable[[Array, Array, Array], Array] | None = None
    slips: Mapping[str, Callable[[Array, Array], Array]] = field(default_factory=dict)

    def mean(self, x: Array, t: Array) -> Any:
        return self.terms(x, t).mean()

    def mean_gradient(self, x: Array, t: Array) -> Array:
        return self.slopes(x, t) / self.terms(x, t).size

    def vjp(self, upstream: Array, x: Array, t: Array) -> Array:
        return (upstream[..., None] if self.rowwise else upstream) * self.slopes(x, t)

    def fused(self, x: Array, t: Array) -> tuple[Any, Array]:
        return self.mean(x, t), self.mean_gradient(x, t)

    def hessian_diag(self, x: Array, t: Array) -> Array:
        assert self.product is not None
        if not self.rowwise:
            return self.product(np.ones_like(x), x, t)
        units = np.eye(x.shape[-1])
        return sum(unit * self.product(unit + 0 * x, x, t) for unit in units)


def _normal(scale: float = 2.0) -> Draw:
    return lambda rng, shape: rng.normal(size=shape, scale=scale)


def _uniform(low: float, high: float) -> Draw:
    return lambda rng, shape: rng.uniform(low, high, shape)


def _bits(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return (rng.random(shape) < 0.5).astype(float)


def _one_hot(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return np.eye(shape[-1])[rng.integers(0, shape[-1], shape[:-1])]


def _signs(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return rng.choice([-1.0, 1.0], shape)


def _sigmoid(x: Array) -> Array:
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + e), e / (1 + e))


def _softmax(x: Array) -> Array:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def _logsumexp(x: Array) -> Array:
    top = x.max(axis=-1)
    return top + np.log(np.exp(x - top[..., None]).sum(axis=-1))


def _focal(x: Array, t: Array) -> Array:
    z = (2 * t - 1) * x
    return _sigmoid(-z) ** 2 * (np.maximum(-z, 0) + np.log1p(np.exp(-np.abs(z))))


def _focal_slope(x: Array, t: Array) -> Array:
    s = 2 * t - 1
    z = s * x
    q = _sigmoid(-z)
    loss = np.maximum(-z, 0) + np.log1p(np.exp(-np.abs(z)))
    return -s * q**2 * (2 * _sigmoid(z) * loss + q)


def _softmax_product(v: Array, x: Array, t: Array) -> Array:
    p = _softmax(x)
    return p * (v - (p * v).sum(axis=-1, keepdims=True))


def _logistic_curvature(v: Array, x: Array, t: Array) -> Array:
    return v * _sigmoid(x) * _sigmoid(-x)


def _weights(x: Array) -> Array:
    """Weights of the last axis."""
    return np.linspace(0.5, 2, x.shape[-1]).astype(x.dtype)


def _smoothed(t: Array, spread: int) -> Array:
    """One-hot targets of which a fifth is shared by `spread` classes: all of them, or all but the target."""
    return t - t / 5 + (1 if spread == t.shape[-1] else 1 - t) / (5 * spread)


def _cross_entropy(x: Array, t: Array) -> Array:
    return _logsumexp(x) - (t * x).sum(axis=-1)


def _seen(t: Array) -> Array:
    """Rows whose target is not the first class, which stands for a label to ignore."""
    return 1 - t[..., :1]


def _largest(x: Array, t: Array) -> Array:
    at = x == x.max(axis=-1, keepdims=True)
    return at / at.sum(axis=-1, keepdims=True).astype(x.dtype)


SMOOTH = (
    Specimen(
        "logistic",
        lambda x, t: np.maximum(x, 0) - x * t + np.log1p(np.exp(-np.abs(x))),
        lambda x, t: np.where(t == 1, -_sigmoid(-x), _sigmoid(x)),
        _normal(3), _bits, product=_logistic_curvature,
        slips={"target of the other class": lambda x, t: _sigmoid(x) - (1 - t), "target missing": lambda x, t: _sigmoid(x)},
    ),
    Specimen(
        "focal", _focal, _focal_slope, _normal(), _bits,
        slips={"product rule forgotten": lambda x, t: (1 - 2 * t) * _sigmoid((1 - 2 * t) * x) ** 3},
    ),
    Specimen(
        "softmax", _cross_entropy, lambda x, t: _softmax(x) - t, _normal(), _one_hot, rowwise=True, product=_softmax_product,
        slips={
            "label off by one": lambda x, t: _softmax(x) - np.roll(t, 1, axis=-1),
            "softmax of the wrong axis": lambda x, t: _softmax(x.T).T - t,
        },
    ),
    Specimen(
        "smoothed softmax",
        lambda x, t: _cross_entropy(x, _smoothed(t, t.shape[-1])),
        lambda x, t: _softmax(x) - _smoothed(t, t.shape[-1]),
        _normal(), _one_hot, rowwise=True, product=_softmax_product,
        slips={
            "smoothing over C - 1": lambda x, t: _softmax(x) - _smoothed(t, t.shape[-1] - 1),
            "smoothing missing": lambda x, t: _softmax(x) - t,
        },
    ),
    Specimen(
        "weighted softmax",
        lambda x, t: (t * _weights(x)).sum(axis=-1) * _cross_entropy(x, t),
        lambda x, t: (t * _weights(x)).sum(axis=-1, keepdims=True) * (_softmax(x) - t),
        _normal(), _one_hot, rowwise=True,
        slips={
            "weight missing": lambda x, t: _softmax(x) - t,
            "weight rolled": lambda x, t: (t * np.roll(_weights(x), 1)).sum(axis=-1, keepdims=True) * (_softmax(x) - t),
            "weight of every class": lambda x, t: _weights(x) * (_softmax(x) - t),
        },
    ),
    Specimen(
        "softmax with ignored rows",
        lambda x, t: _seen(t)[..., 0] * _cross_entropy(x, t),
        lambda x, t: _seen(t) * (_softmax(x) - t),
        _normal(), _one_hot, rowwise=True,
        slips={"ignored rows not masked": lambda x, t: _softmax(x) - t},
    ),
    Specimen(
        "sharp softmax",
        lambda x, t: _logsumexp(x * 100) / 100 - (t * x).sum(axis=-1),
        lambda x, t: _softmax(x * 100) - t,
        _normal(0.02), _one_hot, rowwise=True,
    ),
    Specimen(
        "squared", lambda x, t: (x - t) ** 2, lambda x, t: 2 * (x - t), _normal(), _normal(),
        product=lambda v, x, t: 2 * v, slips={"of the target": lambda x, t: 2 * (t - x)},
    ),
    Specimen(
        "weighted squares",
        lambda x, t: _weights(x) * (x - t) ** 2,
        lambda x, t: 2 * _weights(x) * (x - t),
        _normal(), _normal(), product=lambda v, x, t: 2 * _weights(x) * v,
        slips={
            "weight missing": lambda x, t: 2 * (x - t),
            "weight rolled": lambda x, t: 2 * np.roll(_weights(x), 1) * (x - t),
            "weight squared": lambda x, t: 2 * _weights(x) ** 2 * (x - t),
        },
    ),
    Specimen(
        "log cosh", lambda x, t: np.logaddexp(x - t, t - x), lambda x, t: np.tanh(x - t), _normal(), _normal(),
        product=lambda v, x, t: v / np.cosh(x - t) ** 2,
    ),
    Specimen(
        "Student", lambda x, t: np.log1p((x - t) ** 2), lambda x, t: 2 * (x - t) / (1 + (x - t) ** 2), _normal(), _normal(),
    ),
    Specimen(
        "Poisson", lambda x, t: np.exp(x) - t * x, lambda x, t: np.exp(x) - t, _normal(), _uniform(0, 5),
        product=lambda v, x, t: v * np.exp(x), slips={"of the rate": lambda x, t: 1 - t * np.exp(-x)},
    ),
    Specimen("steep", lambda x, t: np.exp(20 * x) * t, lambda x, t: 20 * np.exp(20 * x) * t, _normal(1), _uniform(1, 5)),
    Specimen("gamma", lambda x, t: np.log(x) + t / x, lambda x, t: 1 / x - t / x**2, _uniform(0.1, 5), _uniform(0.1, 5)),
    Specimen("barrier", lambda x, t: -t * np.log(x), lambda x, t: -t / x, _uniform(0.1, 5), _uniform(0.1, 5)),
    Specimen(
        "relative entropy",
        lambda x, t: t * (np.log(t) - x),
        lambda x, t: -t + 0 * x,
        _normal(), _uniform(0.1, 1),
    ),
    Specimen(
        "cross entropy of probabilities",
        lambda x, t: -t * np.log(x) - (1 - t) * np.log1p(-x),
        lambda x, t: (x - t) / (x * (1 - x)),
        _uniform(0.05, 0.95), _uniform(0.1, 0.9), domain=(0.0, 1.0),
    ),
    Specimen("root", lambda x, t: np.sqrt(x * x + t * t), lambda x, t: x / np.sqrt(x * x + t * t), _normal(), _uniform(0.1, 1)),
    Specimen("wave", lambda x, t: np.sin(3 * x) * t, lambda x, t: 3 * np.cos(3 * x) * t, _normal(), _normal()),
    Specimen(
        "norm",
        lambda x, t: np.sqrt(((x - t) ** 2).sum(axis=-1)),
        lambda x, t: (x - t) / np.sqrt(((x - t) ** 2).sum(axis=-1, keepdims=True)),
        _normal(), _normal(), rowwise=True,
    ),
)  # fmt: skip

KINKED = (
    Specimen(
        "absolute",
        lambda x, t: np.abs(x - t),
        lambda x, t: np.sign(x - t),
        _normal(), _normal(), kinks=lambda x, t: t.copy(),
    ),
    Specimen(
        "pinball",
        lambda x, t: np.maximum(0.3 * (t - x), -0.7 * (t - x)),
        lambda x, t: np.where(t > x, -0.3, np.where(t < x, 0.7, 0.0)).astype(x.dtype),
        _normal(), _normal(), kinks=lambda x, t: t.copy(),
        slips={"wrong quantile": lambda x, t: np.where(t > x, -0.7, np.where(t < x, 0.3, 0.0)).astype(x.dtype)},
    ),
    Specimen(
        "hinge",
        lambda x, t: np.maximum(0, 1 - t * x),
        lambda x, t: np.where(t * x < 1, -t, 0 * t),
        _normal(), _signs, kinks=lambda x, t: 1 / t,
        slips={"margin of 0": lambda x, t: np.where(t * x < 0, -t, 0 * t)},
    ),
    Specimen(
        "squared hinge",
        lambda x, t: np.maximum(0, 1 - t * x) ** 2,
        lambda x, t: -2 * t * np.maximum(0, 1 - t * x),
        _normal(), _signs, kinks=lambda x, t: 1 / t,
    ),
    Specimen(
        "Huber",
        lambda x, t: np.where(np.abs(x - t) < 1, 0.5 * (x - t) ** 2, np.abs(x - t) - 0.5),
        lambda x, t: np.clip(x - t, -1, 1),
        _normal(), _normal(), kinks=lambda x, t: t + 1,
        slips={"wrong delta": lambda x, t: np.clip(x - t, -1.1, 1.1), "clamp missing": lambda x, t: x - t},
    ),
    Specimen(
        "relu", lambda x, t: t * np.maximum(x, 0), lambda x, t: t * (x > 0), _normal(), _normal(), kinks=lambda x, t: 0 * x
    ),
    Specimen(
        "clipped",
        lambda x, t: np.clip(x, -1, 1) * t,
        lambda x, t: np.where(np.abs(x) < 1, t, 0 * t),
        _normal(), _normal(), kinks=lambda x, t: np.where(x > 0, 1.0, -1.0),
    ),
    Specimen(
        "maximum",
        lambda x, t: x.max(axis=-1),
        _largest,
        _normal(), _normal(), kinks=lambda x, t: np.maximum(x, np.median(x)), rowwise=True,
    ),
)  # fmt: skip

ZOO = SMOOTH + KINKED
