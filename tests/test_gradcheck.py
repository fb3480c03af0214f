"""The verdicts of gradcheck: what must pass, what must fail, what it must not claim to know."""

from __future__ import annotations

import json
import math
import sys
import threading

import numpy as np
import pytest
from scipy.special import xlogy

import gradcheck
from benchmarks._correct import correct_gradients
from benchmarks.trust import calibration
from gradcheck import GradientError, Verdict, check, check_hessian_diag, check_hvp, check_transfer
from gradcheck._zoo import ZOO

RNG = np.random.default_rng(0)


def squares(x):
    return float(np.sum(x**2))


def twice(x):
    return 2 * x


X = np.array([[0.5, -1.0, 2.0], [3.0, 0.25, -4.0]])


def logistic(x, t):
    return float(np.mean(np.logaddexp(0, x) - x * t))


def logistic_grad(x, t):
    return (1 / (1 + np.exp(-x)) - t) / x.size


def logistic_sample(n, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=n, scale=2), (rng.random(n) < 0.5).astype(float)


@pytest.mark.parametrize("specimen", ZOO, ids=lambda specimen: specimen.name)
@pytest.mark.parametrize("way", ["mean", "entries"])
def test_correct_gradients_pass(specimen, way):
    rng = np.random.default_rng(1)
    x, t = specimen.draw_x(rng, (6, 5)), specimen.draw_t(rng, (6, 5))
    if way == "mean":
        result = check(specimen.mean, specimen.mean_gradient, x, t, domain=specimen.domain)
    else:
        axes = (1,) if specimen.rowwise else ()
        result = check(specimen.terms, None, x, t, vjp=specimen.vjp, separable=axes, domain=specimen.domain)
    assert result.verdict is Verdict.PASS, result
    assert result.resolution < 1e-6


def test_hard_correct_gradients_never_fail():
    verdicts = [(check(c.f, c.grad, c.x, domain=c.domain, seed=i), c) for i, c in enumerate(correct_gradients(240, seed=3))]
    for result, case in verdicts:
        assert result.verdict is not Verdict.FAIL, (case.name, case.hard, str(result))
    unclear = [result for result, _ in verdicts if result.verdict is Verdict.INCONCLUSIVE]
    assert len(unclear) <= 0.02 * len(verdicts)
    assert all(result.findings[-1].code in ("flat", "kink", "noise", "undefined") for result in unclear)


def test_the_truth_is_inside_of_the_intervals():
    if np.finfo(np.longdouble).nmant < 63:
        pytest.skip("long double is no longer than double here")
    found = calibration(100_000, seed=1)
    assert found["entries"] >= 100_000
    assert found["outside"] < 1e-4 * found["entries"]
    assert found["median share of the interval"] > 1e-3  # nor are they uselessly wide


@pytest.mark.parametrize("n", [5, 96, 1000, 20_000])
@pytest.mark.parametrize("kind", ["all", "one"])
def test_errors_above_the_resolution_are_caught(n, kind):
    x, t = logistic_sample(n)
    right = check(logistic, logistic_grad, x, t)
    assert right.verdict is Verdict.PASS
    place = int(np.argmax(np.abs(logistic_grad(x, t))))

    def wrong(x, t):
        g = logistic_grad(x, t)
        if kind == "all":
            g *= 1 + 2 * right.resolution
        else:
            g[place] += 2 * right.resolution_entry * np.abs(g).max()
        return g

    result = check(logistic, wrong, x, t)
    assert result.verdict is Verdict.FAIL
    if kind == "one":
        assert result.findings[0].index in ((place,), None)


