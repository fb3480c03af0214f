"""Vectors as values: each operation does in every lane what it does to numbers, and touches no other memory."""

from __future__ import annotations

import numpy as np
from numba import njit

from nlosses import scalar
from nlosses._cpu import _jit  # noqa: F401  attaches the primitives
from nlosses._cpu import _vector as v

strict = njit(error_model="numpy")


@strict
def results(x, y, out):
    n = v.lanes_of(x)
    a, b = v.load(x, 1), v.load(v.pointer(y), 1)
    number = x.dtype.type(0.5)
    v.store(out, 0, a + b)
    v.store(out, n, number - a)
    v.store(out, 2 * n, a * number)
    v.store(out, 3 * n, a / b)
    v.store(out, 4 * n, -abs(a))
    v.store(out, 5 * n, scalar.where((a < b) | (a != a), a, b))
    v.store(out, 6 * n, v.where_not(2, a, b))
    v.store(out, 7 * n, scalar.where(a < b, a, number))
    v.store(out, 8 * n, scalar.where(a >= number, number, b))
    v.store(out, 9 * n, scalar.where(a != a, v.filled(x, 1), v.filled(x, 2)))
    v.store(out, 10 * n, v.where_other(a, 1, a, b))
    v.store(out, 11 * n, v.where_from(3, a, b))
    v.store(v.pointer(out), 12 * n, v.filled(x, 7))
    v.store(out, 13 * n, scalar.exp_nonpositive(-abs(a)))


@np.errstate(invalid="ignore")
def test_lanes(dtype, rng):
    n = v.BYTES // np.dtype(dtype).itemsize
    x, y = rng.normal(size=(2, n + 2)).astype(dtype)
    x[2], x[3], y[4], x[5], y[5] = 1, np.nan, np.nan, np.inf, -np.inf
    out = np.full((15, n), 99, dtype)
    results(x, y, out.reshape(-1))
    half = dtype(0.5)
    a, b = x[1 : n + 1], y[1 : n + 1]
    e = [scalar.exp_nonpositive(-abs(value)) for value in a]
    expected = [
        a + b, half - a, a * half, a / b, -abs(a), np.where((a < b) | (a != a), a, b),
        np.where(np.arange(n) != 2, a, b), np.where(a < b, a, half),
        np.where(a >= half, half, b), np.where(a != a, 1, 2), np.where(a == 1, b, a), np.where(np.arange(n) >= 3, a, b),
        np.full(n, 7), e, np.full(n, 99),
    ]  # fmt: skip
    for row, (got, wanted) in enumerate(zip(out, expected, strict=True)):
        np.testing.assert_allclose(got, np.asarray(wanted, dtype), rtol=(row == 13) * np.finfo(dtype).eps, err_msg=str(row))


@strict
def reduced(x, part):
    a = v.load_short(x, 0)
    return v.total(a), v.total(v.widened(a)), v.total(v.load_part(x, 1, part)), v.short_lanes_of(x)


@strict
def copied(x, target, at, n):
    v.store_part(target, at, n, v.load_part(x, at, n) + v.filled_short(x, 1))


def test_reductions(dtype, rng):
    n = v.SHORT // np.dtype(dtype).itemsize
    x = rng.integers(-100, 100, n).astype(dtype)
    assert reduced(x, 5) == (x.sum(), x.sum(), x[1:6].sum(), n)


def test_parts_touch_nothing_else(dtype, rng):
    n = v.SHORT // np.dtype(dtype).itemsize
    x, target = rng.normal(size=(2, n)).astype(dtype)
    for count in range(n + 1):
        got = target.copy()
        copied(x, got, n - count, count)
        np.testing.assert_array_equal(got, np.concatenate([target[: n - count], x[n - count :] + dtype(1)]))


@strict
def reach(x, wide):
    a = v.load_short(x, 0)
    v.store(wide, 0, v.farther(a, v.filled_short(x, 1)))
    return v.farthest(v.farther(a, v.filled_short(x, 0)))


def test_reach(dtype, rng):
    """The largest magnitude, of which NaN is the largest."""
    n = v.SHORT // np.dtype(dtype).itemsize
    x, got = rng.normal(size=(2, n)).astype(dtype)
    assert reach(x, got) == abs(x).max()
    np.testing.assert_array_equal(got, np.maximum(abs(x), 1))
    x[2] = -np.inf
    assert reach(x, got) == np.inf
    for nan in (np.nan, -np.nan):
        x[3] = nan
        assert np.isnan(reach(x, got))
        np.testing.assert_array_equal(got, np.maximum(abs(x), 1))


@strict
def zeros(out):
    v.store(out, 0, v.unknown_zero(out))


def test_unknown_zero_is_zero(dtype):
    out = np.ones(v.BYTES // np.dtype(dtype).itemsize, dtype)
    zeros(out)
    assert not out.any()


@strict
def narrow(x, out):
    v.store(out, 0, v.narrowed(v.widened(v.load_short(x, 0)) / 3.0, out))


def test_narrowed(dtype, rng):
    x, out = rng.normal(size=(2, v.SHORT // np.dtype(dtype).itemsize)).astype(dtype)
    narrow(x, out)
    np.testing.assert_array_equal(out, (x.astype(np.float64) / 3).astype(dtype))


@strict
def streamed(x, out):
    n = v.short_lanes_of(x)
    first = (n - v.late(out, 0)) % n
    v.stream(out, first, v.load_short(x, 0))
    v.settle()
    return first


def test_stream(dtype, rng):
    n = v.SHORT // np.dtype(dtype).itemsize
    x, memory = rng.normal(size=n).astype(dtype), np.zeros(3 * n, dtype)
    for shift in range(n):
        out = memory[shift:]
        out[:] = 0
        first = streamed(x, out)
        assert 0 <= first < n
        assert out[first:].ctypes.data % v.LINE == 0
        np.testing.assert_array_equal(out[first : first + n], x)
        assert np.count_nonzero(out) == n


def test_numbers_choose_too():
    assert scalar.where(True, 1.0, 2.0) == 1
    assert njit(lambda x: scalar.where(x > 0, x, -x))(-3.0) == 3
