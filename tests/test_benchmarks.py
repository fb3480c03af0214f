"""The benchmarks of speed: what they measure, whom they believe, and what they call worse."""

import json
import os
import subprocess
import sys
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numba
import numpy as np
import pytest

import nlosses as nl
from benchmarks import __main__ as program
from benchmarks import _cases, _compare, _contenders, _limit, _machine, _numpy, _session, _tables, _timing, readme
from benchmarks._cases import Case, Wrong

ROOT = Path(__file__).parents[1]
SMALL = {"elementwise": ((70,), (6, 4)), "classwise": ((9, 4), (2, 3, 2, 4))}


def small_cases(loss):
    """Every option, reduction and precision of a loss, in small."""
    every = (case for case in _cases.losses() if case.loss == loss)
    return list(dict.fromkeys(replace(case, shape=shape) for case in every for shape in SMALL[case.spec.family]))


def results(**seconds):
    """A run of one case."""
    record = {"name": "a case", "bytes": 10**7, "seconds": seconds, "spread": dict.fromkeys(seconds, 0.05)}
    return {"facts": dict.fromkeys(("date", "machine", "threads", "versions", "load"), "same"), "cases": [record]}


# --- what is measured ---------------------------------------------------------------------------------------------------


def test_the_cases_cover_the_registry(loss):
    cases = [case for case in _cases.losses() if case.loss == loss.__name__]
    spec = loss.spec
    for dtype in _cases.DTYPES:
        of_dtype = [case for case in cases if case.dtype == dtype]
        assert {case.reduction for case in of_dtype} == set(spec.reductions)
        assert {case.option for case in of_dtype} == {"", *_cases.options(spec)}
        assert {case.shape for case in of_dtype} >= set(_cases.SHAPES[spec.family])
    signature = set(spec.options) - {"size_average", "reduce", "reduction"}
    assert set(_cases.options(spec)) - set(_cases.TARGETS) == signature
    assert {case.loss for case in _cases.losses(quick=True)} == set(nl.LOSSES)


def test_names_are_unique():
    names = [case.name for case in _cases.losses()]
    assert len(set(names)) == len(names)


def test_headline_is_part_of_all_losses():
    assert set(_cases.headline()) <= set(_cases.losses())


def test_numpy_agrees_with_differences_of_the_reference(loss):
    """Two routes to every result: NumPy's formulas, and differences or the family's formula on the declared reference."""
    for case in small_cases(loss.__name__):
        problem = case.problem(seed=1)
        _cases.verify(problem, _numpy.call(problem)(), _cases.reference(problem))


def test_data_are_of_the_domain(loss):
    problem = Case(loss.__name__, SMALL[loss.spec.family][0]).problem()
    assert problem.x.dtype == np.float32
    assert problem.x.std() > 0
    assert loss.spec.input.low <= problem.x.min() <= problem.x.max() <= loss.spec.input.high


