"""Value and gradient as one writes them with NumPy: stable formulas, temporaries reused where that is easy to see."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from ._cases import Problem

Pair = tuple[np.ndarray, np.ndarray]  # values of elements or rows, and their slopes


def binary_cross_entropy(x: Any, t: Any) -> Pair:
    y = 1 - x
    return -(t * np.maximum(np.log(x), -100) + (1 - t) * np.maximum(np.log1p(-x), -100)), (x - t) / np.maximum(x * y, 1e-12)


def binary_cross_entropy_with_logits(x: Any, t: Any, pos_weight: Any = None) -> Pair:
    e = np.exp(-np.abs(x))
    rest = np.log1p(e)
    p = np.where(x > 0, 1, e) / (1 + e)
    if pos_weight is None:
        return rest + np.maximum(x, 0) - t * x, p - t
    a, b = pos_weight * t, 1 - t
    return a * (rest - np.minimum(x, 0)) + b * (rest + np.maximum(x, 0)), (a + b) * p - a


def kl_div(x: Any, t: Any, log_target: bool = False) -> Pair:
    if log_target:
        p = np.exp(t)
        return p * (t - x), -p
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(t == 0, 0, t * (np.log(t) - x)), -t


def l1_loss(x: Any, t: Any) -> Pair:
    r = x - t
    return np.abs(r), np.sign(r)


def mse_loss(x: Any, t: Any) -> Pair:
    r = x - t
    return r * r, r + r


def cross_entropy(x: Any, t: Any, weight: Any, label_smoothing: float = 0.0) -> Pair:
    z = x - x.max(axis=1, keepdims=True)
    p = np.exp(z)
    total = p.sum(axis=1, keepdims=True)
    p /= total
    z -= np.log(total, out=total)  # log p
    if t.ndim < x.ndim and not label_smoothing:
        rows = np.expand_dims(t, 1)
        values, slopes = -np.take_along_axis(z, rows, 1)[:, 0], p
        np.put_along_axis(slopes, rows, np.take_along_axis(slopes, rows, 1) - 1, 1)
        if weight is not None:
            values *= weight[t]
            slopes *= np.expand_dims(weight[t], 1)
        return values, slopes
    q = t
    if t.ndim < x.ndim:
        q = np.full_like(x, label_smoothing / x.shape[1])
        np.put_along_axis(q, np.expand_dims(t, 1), 1 - label_smoothing + label_smoothing / x.shape[1], 1)
    if weight is not None:
        q = q * weight.reshape(-1, *[1] * (x.ndim - 2))
    z *= q
    p *= q.sum(axis=1, keepdims=True)
    p -= q
    return -z.sum(axis=1), p


def nll_loss(x: Any, t: Any, weight: Any) -> Pair:
    rows, slopes = np.expand_dims(t, 1), np.zeros_like(x)
    w = np.ones((), x.dtype) if weight is None else weight[t]
    np.put_along_axis(slopes, rows, np.expand_dims(-w, 1) if weight is not None else -w, 1)
    return -w * np.take_along_axis(x, rows, 1)[:, 0], slopes


FORMULAS: dict[str, Callable[..., Pair]] = {
    f.__name__: f
    for f in (
        binary_cross_entropy, binary_cross_entropy_with_logits, kl_div, l1_loss, mse_loss, cross_entropy, nll_loss,
    )
}  # fmt: skip


def call(problem: Problem) -> Callable[[], Any] | None:
    """Value and gradient of a problem, unless NumPy's formula is not here."""
    formula = FORMULAS.get(problem.case.loss)
    if formula is None:
        return None
    return (lambda: _classwise(formula, problem)) if problem.case.classwise else (lambda: _elementwise(formula, problem))


def _elementwise(formula: Callable[..., Pair], problem: Problem) -> tuple[Any, np.ndarray]:
    options = dict(problem.options)
    weight = options.pop("weight", None)
    values, slopes = formula(problem.x, problem.t, **options)
    if weight is not None:
        values *= weight
        slopes *= weight
    by_weight = weight is not None and problem.case.spec.mean_of_weights
    return _reduced(problem, values, slopes, weight.sum() if by_weight else values.size)


def _classwise(formula: Callable[..., Pair], problem: Problem) -> tuple[Any, np.ndarray]:
    case, t, options = problem.case, problem.t, dict(problem.options)
    weight, ignored = options.pop("weight", None), options.pop("ignore_index", None)
    if ignored is not None:
        counted = t != ignored
        t = np.where(counted, t, 0)
    values, slopes = formula(problem.x, t, weight, **options)
    divisor = prod(case.positions) if weight is None or not case.labelled else weight[t].sum()
    if ignored is not None:
        values *= counted
        slopes *= np.expand_dims(counted, 1)
        divisor = counted.sum()
    return _reduced(problem, values, slopes, divisor)


def _reduced(problem: Problem, values: np.ndarray, slopes: np.ndarray, divisor: Any) -> tuple[Any, np.ndarray]:
    reduction = problem.case.reduction
    if reduction == "none":
        return values, slopes
    divisor = {"sum": 1, "batchmean": problem.case.shape[0]}.get(reduction, divisor)
    if reduction != "sum":
        slopes /= slopes.dtype.type(divisor)
    return values.sum() / divisor, slopes
