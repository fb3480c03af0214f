"""The registry as test material: domain-true samples and option sets for every loss, so that no test names a loss."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from nlosses import Loss

#: Shapes of the input, by family; the classwise ones reach every driver: single row, few classes, many, inner axes.
SHAPES = {
    "elementwise": [(7,), (3, 5), (2, 3, 4)],
    "classwise": [(5,), (6, 13), (70, 4), (3, 203), (2, 3, 5), (2, 40, 3)],
}


def sample(loss: Loss[Any], shape: tuple[int, ...], dtype: Any, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Input and target inside the loss's domains, away from their ends."""
    spec = loss.spec
    if spec.family == "classwise":
        x = rng.normal(size=shape, scale=2)
        if spec.log_probabilities:
            x = -np.abs(x)
        labels = shape[:1] + shape[2:] if len(shape) > 1 else ()
        return x.astype(dtype), rng.integers(0, shape[min(1, len(shape) - 1)], labels)
    x, t = inside(spec.input, shape, dtype, rng), inside(spec.target, shape, dtype, rng)
    return x, np.abs(t) + dtype(0.1) if loss.__name__ == "kl_div" else t  # elsewhere than in [0, inf) it is NaN


def inside(interval: Any, shape: tuple[int, ...], dtype: Any, rng: np.random.Generator) -> np.ndarray:
    if interval.bounded:
        width = interval.high - interval.low
        return (interval.low + width * rng.uniform(0.05, 0.95, shape)).astype(dtype)
    return rng.normal(size=shape, scale=2).astype(dtype)


def option_sets(loss: Loss[Any], shape: tuple[int, ...], rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    """Each option of the signature alone, and all of them together."""
    spec = loss.spec
    everything: dict[str, Any] = {}
    for name in spec.options:
        if name == "weight" and spec.family == "classwise":
            everything[name] = rng.uniform(0.5, 2, shape[min(1, len(shape) - 1)])
        elif name == "weight" and spec.mean_of_weights:
            everything[name] = rng.uniform(0.5, 2, shape)
        elif name in ("weight", *spec.parameters):
            everything[name] = rng.uniform(0.5, 2, shape[-1:])
        elif name == "ignore_index" and len(shape) > 1:  # of a single row nothing would be left
            everything[name] = 1
        elif name == "label_smoothing":
            everything[name] = 0.2
        elif name in spec.variants:
            everything[name] = True
    yield {}
    for name, value in everything.items():
        yield {name: value}
    if len(everything) > 1:
        yield everything


def cases(loss: Loss[Any], dtype: Any = np.float64, seed: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray, dict[str, Any]]]:
    """Input, target and options: every option set on every shape."""
    rng = np.random.default_rng(seed)
    for shape in SHAPES[loss.spec.family]:
        for options in option_sets(loss, shape, rng):
            x, t = sample(loss, shape, dtype, rng)
            yield x, t, options
        if loss.spec.class_probabilities:
            x, _ = sample(loss, shape, dtype, rng)
            for options in option_sets(loss, shape, rng):
                probabilities = rng.dirichlet(np.ones(3), shape).sum(-1) * rng.uniform(0.1, 1, shape)
                yield x, probabilities.astype(dtype), {k: v for k, v in options.items() if k != "ignore_index"}


def labelled(loss: Loss[Any], t: np.ndarray) -> bool:
    """Whether the target holds class indices."""
    return loss.spec.family == "classwise" and t.dtype.kind != "f"
