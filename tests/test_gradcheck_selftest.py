"""The self-test of gradcheck: planted faults make a difference, are found, and are told by their names."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import gradcheck
from gradcheck import Result, Verdict, selftest
from gradcheck._matrix import Outcome, State, Subject, attempt
from gradcheck._matrix import slip as slip_operator
from gradcheck._mutants import KINDS, OPERATORS, Operator
from gradcheck._plant import Call, Difference, plant
from gradcheck._suite import Case
from gradcheck._zoo import ZOO, Specimen
from gradcheck._zoo_cases import cases, slips, zoo

SPECIMENS = {specimen.name: specimen for specimen in ZOO}


def subject(name: str, form: str) -> Subject:
    return next(Subject(case, name, 0) for case in cases(SPECIMENS[name]) if case.name == f"{name}, {form}")


def planted(operator: str, name: str = "log cosh", form: str = "mean") -> Outcome:
    outcome = attempt(OPERATORS[operator], subject(name, form), 0)
    assert outcome is not None
    return outcome


def codes(result: Result) -> set[str]:
    return {finding.code for finding in result.findings}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, dict[str, Any]]:
    """The quick run without suites."""
    path = tmp_path_factory.mktemp("selftest") / "report.json"
    return selftest.main(["--zoo-only", "--json", str(path)]), json.loads(path.read_text())


def test_faults_are_found_and_right_gradients_pass(whole: tuple[int, dict[str, Any]]) -> None:
    status, report = whole
    assert status == 0
    assert report["counted"] > 1000
    assert report["found"] >= 0.99 * report["counted"]
    assert not report["false_alarms"]
    assert {r["verdict"] for r in report["right"]} == {"pass"}
    assert set(report["classes"]) == set(KINDS)


def test_every_operator_makes_a_difference(whole: tuple[int, dict[str, Any]]) -> None:
    _, report = whole
    different = {fault["operator"] for fault in report["faults"] if fault["state"] != State.EQUAL.value}
    harmless = {name for name, operator in OPERATORS.items() if operator.harmless}
    assert set(OPERATORS) - harmless <= different
    assert {name for specimen in ZOO for name in specimen.slips} <= different


@pytest.mark.parametrize("name", ["absolute", "relu", "hinge"])
def test_the_other_side_of_a_kink_is_right(name: str) -> None:
    outcome = planted("other side of kinks", name, "at kinks")
    assert outcome.entry > 1e-3
    assert outcome.state is State.HARMLESS
    assert outcome.result.verdict is Verdict.PASS


def test_the_other_side_of_a_kink_breaks_a_declared_convention() -> None:
    kinked = subject("absolute", "at kinks")

    def declared(x: np.ndarray, t: np.ndarray) -> np.ndarray:
        return np.where(x == t, 0.0, np.nan)

    arguments = {**kinked.arguments(), "kinks": declared}
    wrong, _ = plant("check", arguments, OPERATORS["other side of kinks"].apply, 0)
    assert gradcheck.Case("right", arguments).run().verdict is Verdict.PASS
    assert "convention" in codes(gradcheck.Case("wrong", wrong).run())


@pytest.mark.parametrize("form", ["mean", "each", "hvp", "curvature", "float32"])
@pytest.mark.parametrize("operator", [name for name, operator in OPERATORS.items() if operator.codes])
def test_rules_are_broken_by_name(operator: str, form: str) -> None:
    outcome = attempt(OPERATORS[operator], subject("log cosh", form), 0)
    if outcome is None:  # no upstream gradient, or none of the business of this check
        assert form not in OPERATORS[operator].checks
        pytest.skip("has no meaning here")
    assert outcome.state is State.CAUGHT
    assert codes(outcome.result) & set(OPERATORS[operator].codes)


@pytest.mark.parametrize("form", ["mean", "each", "large"])
@pytest.mark.parametrize("operator", [name for name, operator in OPERATORS.items() if operator.kind == "single entry"])
def test_the_wrong_entry_is_named(operator: str, form: str) -> None:
    target = subject("log cosh", form)
    arguments, mutant = plant(target.case.check, target.arguments(), OPERATORS[operator].apply, 3)
    result = replace(target.case, arguments=arguments).run()
    values = [finding for finding in result.findings if finding.code == "value"]
    assert {finding.index for finding in values} == {np.unravel_index(mutant.memory["entry"], arguments["x"].shape)}


HINTS = {
    "sign": "the sign is wrong everywhere",
    "zero": "the gradient is zero everywhere",
    "times 2": "too large by the factor 2",
    "half": "too large by the factor 1/2",
    "mean not divided": "the mean's denominator missing",
    "n minus 1": "n - 1 instead of n",
    "times rows": "the length of axis 0",
    "shifted": "shifted by 1 along axis 1",
    "reversed order": "reversed along axis 1",
    "last row unwritten": "all at index 3 of axis 0",
    "constant added": "off by the same",
    "lower precision": "single precision",
}


@pytest.mark.parametrize("operator", HINTS)
@pytest.mark.parametrize("name", ["log cosh", "Student", "weighted squares"])
def test_hints_name_the_fault(name: str, operator: str) -> None:
    outcome = planted(operator, name)
    hints = {finding.hint for finding in outcome.result.findings}
    assert any(HINTS[operator] in hint for hint in hints), hints


@pytest.mark.parametrize("shape", [(4, 4), (4, 3)])
def test_the_hint_of_a_transposed_gradient(shape: tuple[int, int]) -> None:
    x = np.random.default_rng(0).normal(size=shape)

    def transposed(x: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(x.T).reshape(x.shape)

    result = gradcheck.check(lambda x: 0.5 * np.sum(x * x), transposed, x)
    assert "transposed" in result.findings[0].hint


def test_faults_in_tuples_and_buffers() -> None:
    def f(x: np.ndarray, t: np.ndarray) -> Any:
        return np.sum(x * x * t)

    def grad(x: np.ndarray, t: np.ndarray, out: Any = None) -> Any:
        result = (2 * x * t, x * x)
        if out is None:
            return result
        for buffer, g in zip(out, result, strict=True):
            buffer[...] = g
        return out

    arguments = {"f": f, "grad": grad, "x": np.array([1.0, 2.0]), "args": (np.array([3.0, 4.0]),), "wrt": (0, 1), "out": "out"}
    assert Case("right", arguments).run().verdict is Verdict.PASS
    wrong, mutant = plant("check", arguments, OPERATORS["times 2"].apply, 0)
    result = Case("wrong", wrong).run()
    assert {finding.argument for finding in result.findings} == {1}
    assert mutant.difference == Difference(1.0, 1.0)


def test_an_alias_with_the_right_numbers_is_found() -> None:
    result = gradcheck.check(lambda x: 0.5 * np.sum(x * x), lambda x: x, [1.0, 2.0])
    assert codes(result) == {"aliasing"}


@pytest.mark.parametrize("garbage", [1e30, 1.7e302])
@pytest.mark.parametrize("form", ["mean", "each", "curvature"])
def test_garbage_of_any_size_is_a_wrong_entry(form: str, garbage: float) -> None:
    def apply(call: Call) -> np.ndarray:
        g = call.g
        g.reshape(-1)[call.entry] = garbage
        return g

    outcome = attempt(Operator("garbage", "single entry", "", apply), subject("log cosh", form), 0)
    assert outcome is not None
    assert outcome.state is State.CAUGHT
    assert {f.hint for f in outcome.result.findings if f.code == "value"} == {"one entry of 12 is wrong"}


def test_arguments_that_are_written_to_once_are_restored() -> None:
    x = np.array([1.0, -2.0, 3.0])

    def clipping(x: np.ndarray) -> np.ndarray:
        g = 2 * x
        np.maximum(x, 0, out=x)
        return g

    assert codes(gradcheck.check(lambda x: np.sum(x * x), clipping, x)) == {"input-modified"}
    assert x.tolist() == [1, -2, 3]


def test_rules_hold_for_numbers_without_axes() -> None:
    def vjp(u: np.ndarray, x: np.ndarray, t: np.ndarray) -> np.ndarray:
        t[...] = 1
        return np.asarray(u * 2 * x)

    assert codes(gradcheck.check(lambda x, t: x * x, None, 2.0, np.array(3.0), vjp=vjp)) == {"input-modified"}
    added = gradcheck.check(lambda x: x * x, None, 2.0, vjp=lambda u, x: np.asarray(u * 2 * x + 1))
    assert {"zero", "linear"} <= codes(added)


@pytest.mark.parametrize("slip", SPECIMENS["Huber"].slips)
def test_wrong_parameters_are_found_in_every_form(slip: str) -> None:
    right = {case.name: case for case in cases(SPECIMENS["Huber"])}
    for wrong in slips(SPECIMENS["Huber"])[slip]:
        operator = slip_operator(slip, Subject(wrong, "Huber", 0))
        outcome = attempt(operator, Subject(right[wrong.name], "Huber", 0), 0)
        assert outcome is not None
        assert outcome.state is State.CAUGHT, outcome.reason


def test_labels_of_a_transfer_allow_no_error() -> None:
    x, t = np.float32([0.5, -0.25, 2.0]), np.float32([0.0, 1.0, 1.0])

    def slopes(x: np.ndarray, t: np.ndarray) -> np.ndarray:
        return np.where(t == 1, -x, x)

    assert gradcheck.check_transfer(slopes, slopes, x, t)
    assert not gradcheck.check_transfer(slopes, lambda x, t: x, x, t)


@pytest.mark.parametrize("specimen", [s for s in ZOO if s.product is not None], ids=lambda s: s.name)
def test_curvature_of_the_zoo(specimen: Specimen) -> None:
    for case in cases(specimen):
        if case.check in ("check_hvp", "check_hessian_diag"):
            assert case.run().verdict is Verdict.PASS


def test_an_operator_that_changes_nothing_does_not_count() -> None:
    outcome = attempt(Operator("none", "gross value", "", lambda call: call.g), subject("log cosh", "mean"), 0)
    assert outcome is not None
    assert outcome.state is State.EQUAL


def test_what_is_below_the_resolution_is_told_with_the_number() -> None:
    operator = Operator("tiny", "subtle value", "", lambda call: call.g * (1 + 1e-13))
    outcome = attempt(operator, subject("log cosh", "mean"), 0)
    assert outcome is not None
    assert outcome.state is State.BELOW
    assert "1.0e-13" in outcome.reason


def test_a_missed_fault_fails_the_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    passed = Result("", Verdict.PASS, resolution=1e-9, resolution_entry=1e-9)

    def attempted(case: Case) -> None:
        if isinstance(case.arguments, dict) and case.arguments.get("grad") is not None:
            case.arguments["grad"](case.arguments["x"], *case.arguments["args"])

    monkeypatch.setattr(Case, "run", lambda case, seed=0: (attempted(case), passed)[1])
    monkeypatch.setattr(selftest, "zoo", lambda: {"root": list(cases(SPECIMENS["root"]))[:1]})
    assert selftest.main(["--zoo-only", "-k", "sign"]) == 1
    assert "MISSED sign" in capsys.readouterr().out


def test_a_right_gradient_that_fails_fails_the_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = {"log cosh": [case for cases in slips(SPECIMENS["squared"]).values() for case in cases][:1]}
    monkeypatch.setattr(selftest, "zoo", lambda: wrong)
    assert selftest.main(["--zoo-only", "-k", "sign"]) == 1
    assert "FALSE ALARM" in capsys.readouterr().out


def test_interrupts_leave_what_there_is(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*arguments: Any, **more: Any) -> Iterator[Outcome]:
        yield planted("sign")
        raise KeyboardInterrupt

    monkeypatch.setattr(selftest, "explore", interrupted)
    monkeypatch.setattr(selftest, "zoo", lambda: {"squared": zoo()["squared"]})
    assert selftest.main(["--zoo-only"]) == 130
    assert "INTERRUPTED: 1 of 1 faults found" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments", [["--seed", "-1"], ["-k", "nothing of this"], ["-k", "("], ["no_such_suite"], ["--json", "/no/folder/x.json"]]
)
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert selftest.main([*arguments, *([] if "no_such_suite" in arguments else ["--zoo-only"])]) == 2
    assert capsys.readouterr().err.startswith("gradcheck selftest: ")


def test_suites_are_planted_into(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "some_suite.py"
    file.write_text(
        "import numpy as np\n"
        "case = dict(name='cube', arguments=dict(f=lambda x: np.sum(x**3), grad=lambda x: 3 * x**2, x=[1.0, 2.0, -3.0]),\n"
        "            labels={'loss': 'cube'})\n"
        "skipped = dict(case, name='elsewhere', labels={'loss': 'cube', 'skip': 'no device'})\n"
        "suite = [case, skipped]\n"
    )
    assert selftest.main([f"{file}:suite", "-k", "cube and (sign or half)"]) == 0
    text = capsys.readouterr().out
    assert all(len(line) <= 120 for line in text.splitlines()[:20])
    assert "PASSED: 3 of 3" in text
