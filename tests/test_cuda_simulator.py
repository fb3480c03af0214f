"""The CUDA target without a GPU: `cuda_simulated.py`, in processes of their own with Numba's simulator switched on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FILE = Path(__file__).with_name("cuda_simulated.py")
#: Parts of about the same length, so that they can run side by side; each test is in just one.
PARTS = ["elementwise", "values and classwise", "derivatives and classwise", "not elementwise and not classwise"]


@pytest.mark.cuda
@pytest.mark.parametrize("part", PARTS)
def test_in_the_simulator(part):
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", str(FILE), "-k", part],
        env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1"}, cwd=FILE.parent.parent, capture_output=True, text=True,
        timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "passed" in done.stdout
    assert "skipped" not in done.stdout
