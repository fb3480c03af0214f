"""Where nlosses is better than torch: each row of the README's table of differences, and what lies around it."""

from __future__ import annotations

import numpy as np
import pytest

import nlosses as nl

INF = np.inf


def values(loss, x, t, dtype, **options):
    x, t = np.asarray(x, dtype), np.asarray(t, dtype if np.asarray(t).dtype.kind == "f" else None)
    return loss.value_and_grad(x, t, reduction="none", **options)


def test_infinite_logits(dtype):
    value, grad = values(nl.binary_cross_entropy_with_logits, [INF, INF, -INF, -INF], [0.0, 1.0, 0.0, 1.0], dtype)
    assert value.tolist() == [INF, 0, 0, INF]
    assert grad.tolist() == [1, 0, 0, -1]
    weight = np.array([2.0, 3.0, 0.5, 1.0], dtype)
    value, grad = values(
        nl.binary_cross_entropy_with_logits, [INF, INF, -INF, -INF], [0.0, 1.0, 0.0, 1.0], dtype, pos_weight=weight
    )
    assert value.tolist() == [INF, 0, 0, INF]
    assert grad.tolist() == [1, 0, 0, -1]


def test_weight_of_zero_masks_infinities(dtype):
    value, grad = values(nl.binary_cross_entropy_with_logits, [INF, 1.0], [0.0, 1.0], dtype, weight=[0, 1])
    assert value[0] == 0
    assert grad[0] == 0
    assert np.isfinite(nl.binary_cross_entropy_with_logits(np.array([INF, 1], dtype), np.array([0, 1.0]), weight=[0, 1]))
    value, _ = values(nl.mse_loss, [INF, 1.0], [0.0, 1.0], dtype, weight=[0, 1])
    assert value.tolist() == [0, 0]
    value, grad = values(nl.mse_loss, [np.nan, 1.0], [0.0, 1.0], dtype, weight=[0, 1])
    assert np.isnan(value[0])
    assert np.isnan(grad[0])


@pytest.mark.parametrize("classes", [3, 40])
def test_masked_logits(classes, dtype):
    """A class at -inf that has no share in the target contributes nothing; one that has makes the loss infinite."""
    x = np.zeros((2, classes), dtype)
    x[:, 1:3] = -INF
    p = np.zeros((2, classes), dtype)
    p[:, 0] = 1
    with np.errstate(all="raise"):
        value, grad = values(nl.cross_entropy, x, p, dtype)
    live = classes - 2
    assert value == pytest.approx(np.log(live), rel=1e-6)
    assert np.all(grad[:, 1:3] == 0)
    assert grad[:, 0] == pytest.approx(1 / live - 1, rel=1e-6)
    assert np.all(nl.cross_entropy.hessian_diag(x, p)[:, 1:3] == 0)
    assert np.all(np.isfinite(nl.cross_entropy.hvp(x, p, np.ones_like(x))))
    value, _ = values(nl.cross_entropy, x, [0, 1], dtype)
    assert value[0] == pytest.approx(np.log(live), rel=1e-6)
    assert value[1] == INF
    assert nl.cross_entropy(x, [0, 0], label_smoothing=0.1) == INF
    spatial = np.ascontiguousarray(np.moveaxis(np.stack([x, x]), 2, 1))
    value, grad = values(nl.cross_entropy, spatial, np.zeros((2, 2), int), dtype)
    assert value == pytest.approx(np.log(live), rel=1e-6)
    assert not np.any(np.isnan(grad))


@pytest.mark.parametrize("classes", [3, 40])
def test_one_infinite_logit_is_certainty(classes, dtype):
    x = np.zeros((3, classes), dtype)
    x[:, 1] = INF
    x[2, 2] = INF
    value, grad = values(nl.cross_entropy, x, [1, 0, 1], dtype)
    assert value[0] == 0
    assert not np.any(grad[0])
    assert value[1] == INF
    assert grad[1, 1] == 1
    assert grad[1, 0] == -1
    assert np.isnan(value[2])  # of two infinite logits nobody knows which is the larger
    assert np.all(np.isnan(nl.softmax(np.full((1, classes), -INF, dtype), axis=1)))


