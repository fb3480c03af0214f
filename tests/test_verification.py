"""The suite that gradients are verified with: complete, and with samples that reach every branch, kink and mask."""

from __future__ import annotations

import dis
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_extension import focal, huber

import nlosses as nl
from nlosses import _verification as verification
from nlosses._cpu._jit import reachable
from nlosses._verification import _losses
from nlosses._verification import _samples as samples

Case = dict[str, Any]

CHECKS = {"check", "check_hvp", "check_hessian_diag", "check_transfer"}
LABELS = {"loss", "reduction", "dtype", "device", "derivative", "layout", "options"}
ALL = list(verification.suite())
CASES = [case for case in ALL if case["labels"]["device"] == "cpu"]
DEVICE = [case for case in ALL if case["labels"]["device"] == "cuda"]
QUICK = {case["name"]: case for case in CASES if case["quick"]}
LOSS_CASES = [case for case in QUICK.values() if case["labels"]["loss"] in nl.LOSSES]
USERS = {case["name"]: case for loss in (huber, focal) for case in verification.cases_of(loss)}


def labels(cases: list[Case], *names: str) -> set[Any]:
    return {tuple(case["labels"][name] for name in names) for case in cases}


@cache
def made(name: str) -> dict[str, Any]:
    """Arguments of a quick case."""
    return QUICK[name]["arguments"](np.random.default_rng([0, *name.encode()]))


def points(case: Case, n: int = 2) -> Iterator[tuple[np.ndarray, ...]]:
    """Where a quick case is checked: the first point and drawn ones."""
    arguments, rng = made(case["name"]), np.random.default_rng(0)
    yield arguments["x"], *arguments.get("args", ())
    for _ in range(1, n):
        point = arguments["sampler"](rng)
        yield point if isinstance(point, tuple) else (point,)


def inputs_and_targets(loss: nl.Loss, **wanted: str) -> Iterator[tuple[Case, np.ndarray, np.ndarray]]:
    """All points of the quick cases with these labels."""
    for case in LOSS_CASES:
        if case["labels"] == {**case["labels"], "loss": loss.__name__, **wanted}:
            derivative = case["labels"]["derivative"]
            for x, *rest in points(case):
                if derivative == "target":
                    yield case, rest[0], x
                else:
                    yield case, x, rest[derivative == "hvp" and case["check"] == "check_transfer"]


def options_of(case: Case) -> dict[str, Any]:
    """Values of the options of a quick case, which come first out of its generator."""
    own = case["arguments"]
    rng = np.random.default_rng([0, *case["name"].encode()])
    return samples.option_values(own.loss.spec, own.options, own.shape, rng)


# --- the list of cases -------------------------------------------------------------------------------------------------


def test_well_formed():
    names = [case["name"] for case in ALL]
    assert len(set(names)) == len(names)
    assert names == [case["name"] for case in verification.suite()]
    assert 1500 <= len(CASES) <= 3000
    assert 150 <= len(QUICK) <= 250
    assert 1500 <= len(DEVICE) <= 3500
    assert 70 <= sum(case["quick"] for case in DEVICE) <= 130
    for case in ALL:
        assert set(case) == {"name", "check", "arguments", "labels", "quick"}
        assert case["check"] in CHECKS
        assert set(case["labels"]) - {"skip", "environment", "note"} == LABELS
        assert all(isinstance(label, str) and label for label in case["labels"].values())
        assert case["name"].startswith(f"{case['labels']['loss']}[{case['labels']['reduction']}")


@pytest.mark.parametrize("cases", [CASES, list(QUICK.values())], ids=["full", "quick"])
def test_complete(cases, loss, dtype):
    spec = loss.spec
    derivatives = {"input", "hvp", "hessian_diag"}
    if spec.math.target_slope or spec.class_probabilities:
        derivatives.add("target")
    expected = set(product([loss.__name__], spec.reductions, [np.dtype(dtype).name], derivatives))
    found = labels(cases, "loss", "reduction", "dtype", "derivative")
    assert {f for f in found if f[0] == loss.__name__ and f[2] == np.dtype(dtype).name} == expected
    mine = [case for case in cases if case["labels"]["loss"] == loss.__name__]
    options = {name for (together,) in labels(mine, "options") for name in together.split("+")}
    given = {name for name in spec.options if name not in ("reduction", *nl._spec.LEGACY)}
    assert options == given | {"defaults"} | ({"probabilities"} if spec.class_probabilities else set())
    assert labels(mine, "layout") == {(layout,) for layout in _losses.LAYOUTS}
    assert len({case["arguments"].shape for case in mine}) >= len(verification.SHAPES[spec.family])


def test_functions_are_there():
    names = ("sigmoid", "log_sigmoid", "softmax", "log_softmax")
    for cases in (CASES, QUICK.values()):
        mine = [case for case in cases if case["labels"]["loss"] in names]
        assert labels(mine, "loss", "dtype") == set(product(names, ("float64", "float32")))
        assert {case["arguments"].axis for case in mine} == {None, 0, 1, 2}
    for cases in (DEVICE, [case for case in DEVICE if case["quick"]]):
        mine = [case for case in cases if case["labels"]["loss"] in names]
        assert labels(mine, "loss", "dtype") == set(product(names, ("float64", "float32", "float16")))


