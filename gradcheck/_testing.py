"""What tests import.

It is not in the plugin: there pytest takes every name that begins with its own for a hook, and complains of a module that a
filter of warnings has imported before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from _pytest.mark import ParameterSet


class GradientWarning(UserWarning):
    """A check could not tell whether a gradient is right."""


def pytest_cases(*targets: str, quick: bool = False) -> list[ParameterSet]:
    """Cases of suites as parameters of a test.

    Parameters
    ----------
    *targets : str
        Names of installed suites, ``module:attribute`` or ``path/to/file.py:attribute``; every installed suite if there
        is none.
    quick : bool
        Only the cases of a quick run.

    Returns
    -------
    list
        For ``pytest.mark.parametrize``, named as the cases are.  Those that this machine cannot run are marked as skipped.

    Raises
    ------
    SuiteError
        If a suite cannot be found or does not hold cases.

    Examples
    --------
    ::

        @pytest.mark.parametrize("case", gradcheck.pytest_cases("my_library.suite:cases"))
        def test_case(run_case, case):
            run_case(case)
    """
    from ._suite import collect

    cases = [case for case in collect(targets) if case.quick or not quick]
    several = len({case.suite for case in cases}) > 1
    return [
        pytest.param(
            case,
            id=f"{case.suite}::{case.name}" if several else case.name,
            marks=[pytest.mark.skip(reason=str(case.labels["skip"]))] if "skip" in case.labels else [],
        )
        for case in cases
    ]
