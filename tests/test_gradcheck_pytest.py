"""The pytest plugin of gradcheck, in runs of pytest of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import gradcheck

ROOT = Path(gradcheck.__file__).parents[1]
#: What a check says is fixed here, so that none of this depends on the numbers.
TOLD = """
import pytest
from gradcheck import Case, Finding, GradientError, Result, Verdict
import gradcheck._check, gradcheck._checks

def told(f, grad, x, *args, seed=0, verdict="pass"):
    verdict = Verdict(verdict)
    findings = () if verdict else (Finding("value", verdict, "3 sigma", 0, 1, (7, 3), 1.0, 2.0, 1e-9, "the sign"),)
    return Result("told", verdict, 1e-9, findings=findings, seed=seed, evaluations=len(args))

gradcheck._check.check = gradcheck._checks.CHECKS["check"] = told

def case(name, labels={}, quick=True, **arguments):
    return Case(name, dict(f=None, grad=None, x=None, **arguments), labels=labels, quick=quick)
"""


def environment() -> dict[str, str]:
    """No plugin but the one that is named, which cannot be loaded twice where gradcheck is installed."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return {**kept, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}


@pytest.fixture
def run(tmp_path):
    """Runs a test file with the plugin; counts of outcomes and the output."""

    def run(body: str, *options: str) -> tuple[dict[str, int], str]:
        (tmp_path / "test_it.py").write_text(TOLD + textwrap.dedent(body))
        command = [sys.executable, "-m", "pytest", "-p", "gradcheck.pytest_plugin", "-p", "no:cacheprovider", "-rA", *options]
        done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=120)
        assert done.stderr == ""
        last = done.stdout.splitlines()[-1]
        return {what: int(count) for count, what in re.findall(r"(\d+) (\w+)", last.partition(" in ")[0])}, done.stdout

    return run


VERDICTS = """
    def test_pass(gradcheck):
        assert gradcheck(sum, sum, [1.0], 2, 3).evaluations == 2

    def test_fail(gradcheck):
        gradcheck(sum, sum, [1.0], verdict="fail")  # the line at fault

    def test_raises(gradcheck):
        with pytest.raises(GradientError, match="3 sigma") as caught:
            gradcheck(sum, sum, [1.0], verdict="fail")
        assert caught.value.result.verdict is Verdict.FAIL

    def test_inconclusive(gradcheck):
        result = gradcheck(sum, sum, [1.0], verdict="inconclusive")
        assert not result
"""


def test_fixture(run):
    counts, output = run(VERDICTS)
    assert counts == {"failed": 1, "passed": 3, "warning": 1}
    assert "GradientError: FAIL told" in output
    assert "grad[7, 3]  analytic +1.000000000e+00" in output
    assert "likely: the sign" in output
    assert "# the line at fault" in output
    assert "raise_if_failed" not in output
    assert "pytest_plugin.py" not in output
    assert re.search(r"test_it.py:\d+: GradientWarning: INCONCLUSIVE told", output)


def test_strict_and_warnings_as_errors(run):
    counts, _ = run(VERDICTS, "--gradcheck-strict")
    assert counts == {"failed": 2, "passed": 2}
    counts, _ = run(VERDICTS, "-W", "error::gradcheck.GradientWarning", "-k", "inconclusive")
    assert counts == {"failed": 1, "deselected": 3}


def test_seed(run):
    body = """
    @pytest.fixture(scope="module")
    def result(gradcheck):
        return gradcheck(sum, sum, [1.0])

    def test_seed(gradcheck, run_case, result):
        assert result.seed == run_case(case("c")).seed == 5
        assert gradcheck(sum, sum, [1.0], seed=6).seed == 6
    """
    assert run(body, "--gradcheck-seed", "5")[0] == {"passed": 1}


SUITE = """
    from gradcheck import pytest_cases

    def suite():
        for verdict in ("pass", "fail", "inconclusive"):
            yield case(f"mse[{verdict}] < \\0 \\N{GREEK SMALL LETTER ALPHA}", verdict=verdict)
        yield case("long", quick=False)
        yield case("cuda", {"skip": "no GPU here"})

    @pytest.mark.parametrize("case", pytest_cases(f"{__file__}:suite", quick=QUICK))
    def test_case(run_case, case):
        run_case(case)
"""


def test_suite(run, tmp_path):
    (tmp_path / "conftest.py").write_text("import sys")
    guarded = SUITE.replace("{__file__}:suite", "guard:suite").replace("QUICK", "False")
    # Its own file would be collected while it is imported.
    (tmp_path / "guard.py").write_text(TOLD + textwrap.dedent(SUITE.partition("    @pytest")[0]))
    counts, output = run(guarded)
    assert counts == {"failed": 1, "passed": 3, "skipped": 1, "warning": 1}
    assert r"test_case[mse[pass] < \x00 \u03b1]" in output
    assert "no GPU here" in output
    assert "reproduce: python -m gradcheck guard:suite --case 'mse[fail]" in output
    counts, _ = run(guarded.replace("quick=False", "quick=True"), "-k", "mse or long")
    assert counts == {"failed": 1, "passed": 2, "deselected": 1, "warning": 1}


def test_several_suites_and_missing_ones(run, tmp_path):
    (tmp_path / "guard.py").write_text(TOLD + "one = [case('c')]\ntwo = [case('c')]")
    body = """
    from gradcheck import pytest_cases

    @pytest.mark.parametrize("case", pytest_cases("guard:one", "guard:two"))
    def test_case(run_case, case):
        run_case(case)
    """
    counts, output = run(body)
    assert counts == {"passed": 2}
    assert "test_case[guard:one::c]" in output
    counts, output = run(body.replace("guard:two", "guard:three"))
    assert counts == {"error": 1}
    assert "SuiteError: 'guard' has no 'three'" in output


def test_skipped_case_without_the_mark(run):
    body = """
    def test_case(run_case):
        run_case(case("c", {"skip": "no GPU here"}))
    """
    assert run(body)[0] == {"skipped": 1}


def test_pytest_start_loads_neither_numpy_nor_scipy(tmp_path):
    (tmp_path / "test_it.py").write_text(
        "import sys\n"
        "def test_nothing(request):\n"
        "    assert request.config.pluginmanager.hasplugin('gradcheck.pytest_plugin')\n"
        "    loaded = {'numpy', 'scipy', 'numba', 'rich', 'nlosses'} & set(sys.modules)\n"
        "    assert not loaded\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "gradcheck.pytest_plugin", "-p", "no:cacheprovider", "-W", "error"]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout


def test_public_names():
    code = """
import sys, gradcheck
assert not {"numpy", "pytest"} & set(sys.modules)
assert set(gradcheck.__all__) == set(gradcheck._HOMES) <= set(dir(gradcheck))
from gradcheck import *
assert check is gradcheck.check and Verdict.PASS
try: gradcheck.nonsense
except AttributeError as error: assert "nonsense" in str(error)
else: raise SystemExit(1)
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=120)
