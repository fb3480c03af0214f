"""Rows to tiles and back: every number arrives, and nothing else is touched."""

import numpy as np
import pytest
from numba import njit

from nlosses._cpu._transpose import LANE, join, numbers, split


@njit
def _split(tile, rows, count):
    split(tile, rows, count)


@njit
def _join(tile, rows, count):
    join(tile, rows, count)


@pytest.mark.parametrize("classes", [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 32, 41])
def test_split_and_join(classes, dtype):
    lanes = 32
    for count in (1, 2, 3, 4, 5, 7, 8, 9, 13, 16, 31, 32):
        x = np.arange(count * classes, dtype=dtype).reshape(count, classes)
        tile = np.full((classes, lanes), -1, dtype)
        _split(tile, x.reshape(-1), count)
        np.testing.assert_array_equal(tile[:, :count], x.T)
        assert (tile[:, count:] == -1).all()

        around = np.full((count + 2) * classes, -2, dtype)
        rows = around[classes:-classes]
        _join(tile, rows, count)
        np.testing.assert_array_equal(rows.reshape(count, classes), x)
        assert (around[:classes] == -2).all()
        assert (around[-classes:] == -2).all()


@pytest.mark.parametrize("side", [4, 8])
def test_each_column_of_a_square_comes_once(side, dtype):
    assert sorted(numbers(side, LANE // np.dtype(dtype).itemsize)) == list(range(side))