def test_kl_of_nothing_is_nothing(dtype):
    value, grad = values(nl.kl_div, [-1.0, -INF, -INF], [0.0, 0.0, 1.0], dtype)
    assert value.tolist() == [0, 0, INF]
    assert grad.tolist() == [0, 0, -1]
    slope = nl.kl_div.grad(np.array([-1.0], dtype), np.array([0.0], dtype), argnums=1, reduction="sum")
    assert slope.tolist() == [-INF]
    value, grad = values(nl.kl_div, [-1.0, -INF], [-INF, -INF], dtype, log_target=True)
    assert value.tolist() == [0, 0]
    assert grad.tolist() == [0, 0]
    assert np.isnan(nl.kl_div(np.array([-1.0], dtype), np.array([-0.5], dtype), reduction="sum"))


@pytest.mark.parametrize("classes", [4, 40])
def test_ignored_rows_are_not_looked_at(classes, dtype):
    x = np.zeros((3, classes), dtype)
    x[1] = -INF
    x[2] = np.nan
    value, grad = nl.cross_entropy.value_and_grad(x, [0, -100, -100])
    assert value == pytest.approx(np.log(classes), rel=1e-6)
    assert np.all(grad[1:] == 0)
    value, grad = nl.cross_entropy.value_and_grad(x, [-100] * 3)
    assert np.isnan(value)
    assert np.all(grad == 0)
    assert nl.cross_entropy(x, [-100] * 3, reduction="sum") == 0
    value, grad = nl.nll_loss.value_and_grad(x, [0, 7, 7], ignore_index=7)
    assert value == 0
    assert np.all(grad[1:] == 0)


@pytest.mark.parametrize("smoothing", [-0.1, np.nan, 1.1])
def test_smoothing_out_of_range_is_an_error(smoothing):
    with pytest.raises(ValueError, match="label_smoothing must lie in"):
        nl.cross_entropy(np.zeros((2, 3)), [0, 1], label_smoothing=smoothing)


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int16, np.int32, np.uint32, np.int64, np.uint64])
def test_class_indices_of_any_integer_type(kind, dtype):
    x = np.arange(12, dtype=dtype).reshape(4, 3)
    for loss in (nl.cross_entropy, nl.nll_loss):
        assert loss(x, np.array([0, 1, 2, 1], kind)) == loss(x, [0, 1, 2, 1])


def test_bool_class_indices():
    x = np.arange(8.0).reshape(4, 2)
    assert nl.cross_entropy(x, np.array([False, True, True, False])) == nl.cross_entropy(x, [0, 1, 1, 0])


@pytest.mark.parametrize("bad", [3, -1, 2**40, -(2**40)])
@pytest.mark.parametrize("shape", [(2, 3), (2, 50), (2, 3, 4)])
def test_classes_out_of_range(bad, shape):
    x = np.zeros(shape)
    y = np.zeros(shape[:1] + shape[2:], np.int64)
    wrong = bad if shape[1] == 3 or bad != 3 else 50
    y[(-1,) * y.ndim] = wrong
    out = np.full_like(x, 7.0)
    where = ", ".join(str(n - 1) for n in y.shape)
    for loss in (nl.cross_entropy, nl.nll_loss):
        for method, to in ((loss.value_and_grad, np.empty_like(x)), (loss.hessian_diag, out)):
            with pytest.raises(IndexError, match=rf"target\[{where}\] = {wrong}"):
                method(x, y, out=to)
        with pytest.raises(IndexError, match="target must hold class indices"):
            loss(x, y, reduction="none")
    assert np.all(out == 7)
    with pytest.raises(IndexError, match="18446744073709551516"):
        nl.cross_entropy(np.zeros((1, 3)), np.array([2**64 - 100], np.uint64))  # it is -100 in 64 signed bits


def test_nan_in_nan_out(loss, dtype):
    if loss.spec.checks_domains:
        return
    x, t = np.array([[0.5, np.nan, 0.25]], dtype), np.array([[0.5, 0.5, 0.25]], dtype)
    if loss.spec.family == "classwise":
        t = np.array([1])
    value, grad = loss.value_and_grad(x, t, reduction="sum")
    assert np.isnan(value)
    if not loss.spec.log_probabilities and loss.__name__ != "kl_div":  # the gradients of these two do not depend on x
        assert np.any(np.isnan(grad))