@pytest.mark.parametrize("n", [300, 5000, 60_000])
@pytest.mark.parametrize("count", [1, 3])
def test_wrong_entries_are_named_in_a_number_of_steps_that_grows_with_the_logarithm(n, count):
    x, t = logistic_sample(n, seed=n)
    places = np.random.default_rng(n).choice(n, count, replace=False)

    def wrong(x, t):
        g = logistic_grad(x, t)
        g[places] *= 1.01
        return g

    result = check(logistic, wrong, x, t, points=1)
    named = {finding.index for finding in result.findings}
    assert named <= {(int(place),) for place in places}
    assert named
    assert result.evaluations < 3000 + 400 * count * math.log2(n)


def test_a_wrong_gradient_is_told_in_a_few_lines():
    def wrong(x):
        g = 2 * x
        g[1, 2] = 0.0
        return g

    result = check(squares, wrong, X, name="squares")
    text = str(result)
    assert len(text.splitlines()) < 20
    for part in ("FAIL squares", "grad[1, 2]", "analytic +0.0", "numeric -8.0", "+-", "likely: one entry", "only=(1, 2)"):
        assert part in text
    with pytest.raises(GradientError) as caught:
        result.raise_if_failed()
    assert str(caught.value) == text
    assert caught.value.result is result
    again = check(squares, wrong, X, only=(1, 2))
    assert again.findings[0].index == (1, 2)
    assert again.evaluations < result.evaluations


def test_results_are_true_only_when_they_pass():
    assert bool(check(squares, twice, X)) is True
    assert bool(check(squares, lambda x: -2 * x, X)) is False
    assert bool(check(lambda x: 3.0, lambda x: 0 * x, X)) is False
    assert not Verdict.INCONCLUSIVE


def test_a_result_becomes_json():
    result = check(squares, lambda x: np.where(x > 2.5, np.nan, 2 * x), X)
    data = json.loads(result.to_json())
    assert data["verdict"] == "fail"
    assert data["findings"][0]["index"] == [1, 0]
    assert data["findings"][0]["analytic"] is None
    assert data["schema"] == 1


def test_the_same_seed_gives_the_same_result():
    x, t = logistic_sample(400)
    first, second = (check(logistic, logistic_grad, x, t, seed=7).to_dict() for _ in range(2))
    first.pop("seconds"), second.pop("seconds")
    assert first == second