def test_the_limit_reads_and_writes_everything():
    problem = Case("mse_loss", (1001,), "float64", "weight", "none").problem()
    reads = [_limit.words(a) for a in problem.reads]
    assert [a.size for a in reads] == [1001] * 3
    writes = [np.zeros(n // 8, np.uint64) for n in problem.written]
    _limit._move(reads, writes, 7)
    assert all(a.all() for a in writes)
    for a in reads:  # that every part is read shows in what is written
        before = [w.copy() for w in writes]
        a[-1] ^= np.uint64(1 << 60)
        _limit._move(reads, writes, 7)
        assert any((w != b).any() for w, b in zip(writes, before, strict=True))


# --- who is believed -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", ["value", "one entry", "precision", "shape"])
def test_a_wrong_result_is_rejected(wrong, dtype):
    problem = Case("cross_entropy", (9, 4), np.dtype(dtype).name).problem()
    expected = _cases.reference(problem)
    value, grad = _numpy.call(problem)()
    _cases.verify(problem, (value, grad), expected)
    if wrong == "value":
        value *= 1.001
    elif wrong == "one entry":
        grad[3, 2] += np.abs(grad).max() / 1000
    elif wrong == "precision":
        grad = grad.astype(np.float16 if dtype is np.float32 else np.float32)
    else:
        grad = grad.reshape(-1)
    with pytest.raises(Wrong):
        _cases.verify(problem, (value, grad), expected)


class Fake:
    """A contender that is right, or is not."""

    def __init__(self, factor):
        self.factor = factor

    def calls(self, problem):
        value, grad = _numpy.call(problem)()
        return {"fake": lambda: (value, self.factor * grad)}


def test_a_wrong_peer_is_left_out_and_nlosses_may_not_be_wrong():
    problem = Case("mse_loss", (50,)).problem()
    session = _session.Session([Fake(1), Fake(1.01)], 1, 1, 0, 0)
    assert set(session.verified(problem)) == {"fake"}
    assert len(session.left_out) == 1
    assert "mse_loss 50 float32: relative error 1.0e-02 of the gradient" in session.left_out[0]
    with pytest.raises(Wrong):
        _session.Session([Fake(1.01)], 1, 1, 0, 0).verified(problem)


# --- times ---------------------------------------------------------------------------------------------------------------


def test_contenders_take_turns():
    order = []
    found = _timing.measure({name: lambda name=name: order.append(name) for name in "abc"}, 3, 0, lambda: None)
    assert {name: len(minima) for name, minima in found.items()} == dict.fromkeys("abc", 3)
    turns = [name for name, before in zip(order, ["", *order], strict=False) if name != before]
    assert "".join(turns) == "abc" + "abc" + "bca" + "cab"  # a first look at all, then three rounds


def test_more_rounds_where_it_is_not_plain_who_is_faster():
    """Whoever it is, and not for ever."""
    assert _timing.apart([1.0, 2.0], [2.5, 3.0])
    assert _timing.apart([2.5, 3.0], [1.0, 2.0])
    assert not _timing.apart([1.0, 2.6], [2.5, 3.0])
    for enough, rounds in ((0, 3), (6, 6), (99, 3 * _timing.MORE)):
        found = _timing.measure({"a": int, "b": int}, 3, 0, lambda: None, lambda minima, n=enough: len(minima["a"]) >= n)
        assert {name: len(minima) for name, minima in found.items()} == {"a": rounds, "b": rounds}
    times = {"nlosses": [1.0, 2.0], "jax": [3.0, 4.0], "limit, kept": [1.5, 1.5]}
    assert _session.settled(times)
    assert not _session.settled(times | {"numpy": [1.5, 9.0]})
    assert _session.settled(times | {"numpy": [0.5, 0.9]})


def test_excerpts_are_first_positions_of_so_many_bytes():
    for case in (Case("mse_loss", (100_000,)), Case("cross_entropy", (900, 50)), Case("cross_entropy", (2, 3, 100, 41))):
        problem = case.problem()
        excerpt = problem.excerpt(problem.bytes // 10)
        assert 0.9 <= 10 * excerpt.bytes / problem.bytes <= 1
        n = len(excerpt.x)
        x, t = (a[:n, :, : excerpt.x.shape[2]] if a.ndim == 4 else a[:n] for a in (problem.x, problem.t))
        np.testing.assert_array_equal(excerpt.x, x)
        np.testing.assert_array_equal(excerpt.t, t[:, : excerpt.x.shape[2]] if x.ndim == 4 else t)
        assert excerpt.case.shape == excerpt.x.shape
    assert Case("mse_loss", (1000,), option="weight").problem().excerpt(100) is None
    soft = Case("cross_entropy", (2, 3, 100, 41), option=_cases.PROBABILITIES).problem()
    assert soft.excerpt(soft.bytes // 10).t.shape == soft.excerpt(soft.bytes // 10).x.shape == (1, 3, 20, 41)
    assert Case("cross_entropy", (3, 1000)).problem().excerpt(9).x.shape == (1, 1000)


def test_what_falls_short_of_the_limit():
    seconds = {"limit, kept": 8.0, "nlosses": 10.0, "nlosses, out=": 9.0, "nlosses, in the cache": 9.5}
    record = {"family": "elementwise", "bytes": 10**8, "seconds": seconds}
    assert _tables.short_of_aim([record]) == [(record, [0.8, pytest.approx(8 / 9), 0.95])]
    assert not _tables.short_of_aim([record | {"family": "classwise"}])
    visits = [seconds | {"limit, kept": limit} for limit in (9.5, 9.5, 1.0, 9.6)]  # one of them, and the first, disturbed
    assert not _tables.short_of_aim([record | {"again": visits}])
    del seconds["nlosses, in the cache"]  # it fits
    assert not _tables.short_of_aim([record])


def test_spread_forgives_one_disturbed_round_of_many():
    assert _timing.spread([1.0] * 8 + [5.0]) == 0
    assert _timing.spread([1.0, 1.0, 1.5]) == 0.5


def test_counts_of_threads():
    assert _session.counts(1) == [1]
    assert _session.counts(6) == [1, 2, 4, 6]


def test_means_are_geometric_and_of_what_exists():
    assert _tables.mean([2.0, None, 8.0]) == pytest.approx(4)
    assert _tables.mean([None]) is None


# --- comparison of runs --------------------------------------------------------------------------------------------------


def test_a_planted_regression_is_found(capsys):
    old = results(nlosses=1.0, jax=2.0, **{"limit, kept": 0.5})
    new = json.loads(json.dumps(results(nlosses=1.5, jax=2.0, **{"limit, kept": 0.5})))
    worse = [q for q in _compare.quotients(old, new, 0.25) if q.regressed]
    assert {(q.other, q.now / q.before) for q in worse} == {("jax", 1.5), ("limit, kept", 1.5)}
    assert _compare.show(old, new, 0.25)
    assert "+50 %" in capsys.readouterr().out


def test_noise_is_no_regression():
    old = results(nlosses=1.0, jax=2.0)
    assert not _compare.show(old, results(nlosses=1.2, jax=2.0), 0.25)
    assert not _compare.show(old, results(nlosses=2.0, jax=4.0), 0.25)  # all on a slower machine
    noisy = results(nlosses=1.5, jax=2.0)
    noisy["cases"][0]["spread"]["nlosses"] = 0.6
    assert not _compare.show(old, noisy, 0.25)


def test_cases_of_one_run_alone_are_not_compared():
    other = deepcopy(results(nlosses=9.0, jax=2.0))
    other["cases"][0]["name"] = "another"
    assert not list(_compare.quotients(results(nlosses=1.0, jax=2.0), other, 0.25))


def test_readme_has_the_figures_of_the_run_that_is_kept():
    text = readme.README.read_text()
    assert text.count(readme.BEGIN) == text.count(readme.END) == 1
    assert text.partition(readme.BEGIN)[2].partition(readme.END)[0] == readme.block(json.loads(readme.RUN.read_text()))
    of_gpu = text.partition(readme.GPU_BEGIN)[2].partition(readme.GPU_END)[0]
    assert of_gpu == readme.gpu_block(json.loads(readme.GPU_RUN.read_text()))


# --- the program ---------------------------------------------------------------------------------------------------------


def run(*arguments):
    command = [sys.executable, "-W", "error", "-m", "benchmarks", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"}, check=False)


def test_a_quick_run_from_end_to_end(tmp_path):
    file = tmp_path / "run.json"
    arguments = ["--quick", "--part", "losses", "--case", "mse_loss 1000 float32", "--peers", "numpy", "--threads", "1"]
    done = run(*arguments, "--json", str(file))
    assert done.returncode == 0, done.stderr
    assert "Geometric means" in done.stdout
    found = json.loads(file.read_text())
    assert [record["name"] for record in found["cases"]] == ["mse_loss 1000 float32"]
    own = {"nlosses", "nlosses, out=", "nlosses, out=input"}
    assert set(found["cases"][0]["seconds"]) == own | {"numpy", "limit, kept"}
    assert set(found["rates"]) == {"copy", "triad"}
    found["cases"][0]["seconds"] |= dict.fromkeys(("nlosses", "nlosses, out="), 1e-9)  # once it was very fast
    found["cases"][0]["spread"] = {}
    file.write_text(json.dumps(found))
    done = run(*arguments, "--compare", str(file))
    assert done.returncode == 1, done.stderr
    assert "Worse than before" in done.stdout


def test_a_visit_adds_times_of_nlosses_and_the_limit():
    threads = numba.get_num_threads()  # what is set stays so
    session = _session.Session([_contenders.Own(threads)], threads, rounds=1, share=0, seed=0, cache=50_000)
    case = Case("mse_loss", (10_000,))
    record = session.record(case, lambda: None)
    assert "again" not in record
    session.visit(case, lambda: None)
    session.visit(case, lambda: None)
    names = {"nlosses", "nlosses, out=", "nlosses, in the cache", "limit, kept"}
    assert [set(seconds) for seconds in record["again"]] == [names] * 2
    assert all(t > 0 for seconds in record["again"] for t in seconds.values())


def test_bad_calls():
    assert run("--peers", "nobody").returncode == 2
    assert run("--part", "losses", "--case", "no such case", "--peers", "").returncode == 2


def test_an_interrupt_keeps_what_was_measured(tmp_path, monkeypatch, capsys):
    seen = []

    def record(session, case, tick):
        seen.append(case)
        if len(seen) > 2:
            raise KeyboardInterrupt
        seconds = {"nlosses": 1e-6, "nlosses, out=": 1e-6}
        facts = {"loss": case.loss, "shape": case.shape, "dtype": case.dtype, "option": "", "reduction": "mean"}
        return {"name": case.name, **facts, "bytes": 1, "elements": case.size, "seconds": seconds, "spread": {}}

    monkeypatch.setattr(_machine, "set_threads", lambda threads: None)
    monkeypatch.setattr(_limit, "rates", lambda share: {})
    monkeypatch.setattr(_session.Session, "record", record)
    file = tmp_path / "run.json"
    threads = str(numba.get_num_threads())  # what it sets stays so
    assert program.main(["--part", "headline", "--peers", "", "--threads", threads, "--json", str(file)]) == 130
    assert [r["name"] for r in json.loads(file.read_text())["cases"]] == [case.name for case in seen[:2]]
    assert "Interrupted" in capsys.readouterr().err


def test_plots(tmp_path):
    pytest.importorskip("matplotlib", reason="plots are drawn with the bench extra")
    from benchmarks import _plots

    cases, names = [], []
    for case in (Case("mse_loss", (10,)), Case("mse_loss", (10**7,)), Case("nll_loss", (5, 4))):
        facts = {"loss": case.loss, "shape": list(case.shape), "dtype": case.dtype, "option": "", "reduction": "mean"}
        seconds = dict.fromkeys(_tables.CONTENDERS, 1e-9 * case.size)
        cases.append({"name": case.name, **facts, "bytes": 12 * case.size, "elements": case.size, "seconds": seconds})
        names.append(case.name)
    found = {
        "facts": {"machine": "m", "date": "d", "threads": "2", "load": "0", "versions": "v"},
        "parts": {"losses": names, "scaling": names}, "cases": cases,
        "threads": [{"name": "a", "threads": n, "seconds": {"nlosses": 1 / n}} for n in (1, 2)],
        "process": {"first": {"nlosses": {"import": [1.0, 2.0], "cold": [3.0], "warm": [1.0]}}},
    }  # fmt: skip
    files = _plots.draw(found, tmp_path / "new")
    assert {file.name for file in files} == {
        f"speed-{name}.{kind}" for name in ("time-float32", "limit", "scaling", "process") for kind in ("png", "svg")
    }
    assert all(file.stat().st_size > 5000 for file in files)