def test_extreme_logits(dtype):
    big = np.array([1e20, -1e20, 1e20, -1e20], dtype)
    t = np.array([1, 0, 0, 1], dtype)
    value, grad = nl.binary_cross_entropy_with_logits.value_and_grad(big, t, reduction="none")
    assert value.tolist() == [0, 0, big[0], big[0]]
    assert grad.tolist() == [0, 0, 1, -1]
    for classes in (3, 40):
        x = np.zeros((1, classes), dtype)
        x[0, 0] = 1e20
        assert nl.cross_entropy(x, [0]) == 0
        assert nl.cross_entropy(x, [1]) == dtype(1e20)
        x[0, :] = -1e20
        assert nl.cross_entropy(x, [1]) == pytest.approx(np.log(classes), rel=1e-6)
        x[0, :] = np.finfo(dtype).max
        assert nl.cross_entropy(x, [1]) == pytest.approx(np.log(classes), rel=1e-6)


def test_overflow_is_infinite(dtype):
    huge = np.finfo(dtype).max
    assert nl.mse_loss(np.array([huge], dtype), np.array([0], dtype)) == INF
    assert nl.mse_loss(np.array([huge, 1.0], dtype), np.array([0, 0], dtype), reduction="sum") == INF
    assert nl.l1_loss.grad(np.array([huge], dtype), np.array([0], dtype)) == 1


def test_divergence_of_near_equals_is_not_negative():
    """Where torch's float32 gives -3.9e-8."""
    rng = np.random.default_rng(0)
    a = rng.normal(size=1000)
    b = a + 1e-4 * rng.normal(size=1000)
    exact = nl.kl_div(nl.log_softmax(b), nl.log_softmax(a), reduction="sum", log_target=True)
    assert 1e-10 < exact < 1e-7


def test_mean_over_zero_weights(dtype):
    x = np.ones((2, 3), dtype)
    assert np.isnan(nl.mse_loss(x, x, weight=np.zeros((2, 3))))
    assert np.isnan(nl.cross_entropy(x, [0, 1], weight=np.zeros(3)))


def test_broadcasting_warns_and_sums_back():
    x, t = np.ones((3, 1)), np.zeros(4)
    for loss in (nl.mse_loss, nl.l1_loss):
        with pytest.warns(UserWarning, match=r"target has shape \(4,\) and input \(3, 1\)"):
            value, grads = loss.value_and_grad(x, t, argnums=(0, 1))
        assert value == 1
        assert grads[0].shape == (3, 1)
        assert grads[1].shape == (4,)
        assert grads[0].sum() == pytest.approx(-grads[1].sum())
    log_q = np.log(np.full((4, 3), 1 / 3))
    value, grads = nl.kl_div.value_and_grad(log_q, np.array([0.2, 0.3, 0.5]), reduction="batchmean", argnums=(0, 1))
    assert grads[0].shape == (4, 3)
    assert grads[1].shape == (3,)


@pytest.mark.parametrize("shape", [(6, 3), (70, 21), (3, 200), (2, 5, 300)])
def test_nan_of_any_bits_is_nan(dtype, shape, rng):
    """Exponentials are made with integers, of which those of a NaN have many; its neighbours do not suffer."""
    x = rng.normal(size=shape).astype(dtype)
    y = rng.integers(0, shape[1], shape[:1] + shape[2:])
    value, grad = nl.cross_entropy.value_and_grad(x, y, reduction="none")
    bits = x.view(np.uint32 if dtype is np.float32 else np.uint64)
    quiet = np.array(np.nan, dtype).view(bits.dtype)
    for payload in (0, 1, 0x1FF, 0x3FFFFF):
        bits[1, 2] = quiet | bits.dtype.type(payload)
        assert np.isnan(x[1, 2]).all()
        got, gradient = nl.cross_entropy.value_and_grad(x, y, reduction="none")
        assert np.isnan(got[1]).all()
        assert np.isnan(gradient[1]).all()
        others = np.arange(shape[0]) != 1
        np.testing.assert_allclose(got[others], value[others], rtol=8 * np.finfo(dtype).eps)
        np.testing.assert_allclose(gradient[others], grad[others], rtol=8 * np.finfo(dtype).eps)