class TestModes:
    def test_value_and_gradient(self):
        assert check(lambda x: (squares(x), twice(x)), None, X, value_and_grad=True)
        assert check(lambda x: (squares(x), twice(x)), twice, X, value_and_grad=True)
        result = check(lambda x: (squares(x), twice(x)), lambda x: 2.1 * x, X, value_and_grad=True)
        assert [finding.code for finding in result.findings] == ["paths"]

    def test_several_arguments(self):
        def f(x, t):
            return float(np.sum((x - t) ** 2 * t))

        def grad(x, t):
            return 2 * (x - t) * t, -2 * (x - t) * t + (x - t) ** 2

        t = RNG.uniform(1, 2, X.shape)
        assert check(f, grad, X, t, wrt=(0, 1))
        assert check(f, lambda x, t: grad(x, t)[1], X, t, wrt=1)
        result = check(f, lambda x, t: (grad(x, t)[0], -grad(x, t)[1]), X, t, wrt=(0, 1))
        assert {finding.argument for finding in result.findings} == {1}

    def test_vector_jacobian_products(self):
        A = RNG.normal(size=(4, 6))

        def f(x):
            return A @ np.tanh(x.reshape(-1))

        def vjp(u, x):
            return ((A.T @ u) * (1 - np.tanh(x.reshape(-1)) ** 2)).reshape(x.shape)

        assert check(f, None, X, vjp=vjp)
        assert check(f, None, X, vjp=lambda u, x: vjp(u, x) * 1.00001).verdict is Verdict.FAIL

    def test_separable_looks_at_every_entry(self):
        x = RNG.normal(size=(300, 4))
        place = (123, 2)

        def vjp(u, x):
            g = u * np.cos(x)
            g[place] *= 1 + 1e-8
            return g

        result = check(np.sin, None, x, vjp=vjp, separable=())
        assert [finding.index for finding in result.findings] == [place, place]
        assert result.evaluations < 1000
        with pytest.raises(ValueError, match="depend on"):
            check(lambda x: np.sin(x + x.mean()), None, x, vjp=vjp, separable=())
        with pytest.raises(ValueError, match="shape"):
            check(lambda x: x.sum(axis=0), None, x, vjp=vjp, separable=(1,))

    def test_out(self):
        def grad(x, out=None):
            return np.multiply(2, x, out=out)

        assert check(squares, grad, X, out="out")

        def lazy(x, out=None):
            g = np.multiply(2, x, out=None)
            if out is not None:
                out[:1] = g[:1]
            return g

        result = check(squares, lazy, X, out="out")
        assert "uninitialised" in {finding.code for finding in result.findings}

    def test_settings(self):
        class Setting:
            scale = 1.0

            def __enter__(self):
                Setting.scale = 1 + 1e-15

            def __exit__(self, *_):
                Setting.scale = 1.0

        result = check(squares, lambda x: 2 * x * Setting.scale, X, settings=[Setting])
        assert {finding.code for finding in result.findings} == {"threads"}

    def test_domains_are_not_left(self):
        def f(x):
            assert ((x >= 0) & (x <= 1)).all()
            return float(np.sum(np.log(x + 1e-300) + np.log1p(-x)))

        assert check(f, lambda x: 1 / x - 1 / (1 - x), np.array([0.5, 1e-7, 1 - 1e-7]), domain=(0.0, 1.0))

    def test_the_end_of_a_domain_has_one_side(self):
        def f(x):
            assert (x >= 0).all()
            return float(np.sum(np.sqrt(x + 1)))

        result = check(f, lambda x: 0.5 / np.sqrt(x + 1), np.array([0.0, 2.0]), domain=(0.0, 10.0))
        assert result, result

    def test_undefined_at_the_point(self):
        with np.errstate(invalid="ignore"):
            result = check(lambda x: float(np.sum(np.log(x))), lambda x: 1 / x, np.array([1.0, -2.0]))
        assert result.verdict is not Verdict.PASS

    def test_further_points_stay_near(self):
        seen = []

        def f(x):
            seen.append(x.copy())
            return squares(x)

        assert check(f, twice, X, points=5)
        assert all((np.abs(x / X - 1) < 0.5).all() for x in seen)

    def test_a_sampler_decides_the_further_points(self):
        def grad(x):
            return np.where(x > 10, 0.0, 2 * x)  # wrong far away

        assert check(squares, grad, X)
        assert check(squares, grad, X, sampler=lambda rng: rng.uniform(20, 30, X.shape)).verdict is Verdict.FAIL

    @pytest.mark.parametrize("x", [np.float64(0.3), np.zeros((0, 3)), [1, 2, 3], 5])
    def test_unusual_points(self, x):
        assert check(squares, twice, x)

    @pytest.mark.parametrize("layout", ["F", "strided", "reversed", "read-only"])
    def test_layouts(self, layout):
        x = {
            "F": np.asfortranarray(X),
            "strided": np.repeat(X, 2, 1)[:, ::2],
            "reversed": X[::-1, ::-1],
            "read-only": X.copy(),
        }[layout]
        if layout == "read-only":
            x.flags.writeable = False
        assert check(squares, twice, x)