# --- device kernels ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("quick", [False, True], ids=["full", "quick"])
def test_complete_on_the_device(quick, loss):
    spec = loss.spec
    mine = [case for case in DEVICE if case["labels"]["loss"] == loss.__name__ and case["quick"] >= quick]
    assert {case["check"] for case in mine} == {"check_transfer"}
    derivatives = {"input", "hvp", "hessian_diag"}
    if spec.math.target_slope or spec.class_probabilities:
        derivatives.add("target")
    dtypes = ("float64", "float32", "float16")
    assert labels(mine, "dtype", "derivative") == set(product(dtypes, derivatives))
    assert labels(mine, "reduction") == {(reduction,) for reduction in spec.reductions}
    layouts = {(layout,) for layout in _losses.LAYOUTS if layout != "read-only"}  # nothing on a device is read-only
    assert labels([case for case in DEVICE if case["quick"] >= quick], "layout") == layouts
    assert len(labels(mine, "layout")) >= len(layouts) - quick
    assert {case["arguments"].shape for case in mine} >= set(verification.SHAPES[spec.family])
    options = {name for (together,) in labels(mine, "options") for name in together.split("+")}
    given = {name for name in spec.options if name not in ("reduction", *nl._spec.LEGACY)}
    assert options == given | {"defaults"} | ({"probabilities"} if spec.class_probabilities else set())


@pytest.mark.skipif("skip" not in DEVICE[0]["labels"], reason="a GPU is here, or the simulator is on")
@pytest.mark.parametrize(
    ("options", "word"),
    [
        ((), "1 not run: no GPU that Numba can use; --device cuda verifies"),
        (("--device", "cuda"), "1 run in Numba's simulator, not on a GPU"),
    ],
)
def test_without_a_gpu_the_device_is_simulated_where_asked_for(options, word):
    selection = ["--loss", "mse_loss", "--dtype", "float32", "-k", "target and cuda", "--no-progress"]
    command = [sys.executable, "-m", "gradcheck", "nlosses._verification:suite", *selection, *options]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(nl.__file__).parents[1])
    assert done.returncode == 0, done.stdout + done.stderr
    assert word in done.stdout


# --- each case ---------------------------------------------------------------------------------------------------------


def run_once(case: Case, arguments: dict[str, Any]) -> None:
    """Call everything once; results are finite, of the right type, and of the shapes that the checks rely on."""
    x, args, check = arguments["x"], arguments.get("args", ()), case["check"]
    assert {"x", "sampler"} < set(arguments)
    assert all(a.dtype == case["labels"]["dtype"] for a in (x, *args) if a.dtype.kind == "f")
    if check == "check_transfer":
        for function in (arguments["reference"], arguments["candidate"]):
            result = function(x, *args)
            for part in result if isinstance(result, tuple) else (result,):
                assert part.dtype == np.float32
                assert np.isfinite(part).all()
        return
    low, high = arguments.get("domain", (-np.inf, np.inf))
    assert (x > low).all()
    assert (x < high).all()
    if check == "check_hvp":
        gradients = [arguments["grad"](x, *args), arguments["hvp"](x, np.ones_like(x), *args)]
    elif check == "check_hessian_diag":
        gradients = [arguments["grad"](x, *args), arguments["hessian_diag"](x, *args)]
    else:
        value = arguments["f"](x, *args)
        value, *gradients = value if arguments.get("value_and_grad") else (value,)
        assert np.isfinite(value).all()
        if arguments.get("separable") is not None:
            assert value.shape == tuple(np.delete(x.shape, arguments["separable"]))
        out = {arguments["out"]: np.full_like(x, np.nan)} if "out" in arguments else {}
        if "vjp" in arguments:
            gradients.append(arguments["vjp"](np.ones_like(value), x, *args, **out))
        else:
            assert np.ndim(value) == 0
            gradients.append(arguments["grad"](x, *args, **out))
        if "kinks" in arguments:
            gradients.append(np.nan_to_num(arguments["kinks"](x, *args)))
    for gradient in gradients:
        assert gradient.shape == x.shape
        assert gradient.dtype == x.dtype
        assert np.isfinite(gradient).all()


@pytest.mark.parametrize("name", QUICK)
def test_quick_cases_run(name):
    run_once(QUICK[name], made(name))


@pytest.mark.parametrize("name", [name for name, case in USERS.items() if case["quick"]])
def test_losses_of_users_are_covered(name):
    case = USERS[name]
    run_once(case, case["arguments"](np.random.default_rng(0)))


def test_cases_of_users():
    cases = list(USERS.values())
    derivatives = {"input", "hvp", "hessian_diag"}  # neither has a slope with respect to the target
    assert labels(cases, "loss", "derivative") == set(product(("huber", "focal"), derivatives))
    assert {"weight+delta", "weight+ignore_index"} < {options for (options,) in labels(cases, "options")}


# --- what the samples reach --------------------------------------------------------------------------------------------


