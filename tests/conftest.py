"""What all tests share: a seeded generator, and the registry as test material."""

from __future__ import annotations

import numpy as np
import pytest

import nlosses as nl
from nlosses._cpu import _jit

_jit.CHECKED = True  # a kernel called with other types than it was compiled for is an error, which users pay no time for


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20261122)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "loss" in metafunc.fixturenames:
        metafunc.parametrize("loss", nl.LOSSES.values(), ids=nl.LOSSES)
    if "dtype" in metafunc.fixturenames:
        metafunc.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