class TestKinks:
    x = np.array([0.0, 1.5, -2.0, 0.0])

    @pytest.mark.parametrize("slope", [-1.0, -0.3, 0.0, 1.0])
    def test_anything_between_the_slopes_is_right(self, slope):
        assert check(lambda x: float(np.abs(x).sum()), lambda x: np.where(x == 0, slope, np.sign(x)), self.x)

    @pytest.mark.parametrize("slope", [-1.001, 1.001, 5.0])
    def test_anything_else_is_wrong(self, slope):
        result = check(lambda x: float(np.abs(x).sum()), lambda x: np.where(x == 0, slope, np.sign(x)), self.x)
        assert result.verdict is Verdict.FAIL
        assert {finding.index for finding in result.findings} == {(0,), (3,)}

    def test_declared(self):
        def declared(x):
            return np.where(x == 0, 0.0, np.nan)

        assert check(lambda x: float(np.abs(x).sum()), np.sign, self.x, kinks=declared)
        result = check(lambda x: float(np.abs(x).sum()), lambda x: np.where(x == 0, 1.0, np.sign(x)), self.x, kinks=declared)
        assert result.findings[0].code == "convention"

    def test_forbidden(self):
        result = check(lambda x: float(np.abs(x).sum()), np.sign, self.x, kinks="forbid")
        assert {finding.index for finding in result.findings if finding.code == "kink"} == {(0,), (3,)}
        assert check(squares, twice, self.x, kinks="forbid")

    def test_ties_share_one_slope(self):
        x = np.array([3.0, 1.0, 3.0])
        assert check(lambda x: float(x.max()), lambda x: (x == x.max()) / (x == x.max()).sum(), x)
        result = check(lambda x: float(x.max()), lambda x: (x == x.max()) * 1.0, x)
        assert "tie" in {finding.code for finding in result.findings}

    @pytest.mark.parametrize("distance", [1e-3, 1e-6, 1e-9])
    def test_a_kink_nearby(self, distance):
        x = np.array([1.0 + distance, 1.0 - distance, 2.0])
        assert check(lambda x: float(np.abs(x - 1).sum()), lambda x: np.sign(x - 1), x).verdict is not Verdict.FAIL


class TestInconclusive:
    def test_a_float32_forward(self):
        result = check(lambda x: float(np.sum(x.astype(np.float32) ** 2)), twice, X + 0.1)
        assert result.verdict is Verdict.INCONCLUSIVE
        assert "double precision" in result.findings[-1].hint

    def test_a_large_offset(self):
        assert check(lambda x: 1e13 + squares(x), twice, X).verdict is Verdict.INCONCLUSIVE
        assert check(lambda x: 1e13 + squares(x), lambda x: 0 * x, X).verdict is not Verdict.PASS

    def test_noise(self):
        def f(x):
            return squares(x) * (1 + 1e-6 * math.sin(1e15 * float(x.sum())))

        result = check(f, twice, X)
        assert result.verdict is Verdict.INCONCLUSIVE
        assert result.findings[-1].code == "noise"

    def test_rtol_demands_and_does_not_forgive(self):
        assert check(squares, twice, X, rtol=1e-30).verdict is Verdict.INCONCLUSIVE
        assert check(squares, lambda x: 2.00001 * x, X, rtol=0.1).verdict is Verdict.FAIL


class TestContract:
    def codes(self, grad, **options):
        return {finding.code for finding in check(squares, grad, X.copy(), **options).findings}

    def test_input_modified(self):
        def grad(x):
            x *= 2
            return x.copy()

        assert self.codes(grad) == {"input-modified"}

    def test_aliasing(self):
        assert "aliasing" in {f.code for f in check(lambda x: 0.5 * squares(x), lambda x: x, X.copy()).findings}

    def test_overwritten(self):
        buffer = np.empty_like(X)
        assert self.codes(lambda x: np.multiply(2, x, out=buffer)) == {"overwritten"}

    def test_state(self):
        total = np.zeros_like(X)

        def grad(x):
            nonlocal total
            total = total + 2 * x
            return total

        assert "not-repeatable" in self.codes(grad)

    def test_random(self):
        rng = np.random.default_rng(0)
        assert "not-repeatable" in self.codes(lambda x: 2 * x * (1 + 1e-14 * rng.random()))
        assert self.codes(lambda x: 2 * x * (1 + 1e-16 * (rng.random() < 0)), tolerance=1e-12) == set()

    def test_float32(self):
        assert "float32" in self.codes(lambda x: (2 * x.astype(np.float32)).astype(float))

    def test_shape_and_dtype(self):
        assert self.codes(lambda x: twice(x).reshape(-1)) == {"shape"}
        assert self.codes(lambda x: twice(x).astype(np.float32)) == {"dtype"}

    def test_upstream(self):
        def f(x):
            return np.sin(x)

        assert "linear" in {k.code for k in check(f, None, X, vjp=lambda u, x: u**2 * np.cos(x)).findings}
        assert "zero" in {k.code for k in check(f, None, X, vjp=lambda u, x: u * np.cos(x) + 1e-9).findings}

    def test_threads_of_numba(self):
        numba = pytest.importorskip("numba")
        if numba.config.NUMBA_NUM_THREADS < 2:
            pytest.skip("one thread is all there is")

        def grad(x):
            return 2 * x * (1 + 1e-15 * (numba.get_num_threads() > 1))

        assert "threads" in self.codes(grad)


