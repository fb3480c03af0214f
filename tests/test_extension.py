"""Losses of a user's own: the public decorators give them everything that the library's have."""

from __future__ import annotations

import math
import pickle
from functools import cache

import numpy as np
import pytest

import nlosses as nl
from nlosses._cpu import sums
from nlosses._cpu._vector import has_tables

HALF = 0.5
UNIT = nl.Interval(0, 1)


def halved(r):
    return type(r)(HALF) * r


def huber_point(x, t, delta):
    r = x - t
    if abs(r) <= delta:
        return halved(r) * r, r
    s = math.copysign(delta, r)
    return s * r - halved(delta) * delta, s


def huber_curvature(x, t, delta):
    T = type(x)
    return T(1) if abs(x - t) <= delta else T(0)


@nl.elementwise(huber_point, curvature=huber_curvature, shapes="warn")
def huber(input, target, weight=None, reduction="mean", delta=1.0):
    """Quadratic near the target, linear beyond `delta`."""


def focal_point(u):
    """(1 - p)**2 (-log p), where u = -log p."""
    T = type(u)
    miss = -nl.scalar.expm1(-u)
    return miss * miss * u, miss * (miss + T(2) * (T(1) - miss) * u)


def focal_curvature(u):
    T = type(u)
    miss = -nl.scalar.expm1(-u)
    hit = T(1) - miss
    return T(4) * miss * hit + T(2) * u * hit * (hit - miss)


@nl.classwise(focal_point, curvature=focal_curvature)
def focal(input, target, weight=None, ignore_index=-100, reduction="mean"):
    """Cross entropy that cares less for what is nearly right."""


def logistic_parts(x, t):
    T = type(x)
    margin = t * x
    e = nl.scalar.exp_nonpositive(-abs(margin))
    p = nl.scalar.where(margin > T(0), e, T(1)) / (T(1) + e)
    return nl.scalar.where(margin > T(0), T(0), -margin), e, -t * p


def logistic_point(x, t):
    v, e, slope = logistic_parts(x, t)
    return v + nl.scalar.log1p(e), slope


@nl.elementwise(logistic_point, summand=logistic_parts)
def logistic(input, target, weight=None, reduction="mean"):
    """Of labels -1 and 1; a sum takes few logarithms."""


@nl.elementwise(logistic_point)
def logistic_one_by_one(input, target, weight=None, reduction="mean"):
    """The same with a logarithm each."""


def test_summand(dtype, rng):
    """It changes nothing but the time and the last bits; and weights need the point."""
    x, t = rng.normal(size=(3, 700)).astype(dtype) * 5, rng.choice([-1, 1], (3, 700)).astype(dtype)
    tiny = 4 * np.finfo(dtype).eps
    for options in ({}, {"reduction": "sum"}, {"reduction": "none"}, {"weight": rng.random((3, 700)).astype(dtype)}):
        value, grad = logistic.value_and_grad(x, t, **options)
        usual, same = logistic_one_by_one.value_and_grad(x, t, **options)
        np.testing.assert_allclose(grad, same, rtol=tiny)
        np.testing.assert_allclose(value, usual, rtol=tiny)
        np.testing.assert_allclose(logistic(x, t, **options), usual, rtol=tiny)
    exact = np.logaddexp(0, -t.astype(np.float64) * x).mean()
    np.testing.assert_allclose(logistic(x, t), exact, rtol=tiny)


@nl.elementwise(logistic_point, summand=lambda x, t: (logistic_parts(x, t)[0] + type(x)(1), *logistic_parts(x, t)[1:]))
def raised(input, target, weight=None, reduction="mean"):
    """Whose summand is 1 too high, by which one sees who calls it."""


def test_who_calls_the_summand(rng):
    x, t = rng.normal(size=50), rng.choice([-1.0, 1.0], 50)
    point, ones = logistic_one_by_one(x, t, reduction="none"), np.ones(50)
    np.testing.assert_allclose(raised(x, t), point.mean() + 1)
    np.testing.assert_allclose(raised.value_and_grad(x, t, reduction="sum")[0], point.sum() + 50)
    np.testing.assert_array_equal(raised(x, t, reduction="none"), point)
    np.testing.assert_allclose(raised(x, t, weight=ones), point.mean())