class Branches:
    """Records which way each conditional jump of some functions goes."""

    def __init__(self, codes: set[Any]) -> None:
        self.codes = codes
        self.after: dict[Any, set[int]] = defaultdict(set)

    def __call__(self, frame: Any, event: str, argument: Any) -> Any:
        if frame.f_code not in self.codes:
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        last = None

        def follow(frame: Any, event: str, argument: Any) -> Any:
            nonlocal last
            if event == "opcode":
                self.after[frame.f_code, last].add(frame.f_lasti)
                last = frame.f_lasti
            return follow

        return follow

    def missed(self) -> list[str]:
        """Conditional jumps that always go one way."""
        return [
            f"{code.co_name}, line {at.positions.lineno if at.positions else '?'}"
            for code in self.codes
            for at in dis.get_instructions(code)
            if "POP_JUMP" in at.opname and len(self.after[code, at.offset]) < 2
        ]


def test_samples_reach_every_branch(loss):
    spec = loss.spec
    maths = {None: spec.math, **spec.variants}
    functions = [f for m in maths.values() for f in (m.point, m.target_slope, m.curvature) if f]
    codes = {g.__code__ for f in functions for g in reachable(f) if g.__module__ == spec.declaration.__module__}
    branches = Branches(codes)
    before = sys.gettrace()
    for case, x, t in inputs_and_targets(loss):
        if spec.family == "classwise":
            continue
        options = case["arguments"].options
        math = next((maths[name] for name in spec.variants if name in options), spec.math)
        function = {"input": math.point, "target": math.target_slope}.get(case["labels"]["derivative"], math.curvature)
        parameters = [1.5 if name in options else spec.options[name] for name in spec.parameters]
        try:
            sys.settrace(branches)
            for pair in zip(x.astype(float).flat, t.astype(float).flat, strict=True):
                function(*map(float, pair), *parameters)
        finally:
            sys.settrace(before)
    if spec.family == "classwise":  # straight lines
        assert all("POP_JUMP" not in at.opname for code in codes for at in dis.get_instructions(code))
    assert branches.missed() == []


def test_samples_reach_kinks_from_both_sides(loss, dtype):
    if not loss.spec.kinks:
        pytest.skip("no kinks are declared")
    for derivative in ("input", "target"):
        sides = set()
        for _, x, t in inputs_and_targets(loss, dtype=np.dtype(dtype).name, derivative=derivative):
            sides |= set(np.sign(x[..., None] - samples.kinks(loss.spec, t)).flat)
        assert sides == {-1, 0, 1}
    for derivative in ("hvp", "hessian_diag"):
        for _, x, t in inputs_and_targets(loss, derivative=derivative):
            assert (x[..., None] != samples.kinks(loss.spec, t)).all()


def test_declared_kinks_are_zero():
    declared = [made(name)["kinks"](*point) for name in QUICK if "kinks" in made(name) for point in points(QUICK[name])]
    values = np.concatenate([d.ravel() for d in declared])
    assert set(values[~np.isnan(values)]) == {0.0}


def test_samples_reach_the_ends_of_domains(loss):
    for position, interval in enumerate((loss.spec.input, loss.spec.target)):
        if interval.bounded:
            reached = {v for _, *pair in inputs_and_targets(loss) for v in pair[position].flat}
            assert {interval.low, interval.high} <= reached


def test_samples_reach_masks_ties_and_certainty(loss, dtype):
    spec = loss.spec
    if spec.family != "classwise":
        pytest.skip("no classes")
    seen = defaultdict(set)
    for case, x, t in inputs_and_targets(loss, dtype=np.dtype(dtype).name):
        options = options_of(case)
        rows = np.moveaxis(x, 1, -1).reshape(-1, x.shape[1]) if x.ndim > 1 else x[None]
        top = rows.max(axis=-1, keepdims=True)
        seen["ties"] |= set((rows == top).sum(axis=-1).tolist())
        seen["gaps"] |= {float(g) for g in (top - rows).ravel() if g > 30}
        if t.dtype.kind == "f":
            seen["probabilities"] |= {float(v) for v in t.flat}
            continue
        masked = t == options.get("ignore_index", -100)
        if "ignore_index" in options:
            assert 0 < masked.sum() < masked.size
        if "weight" in options and x.ndim > 1:
            assert (options["weight"][t[~masked]] == 0).any()
            assert (options["weight"][t[~masked]] > 0).any()
        counted = np.unique(t[~masked])
        assert len(counted) >= min(masked.size - masked.sum(), x.shape[min(1, x.ndim - 1)]) - 1
        seen["certain"] |= set((rows.argmax(-1) == t.ravel())[(top - np.median(rows, -1, keepdims=True) > 30).ravel()].tolist())
    assert {1, 2} < seen["ties"]  # one largest class, two, and more
    assert max(seen["gaps"]) > 700
    assert min(seen["gaps"]) < 60
    assert seen["certain"] == {True, False}
    if spec.class_probabilities:
        assert {0.0, 1.0} < seen["probabilities"]


def test_import_loads_no_compiler():
    code = "import sys, nlosses._verification; assert not {'numba', 'gradcheck'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