class TestSecondOrder:
    A = np.array([[2.0, 1.0, 0.5], [1.0, 3.0, -1.0], [0.5, -1.0, 4.0]])
    x = np.array([0.3, -1.0, 2.0])

    def grad(self, x):
        return self.A @ x + np.cos(x)

    def hvp(self, x, v):
        return self.A @ v - np.sin(x) * v

    def test_hvp(self):
        result = check_hvp(self.grad, self.hvp, self.x)
        assert result, result
        assert result.resolution < 1e-9
        assert check_hvp(self.grad, lambda x, v: self.hvp(x, v) * 1.0001, self.x).verdict is Verdict.FAIL

    def test_symmetry_and_linearity(self):
        def skew(x, v):
            return self.hvp(x, v) + np.array([v[1], -v[0], 0])

        assert "symmetry" in {f.code for f in check_hvp(self.grad, skew, self.x).findings}
        assert "linear" in {f.code for f in check_hvp(self.grad, lambda x, v: self.hvp(x, v) * v, self.x).findings}

    def test_diagonal(self):
        def diagonal(x):
            return np.diag(self.A) - np.sin(x)

        assert check_hessian_diag(self.grad, diagonal, self.x)
        assert check_hessian_diag(self.grad, lambda x: np.diag(self.A) + 0 * x, self.x).verdict is Verdict.FAIL
        assert check_hessian_diag(np.cos, lambda x: -np.sin(x), RNG.normal(size=(200, 3)), separable=())

    def test_zero_curvature(self):
        assert check_hessian_diag(np.sign, lambda x: 0 * x, self.x, separable=())
        assert check_hessian_diag(np.sign, lambda x: 0 * x + 0.1, self.x, separable=()).verdict is Verdict.FAIL