@pytest.mark.parametrize("beyond", [87.5, -1e30, np.inf, np.nan])
def test_large_inputs_have_the_point(beyond):
    """For 512 elements at a time, wherever they are, and in place too."""
    n = 4096 + 700
    for at in (0, 511, 512, 4095, 4096, n - 1):
        x, t = np.ones(n), np.ones(n)
        x[at] = beyond
        loss, slopes = logistic_one_by_one.value_and_grad(x, t, reduction="sum")
        begin = at // 512 * 512
        by_summands = n - (min(begin + 512, n) - begin)
        for out in (None, np.empty(n), x):
            value, grad = raised.value_and_grad(x, t, reduction="sum", out=out)
            np.testing.assert_allclose(value, loss + by_summands, rtol=1e-14)
            np.testing.assert_allclose(grad, slopes, rtol=1e-15)


def test_sums_that_overflow_have_the_point(dtype):
    """A part of the sum may be too large for float32, but not the mean."""
    t = np.full(2000, np.finfo(dtype).max / 64, dtype)
    with np.errstate(over="ignore"):
        expected = nl.binary_cross_entropy_with_logits(np.full(1, -1, dtype), t[:1])
    x = np.full(2000, -1, dtype)
    value, grad = nl.binary_cross_entropy_with_logits.value_and_grad(x, t)
    if dtype == np.float32:
        np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_allclose(grad, -t / 2000, rtol=1e-6)


@nl.elementwise(logistic_point, summand=lambda x, t: (-t * x if t * x < 0 else type(x)(0), x, x))
def branching(input, target, weight=None, reduction="mean"):
    """Whose summand goes by one condition, of which a vector has many."""


def test_summands_choose_lane_by_lane():
    with pytest.raises(TypeError, match=r"summand .*lambda.* nlosses\.scalar, and its where"):
        branching([1.0], [1.0])
    assert branching([0.0], [1.0], reduction="none") == pytest.approx(np.log(2))


def surprise_parts(x, t):
    """Of odds x / (1 - x): a value of 0 at 0 and t = 0, where the point has none."""
    T = type(x)
    odds = nl.scalar.where(x > T(0.5), T(1), x / (T(1) - x))
    return nl.scalar.where(t > T(0), -t * nl.scalar.log(odds), T(0)), odds, x


LOG = nl.scalar.log


@pytest.mark.parametrize("summand", [surprise_parts, lambda x, t: (LOG(x), x, x), lambda x, t: (x, surprise_parts(x, t)[1], x)])
def test_summands_with_logarithms_need_tables(summand, monkeypatch):
    """Wherever their names stand."""
    usable, plain = sums.usable.__wrapped__, nl.binary_cross_entropy_with_logits.spec.math.summand
    monkeypatch.setattr(sums, "has_tables", lambda: True)
    assert usable(summand) is summand
    monkeypatch.setattr(sums, "has_tables", lambda: False)
    assert usable(summand) is None
    assert usable(plain) is plain
    assert usable(None) is None


def share_point(x, t):
    T = type(x)
    odds = T(1) if x > T(0.5) else x / (T(1) - x)
    return -t * nl.scalar.log(odds) + nl.scalar.log1p(odds), x


@nl.elementwise(share_point, summand=surprise_parts, input=UNIT, target=UNIT)
def share(input, target, weight=None, reduction="mean"):
    """Of inputs and targets between 0 and 1, which the kernel of the sums checks as it reads them."""


def test_summand_of_a_unit_interval(dtype, rng):
    x, t = rng.random(5000).astype(dtype), rng.random(5000).astype(dtype)
    odds = np.where(x > 0.5, 1, x.astype(float) / (1 - x.astype(float)))
    value, grad = share.value_and_grad(x, t, reduction="sum")
    np.testing.assert_allclose(value, (np.log1p(odds) - t * np.log(odds)).sum(), rtol=4 * np.finfo(dtype).eps)
    np.testing.assert_array_equal(grad, x)
    for array in (x, t):
        for bad in (np.nan, -0.25, 1.25):
            kept, array[4321] = array[4321], bad
            with pytest.raises(ValueError, match=r"must lie in \[0, 1\], got (input|target)\[4321\]"):
                share.value_and_grad(x, t)
            before = x.copy()
            with pytest.raises(ValueError, match=r"\[4321\]"):
                share.value_and_grad(x, t, out=x)
            np.testing.assert_array_equal(x, before)
            array[4321] = kept


