"""Class indices that are ignored or out of range, wherever they stand: kernels make sure of them while they compute."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import nlosses as nl

LOSSES = [nl.cross_entropy, nl.nll_loss]
#: Of vectors of classes, of short rows, of rows alone; and few positions, some blocks, several threads.
CLASSES, POSITIONS = [2, 3, 8, 10, 40], [1, 600, 5000, 30_000]


@pytest.fixture(params=LOSSES, ids=lambda loss: loss.__name__)
def indexed(request):
    return request.param


def arguments(classes, n, dtype, rng):
    return -abs(rng.standard_normal((n, classes), dtype)), rng.integers(0, classes, n)


def places(n):
    return sorted({0, n // 2, n - 1})


@pytest.mark.parametrize("n", POSITIONS)
@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_one_index_out_of_range_is_found(indexed, reduction, classes, n, dtype, rng):
    x, y = arguments(classes, n, dtype, rng)
    for i in places(n):
        for wrong in (classes, -1, np.iinfo(np.int64).min, np.iinfo(np.int64).max):
            right, y[i] = y[i], wrong
            for method in (indexed, indexed.value_and_grad, indexed.grad, indexed.hessian_diag):
                with pytest.raises(IndexError, match=rf"target\[{i}\] = {wrong}$"):
                    method(x, y, reduction=reduction)
            with pytest.raises(IndexError, match=rf"target\[{i}\] = {wrong}$"):
                indexed.value_and_grad(x, y, reduction=reduction, out=np.empty_like(x))
            y[i] = right


@pytest.mark.parametrize("n", POSITIONS)
@pytest.mark.parametrize("classes", CLASSES)
def test_one_ignored_position_does_not_count(indexed, classes, n, dtype, rng):
    """A mean, and its gradient by all ways of writing it, are those of the sum of the others over their number."""
    x, y = arguments(classes, n, dtype, rng)
    for i in places(n):
        for ignored in (-100, 5 * classes, 1):
            labels = np.where(y == ignored, 0, y)
            labels[i] = ignored
            options = {"ignore_index": ignored}
            rest = np.delete(np.arange(n), i)
            if not len(rest):
                value, grad = indexed.value_and_grad(x, labels, **options)
                assert np.isnan(value)
                assert np.isnan(indexed(x, labels, **options))
                continue
            total, slope = indexed.value_and_grad(x[rest], labels[rest], reduction="sum")
            for out in (None, np.empty_like(x)):
                value, grad = indexed.value_and_grad(x, labels, out=out, **options)
                assert_allclose(value, total / len(rest), rtol=4 * np.finfo(dtype).eps)
                assert_allclose(grad[rest], slope / dtype(len(rest)), rtol=8 * np.finfo(dtype).eps, atol=0)
                assert_array_equal(grad[i], 0)
            assert indexed(x, labels, **options) == value
            assert_array_equal(indexed.grad(x, labels, **options), grad)
            own = x.copy()
            assert indexed.value_and_grad(own, labels, out=own, **options)[0] == value
            assert_array_equal(own, grad)


@pytest.mark.parametrize("n", POSITIONS)
def test_nan_is_no_fault_of_the_labels(indexed, n, dtype, rng):
    x, y = arguments(3, n, dtype, rng)
    x[n - 1] = np.nan
    value, grad = indexed.value_and_grad(x, y)
    assert np.isnan(value)
    assert np.isnan(grad[n - 1]).any() or indexed is nl.nll_loss
    assert np.isfinite(grad[: n - 1]).all()
    y[n - 1] = 3
    with pytest.raises(IndexError, match=rf"target\[{n - 1}\] = 3"):
        indexed.value_and_grad(x, y)


def overlapping(loss, store, y, shape, reduction):
    """Arguments of which `out` is one, or a part."""
    n, classes = shape
    x, other, shifted = (store[k : k + n * classes].reshape(shape) for k in (0, n * classes, 1))
    yield x, y, {"out": x}
    yield x, y, {"out": x[:]}
    yield x, y, {"out": shifted}
    yield list(x), y, {"out": x}
    yield memoryview(x), y, {"out": x}
    yield x.reshape(classes, n).T, y, {"out": x.reshape(classes, n).T}
    yield x, y.astype(np.int32), {"out": x}
    yield x, y, {"out": other, "weight": other.reshape(-1)[:classes]}
    if "label_smoothing" in loss.spec.options:
        other[0, 0] = 0.25
        yield x, y, {"out": other, "label_smoothing": other[0, :1].reshape(())}
    small = other.reshape(-1).view(np.int8)[:n]
    small[:] = y
    yield x, small, {"out": other}
    yield x, memoryview(small), {"out": other}
    wide = other.reshape(-1)[: n * classes // 2 * 2].view(np.int64)[:n]
    wide[:] = y
    yield x, wide, {"out": other}
    if reduction == "none":
        yield x, y, {"out": other, "grad_output": other[:, 0]}
        yield x, y, {"out": other, "grad_output": memoryview(other.reshape(-1)[:n])}


@pytest.mark.parametrize("n", [2, 600, 30_000])
@pytest.mark.parametrize("classes", [3, 10])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_an_index_out_of_range_leaves_the_arguments_as_they_were(indexed, reduction, classes, n, dtype, rng):
    store = rng.standard_normal(2 * n * classes + 1, dtype)
    y = rng.integers(0, classes, n)
    y[-1] = classes
    for method in indexed.value_and_grad, indexed.grad:
        for input, target, options in overlapping(indexed, store, y, (n, classes), reduction):
            before, own, labels = store.copy(), np.array(input), np.array(target)
            with pytest.raises(IndexError, match="target must hold class indices"):
                method(input, target, reduction=reduction, **options)
            assert_array_equal(store, before)
            assert_array_equal(np.array(input), own)
            assert_array_equal(np.array(target), labels)
