"""The pytest plugin: checks inside tests, and whole suites as tests::

    def test_gradient(gradcheck):
        gradcheck(f, grad, x)

    @pytest.mark.parametrize("case", gradcheck.pytest_cases("my_library.suite:cases"))
    def test_case(run_case, case):
        run_case(case)

Options: ``--gradcheck-strict`` and ``--gradcheck-seed N``.  pytest imports this module at its start, in every project:
what needs numpy is imported when it is used.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from ._testing import GradientWarning

if TYPE_CHECKING:
    from ._suite import Case
    from ._verdict import Result


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("gradcheck", "gradient checks")
    help_ = "checks that are inconclusive fail, instead of a GradientWarning"
    group.addoption("--gradcheck-strict", action="store_true", help=help_)
    group.addoption("--gradcheck-seed", type=int, default=0, metavar="N", help="seed of gradient checks (default: 0)")


@pytest.fixture(scope="session", name="gradcheck")
def gradcheck_fixture(pytestconfig: pytest.Config) -> Callable[..., Result]:
    """Check a gradient: ``gradcheck(f, grad, x, *args, **options)`` as `gradcheck.check`; GradientError if it is wrong."""

    def gradcheck(f: Callable[..., Any], grad: Callable[..., Any], x: Any, *args: Any, **options: Any) -> Result:
        __tracebackhide__ = True
        from ._check import check

        options.setdefault("seed", pytestconfig.getoption("gradcheck_seed"))
        return _judged(check(f, grad, x, *args, **options), pytestconfig)

    return gradcheck


@pytest.fixture(scope="session")
def run_case(pytestconfig: pytest.Config) -> Callable[[Case], Result]:
    """Run a case of `gradcheck.pytest_cases`: ``run_case(case)``; GradientError if it fails."""

    def run(case: Case) -> Result:
        __tracebackhide__ = True
        if "skip" in case.labels:
            pytest.skip(str(case.labels["skip"]))
        return _judged(case.run(pytestconfig.getoption("gradcheck_seed")), pytestconfig)

    return run


def _judged(result: Result, config: pytest.Config) -> Result:
    """The result, if the test may go on."""
    __tracebackhide__ = True
    result.raise_if_failed(strict=config.getoption("gradcheck_strict"))
    if not result:
        warnings.warn(GradientWarning(str(result)), stacklevel=3)
    return result