def hinted(e, slope):
    return lambda x, t: (type(x)(e) + x, type(x)(slope) + t)


@nl.elementwise(share_point, summand=lambda x, t: (x, t, x), binary=hinted(2, 5), input=UNIT, target=UNIT)
def ended(input, target, weight=None, reduction="mean"):
    """Whose point, summand and function of binary targets are not the same, by which one sees who is called."""


def test_who_calls_binary(dtype, rng):
    """512 elements are one chunk, whose targets must all be 0 or 1."""
    n = 4096 + 700
    x, chunks = rng.random(n).astype(dtype), np.minimum(np.arange(n) // 512, 9)
    for odd in ([], [0], [17], [511, 4096], [n - 1]):
        t = rng.integers(0, 2, n).astype(dtype)
        t[odd] = 0.25
        soft = np.isin(chunks, chunks[odd])
        x64, t64 = x.astype(float), t.astype(float)
        expected = np.where(soft, x64 + np.log1p(t64), np.log1p(2 + x64)).sum()
        slopes = np.where(soft, x, 5 + t)
        for out in (None, np.empty(n, dtype), x.copy()):
            value, grad = ended.value_and_grad(x if out is None or (out != x).any() else out, t, reduction="sum", out=out)
            np.testing.assert_allclose(value, expected, rtol=4 * np.finfo(dtype).eps)
            np.testing.assert_array_equal(grad, slopes)
        np.testing.assert_array_equal(ended.grad(x, t, reduction="none"), x)


def test_infinite_products_have_the_summand(dtype, rng):
    """Of many e that are large, and of one that is infinite."""
    x, t = rng.random(5000).astype(dtype), rng.integers(0, 2, 5000).astype(dtype)
    right = np.where(t == 1, x, 1 - x.astype(float))
    for wrong in (np.finfo(dtype).smallest_subnormal, np.finfo(dtype).tiny, 1e-13, 1e-9, 0):
        x[700:720], t[700:720] = wrong, 1
        right[700:720] = x[700]
        with np.errstate(divide="ignore"):
            values = np.minimum(-np.log(right), 100)
        value, grad = nl.binary_cross_entropy.value_and_grad(x, t, reduction="sum")
        np.testing.assert_allclose(value, values.sum(), rtol=8 * np.finfo(dtype).eps)
        np.testing.assert_allclose(grad[700], -1 / max(x[700].astype(float), 1e-12), rtol=1e-6)


@pytest.mark.parametrize("binary", [lambda x, t: x, lambda x, t: (math.gamma(x), t), lambda x, t: (x if x > t else t, t)])
def test_binary_that_takes_no_vectors_is_named(binary):
    @nl.elementwise(logistic_point, summand=logistic_parts, binary=binary)
    def unfit(input, target, reduction="mean"):
        """Has a summand that takes them."""

    with pytest.raises(TypeError, match=r"binary .*lambda.* cannot be compiled for vectors"):
        unfit([1.0], [1.0])
    assert unfit([0.0], [1.0], reduction="none") == pytest.approx(np.log(2))


def test_binary_that_cannot_be_used_leaves_it_to_the_others(rng, monkeypatch):
    x, t = rng.random(700), rng.integers(0, 2, 700).astype(float)
    assert ended(x, t, reduction="sum") == pytest.approx(np.log1p(2 + x).sum())
    monkeypatch.setattr(sums, "usable", lambda function: None)
    assert ended(x, t, reduction="sum") == pytest.approx(ended(x, t, reduction="none").sum())


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: nl.Interval(1, 0), ValueError, "low must not be greater than high, got 1 and 0"),
        (lambda: nl.Interval(np.nan, 1), ValueError, "got nan and 1"),
        (lambda: nl.Interval("a", 1), TypeError, "low must be a real number, got 'a'"),
        (lambda: nl.elementwise(logistic_point, target=(0, 1))(lambda input, target, reduction: 0), TypeError, "target= must"),
    ],
)
def test_bad_intervals(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_binary_needs_a_summand():
    with pytest.raises(TypeError, match="binary must come with a summand"):
        nl.elementwise(share_point, binary=hinted(0, 0))


@pytest.mark.parametrize("bad", [np.nan, -0.25, 1.25, -1.0, 2.0, np.inf])
def test_binary_targets_of_a_unit_interval(dtype, rng, bad):
    for at in (0, 16, 4321, 4999):
        for k in range(2):
            arrays = rng.random(5000).astype(dtype), rng.integers(0, 2, 5000).astype(dtype)
            arrays[k][at] = bad
            with pytest.raises(ValueError, match=rf"must lie in \[0, 1\], got (input|target)\[{at}\]"):
                nl.binary_cross_entropy.value_and_grad(*arrays)


@nl.elementwise(lambda x, t: (x / t, x), input=UNIT, target=UNIT)
def quotient(input, target, weight=None, reduction="mean"):
    """Not a number where both are 0, though these may be."""


def test_no_number_in_place():
    x, t = np.array([0.5, 0.0, 1.0]), np.array([1.0, 0.0, 1.0])
    for out in (None, np.empty(3), x):
        value, grad = quotient.value_and_grad(x, t, out=out)
        assert np.isnan(value)
        np.testing.assert_allclose(grad, np.array([0.5, 0.0, 1.0]) / 3)


def strict_point(x, t):
    if x < 0:
        raise ValueError("a negative input")
    return x * t, t


@nl.elementwise(strict_point)
def strict(input, target, weight=None, reduction="mean"):
    """Whose point raises."""


@pytest.mark.parametrize("n", [10, 100_000])
def test_points_may_raise(n):
    """On whatever thread it is."""
    x = np.ones(n)
    assert strict(x, x) == 1
    x[n // 2] = -1
    with pytest.raises(ValueError, match="a negative input"):
        strict(x, x)


def vector_point(x, t, slope):
    T = type(x)
    e = nl.scalar.exp_nonpositive(-abs(x - t))
    steep = e if slope is None else slope * e
    return nl.scalar.log1p_unit(e) + steep, nl.scalar.where(x > t, T(1) - steep, steep)


@nl.elementwise(vector_point, vectors=True)
def by_vectors(input, target, weight=None, reduction="mean", slope=None):
    """Compiled for vectors."""


@nl.elementwise(vector_point)
def one_by_one(input, target, weight=None, reduction="mean", slope=None):
    """The same of numbers."""


@pytest.mark.parametrize("n", [1, 7, 16, 511, 513, 5000])
def test_points_of_vectors(dtype, rng, n):
    """Of arrays of any length, in place too, and with all that comes beside."""
    x, t, w, slope, upstream = rng.normal(size=(5, n)).astype(dtype) * 3
    tiny = 8 * np.finfo(dtype).eps
    for options in ({}, {"weight": w}, {"slope": slope}, {"slope": dtype(2)}, {"reduction": "none", "weight": w}):
        given = upstream if options.get("reduction") else 2.0
        value, grad = by_vectors.value_and_grad(x, t, **options, grad_output=given)
        usual, expected = one_by_one.value_and_grad(x, t, **options, grad_output=given)
        np.testing.assert_allclose(value, usual, rtol=tiny, atol=tiny)
        np.testing.assert_allclose(grad, expected, rtol=tiny, atol=tiny * abs(expected).max())
        same = x.copy()
        np.testing.assert_array_equal(by_vectors.value_and_grad(same, t, **options, grad_output=given, out=same)[1], grad)
        np.testing.assert_allclose(by_vectors(x, t, **options), usual, rtol=tiny, atol=tiny)


@nl.elementwise(lambda x, t: (x if x > t else t, x), vectors=True)
def not_for_vectors(input, target, reduction="mean"):
    """Whose point goes by one condition."""


@pytest.mark.skipif(not has_tables(), reason="a machine without AVX-512 compiles no points for vectors")
def test_points_of_vectors_choose_lane_by_lane():
    with pytest.raises(TypeError, match=r"point .*lambda.* nlosses\.scalar, and its where"):
        not_for_vectors([1.0], [1.0])


def test_elementwise(dtype, rng):
    x, t = rng.normal(size=(3, 40)).astype(dtype) * 3, rng.normal(size=(3, 40)).astype(dtype)
    delta = np.array([[0.5], [1.0], [2.0]])
    r = x.astype(float) - t.astype(float)
    expected = np.where(abs(r) <= delta, r * r / 2, delta * (abs(r) - delta / 2))
    eps = 8 * float(np.finfo(dtype).eps)
    value, grad = huber.value_and_grad(x, t, delta=delta, reduction="none")
    assert value == pytest.approx(expected, rel=eps, abs=eps)
    assert grad == pytest.approx(np.clip(r, -delta, delta), rel=eps, abs=eps)
    assert np.array_equal(huber.hessian_diag(x, t, reduction="sum"), abs(x - t) <= 1)
    assert np.array_equal(huber.hvp(x, t, x, reduction="sum"), x * (abs(x - t) <= 1))
    assert huber(x, t, weight=np.zeros(40)) == 0
    assert huber(x, t, None, "sum", 2.0) == pytest.approx(np.where(abs(r) <= 2, r * r / 2, 2 * (abs(r) - 1)).sum(), rel=eps)
    assert pickle.loads(pickle.dumps(huber)) is huber
    assert huber.__doc__.startswith("Quadratic")
    with pytest.raises(NotImplementedError, match="huber has no gradient with respect to the target"):
        huber.grad(x, t, argnums=1)
    with pytest.raises(ValueError, match="huber: reduction must be one of"):
        huber(x, t, reduction="all")
    with pytest.warns(UserWarning, match="huber: target has shape"):
        huber(x, t[:1])


@pytest.mark.parametrize("shape", [(5, 3), (5, 50), (2, 3, 4)])
def test_classwise(shape, rng):
    x = rng.normal(size=shape)
    t = rng.integers(0, shape[1], shape[:1] + shape[2:])
    t[0] = -100
    log_p = np.take_along_axis(nl.log_softmax(x, 1), np.maximum(t, 0)[:, None], 1)[:, 0]
    expected = np.where(t >= 0, -((1 - np.exp(log_p)) ** 2) * log_p, 0)
    assert focal(x, t, reduction="none") == pytest.approx(expected, rel=1e-13)
    g = rng.normal(size=t.shape)
    v = rng.normal(size=shape)

    def along(f, h=1e-4):
        return (8 * (f(x + h * v) - f(x - h * v)) - (f(x + 2 * h * v) - f(x - 2 * h * v))) / (12 * h)

    grad = focal.grad(x, t, reduction="none", grad_output=g)
    assert np.sum(grad * v) == pytest.approx(along(lambda x: np.sum(g * focal(x, t, reduction="none"))), rel=1e-8)
    product = focal.hvp(x, t, v, reduction="none", grad_output=g)
    assert product == pytest.approx(along(lambda x: focal.grad(x, t, reduction="none", grad_output=g)), rel=1e-7, abs=1e-9)
    diagonal = focal.hessian_diag(x, t, reduction="none", grad_output=g)
    units = np.eye(x.size).reshape(x.size, *shape)
    exact = [focal.hvp(x, t, e, reduction="none", grad_output=g)[e == 1][0] for e in units]
    assert diagonal.ravel() == pytest.approx(exact, rel=1e-12, abs=1e-15)


def test_a_loss_may_be_made_in_a_function(rng):
    scale = 3.0

    def point(x, t):
        return scale * (x - t), type(x)(scale)

    @nl.elementwise(point)
    def tilt(input, target, reduction="mean"):
        """Straight line."""

    x = rng.normal(size=8)
    assert tilt(x, 0 * x, reduction="sum") == pytest.approx(3 * x.sum())
    with pytest.raises(NotImplementedError, match="tilt has no second derivative"):
        tilt.hessian_diag(x, x)


def test_declarations_are_checked():
    def point(x, t, delta):
        return x, x

    @cache
    def declared(signature):
        return eval(f"lambda {signature}: None")

    with pytest.raises(TypeError, match="must take an input, a target and 'reduction'"):
        nl.elementwise(point)(declared("input, target"))
    with pytest.raises(TypeError, match="the point function takes delta, which the signature"):
        nl.elementwise(point)(declared("input, target, reduction='mean'"))
    with pytest.raises(TypeError, match="the signature has gamma, which the point function does not take"):
        nl.elementwise(point)(declared("input, target, delta, gamma, reduction='mean'"))