class TestTransfer:
    x = np.float32(RNG.normal(size=500))

    def test_units_in_the_last_place(self):
        assert check_transfer(np.exp, np.exp, self.x)
        result = check_transfer(np.exp, lambda x: np.exp(x) * np.float32(1 + 3e-6), self.x)
        assert result.verdict is Verdict.FAIL
        assert "units in the last place" in result.findings[0].message

    def test_ill_conditioned_results_may_differ(self):
        def sine(x):
            return np.sin(x * x.dtype.type(1000))

        assert check_transfer(sine, sine, self.x)

    def test_at_the_ends_of_a_domain(self):
        # Beyond them the result is undefined, and says nothing of how well conditioned it is.
        x = np.repeat(np.linspace(0, 1, 24, dtype=np.float32), 9)
        offset = -np.sum(xlogy(x, x) + xlogy(1 - x, 1 - x))

        def cancelling(x):
            return np.sum(xlogy(x, x) + xlogy(1 - x, 1 - x)) + x.dtype.type(offset)

        assert check_transfer(cancelling, cancelling, x)
        assert check_transfer(cancelling, lambda x: cancelling(x) + np.float32(1e-3), x).verdict is Verdict.FAIL

    def test_dtype_shape_and_overflow(self):
        assert {f.code for f in check_transfer(np.exp, lambda x: np.exp(x.astype(float)), self.x).findings} == {"dtype"}
        assert {f.code for f in check_transfer(np.exp, lambda x: np.exp(x[1:]), self.x).findings} == {"shape"}
        with np.errstate(over="ignore"):
            assert check_transfer(np.exp, np.exp, np.float32([100.0, 1.0]))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: check(1, twice, X), TypeError, "f must be callable, was int"),
        (lambda: check(squares, 3, X), TypeError, "grad must be callable or None, was int"),
        (lambda: check(squares, None, X), TypeError, "nothing to check"),
        (lambda: check(squares, twice, X.astype(np.float32)), TypeError, "x must be float64, was float32"),
        (lambda: check(squares, twice, X.astype(complex)), TypeError, "x must be real"),
        (lambda: check(np.sin, np.cos, X), ValueError, r"f must return a number, was an array of shape \(2, 3\): pass vjp="),
        (lambda: check(squares, twice, X, wrt=1), ValueError, "wrt must be positions among the 1 arguments"),
        (lambda: check(squares, twice, X, points=0), ValueError, "points must be at least 1, was 0"),
        (lambda: check(squares, twice, X, rtol=0), ValueError, "rtol must be positive, was 0"),
        (lambda: check(squares, twice, X, kinks="some"), ValueError, "kinks must be 'any', 'forbid' or a callable, was 'some'"),
        (lambda: check(squares, twice, X, domain=(1, 0)), ValueError, "domain must be"),
        (lambda: check(squares, twice, X, domain=(0, 1)), ValueError, "x is outside of the domain"),
        (lambda: check(squares, twice, X, only=(7, 7)), ValueError, "only must be an index of an array of shape"),
        (lambda: check(squares, twice, X, value_and_grad=True), TypeError, "must return .value, gradient., was a float"),
        (lambda: check(squares, twice, X, vjp=twice), TypeError, "vjp goes neither with grad"),
        (lambda: check(squares, twice, X, separable=()), TypeError, "separable needs"),
        (lambda: check(squares, twice, X, wrt=(0,)), TypeError, "the gradient must be a tuple of 1"),
        (lambda: check_hvp(twice, 1, X), TypeError, "hvp must be callable, was int"),
        (lambda: check_hvp(squares, lambda x, v: v, X), ValueError, "grad must return an array of shape"),
        (lambda: check_transfer(np.exp, np.exp, [1, 2]), TypeError, "x must be of a floating dtype, was int64"),
        (lambda: check_transfer(np.exp, np.exp, X, max_ulp=0), ValueError, "max_ulp must be positive, was 0"),
    ],
)
def test_bad_calls(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_what_f_raises_is_passed_on():
    def broken(x):
        raise RuntimeError("my own")

    with pytest.raises(RuntimeError, match="my own"):
        check(broken, twice, X)
    with pytest.raises(RuntimeError, match="my own"):
        check(squares, broken, X)


def test_several_threads_at_once():
    x, t = logistic_sample(50)
    expected = check(logistic, logistic_grad, x, t, seed=1).resolution
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(check(logistic, logistic_grad, x, t, seed=1).resolution)) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == [expected] * 4


def test_gradcheck_needs_numpy_and_scipy_alone():
    import subprocess

    code = "import sys\nfrom gradcheck import check\n"
    code += "check(lambda x: float((x**2).sum()), lambda x: 2*x, [1.0, 2.0]).raise_if_failed(strict=True)\n"
    code += "assert not {'numba', 'nlosses', 'rich', 'matplotlib', 'pytest', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_every_public_name_is_documented():
    for name in gradcheck.__all__:
        assert (getattr(gradcheck, name).__doc__ or "").strip(), name
