"""Properties that every loss of the registry has, for every option, layout and dtype."""

from __future__ import annotations

import inspect
import pickle
from itertools import pairwise

import numba
import numpy as np
import pytest
from cases import SHAPES, cases, labelled, option_sets, sample
from scipy import special

import nlosses as nl
from nlosses import losses as declared
from nlosses._cpu import (
    _threads,
    classwise,
    columns,
    gather,
    label_rows,
    labels,
    rows,
    short_rows,
    soft_rows,
    tiles,
    weighted_columns,
)
from nlosses._cpu._vector import has_tables
from nlosses._verification import SHAPES as VERIFIED


def close(a, b, tolerance):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return a.shape == b.shape and np.all(np.abs(a - b) <= tolerance * np.maximum(1.0, np.abs(b)))


# --- the registry ----------------------------------------------------------------------------------------------------


def test_registry_is_complete():
    files = {f.stem for f in __import__("pathlib").Path(declared.__file__).parent.glob("*.py")} - {"__init__"}
    assert files == {spec.name for spec in declared.SPECS} == set(nl.LOSSES)
    modules = {spec.module for spec in declared.SPECS}
    assert set(nl.LOSSES) | modules <= set(nl.__all__)
    assert all(hasattr(nl, name) for name in nl.__all__)


def test_declaration(loss):
    spec = loss.spec
    assert getattr(nl, loss.__name__) is loss
    assert inspect.signature(loss) == spec.signature
    assert spec.facts
    assert spec.reference is not None
    for section in ("Parameters", "Returns", "Raises", "Notes", "References", "Examples"):
        assert f"{section}\n    {'-' * len(section)}" in loss.__doc__
    for name in spec.signature.parameters:
        assert name in loss.__doc__.split("Returns\n")[0]


def test_facts(loss):
    for fact in loss.spec.facts:
        value = loss(fact.input, fact.target, **fact.options)
        assert abs(value - fact.value) <= 0.6 * 10.0**-fact.digits, (value, fact)


@pytest.mark.parametrize("spec", [spec for spec in declared.SPECS if spec.math.summand], ids=lambda spec: spec.name)
def test_summand(spec):
    """The same mathematics as the point's, with the logarithm left to be taken, wherever the input is moderate."""
    for x in (-nl.scalar.MODERATE, -3.0, -0.0, 0.0, 1e-300, 1e-9, 0.3, 0.5, 0.7, 1 - 1e-9, 1.0, 40.0, nl.scalar.MODERATE):
        for t in (0.0, 0.25, 1.0, 3.0):
            if not (spec.input.low <= x <= spec.input.high and spec.target.low <= t <= spec.target.high):
                continue
            with np.errstate(all="ignore"):  # both sides of a choice are computed
                v, e, slope = spec.math.summand(np.float64(x), np.float64(t))
                value, usual = spec.math.point(np.float64(x), np.float64(t), *[None] * len(spec.parameters))
            assert 0 <= e <= 1
            np.testing.assert_allclose(v + nl.scalar.log1p(e), value, rtol=1e-15, atol=0)
            np.testing.assert_allclose(slope, usual, rtol=1e-15, atol=0)


@pytest.mark.parametrize("spec", [spec for spec in declared.SPECS if spec.math.binary], ids=lambda spec: spec.name)
def test_binary(spec):
    """The same mathematics as the point's at targets of 0 and 1, but for what it leaves to the point by an infinite e."""
    infinite = 0
    for x in (-40.0, 0.0, 1e-300, 1e-13, 1e-11, 0.3, 0.5, 0.7, 1 - 1e-11, 1 - 1e-13, 1.0, 40.0):
        for t in (0.0, 1.0):
            if not spec.input.low <= x <= spec.input.high:
                continue
            with np.errstate(all="ignore"):
                e, slope = spec.math.binary(np.float64(x), np.float64(t))
                value, usual = spec.math.point(np.float64(x), np.float64(t), *[None] * len(spec.parameters))
            infinite += np.isinf(e)
            assert e >= 0
            if np.isfinite(e):
                np.testing.assert_allclose(nl.scalar.log1p(e), value, rtol=1e-15, atol=0)
            np.testing.assert_allclose(slope, usual, rtol=1e-15, atol=0)
    assert infinite <= 6


TUTORIAL = [
    ("binary_cross_entropy", {}, 0.59122998),
    ("binary_cross_entropy", {"weight": [[0.1, 0.9, 0.1], [0.1, 0.1, 0.9]]}, 0.12723307),
    ("binary_cross_entropy_with_logits", {}, 0.76784688),
]


@pytest.mark.parametrize(("name", "options", "printed"), TUTORIAL)
def test_printed_in_tutorials(name, options, printed, dtype):
    x = np.array([[0.5, 1, 0.8], [0.2, 0.4, 0.6]], dtype)
    t = np.array([[0, 1, 0], [0, 0, 1]], dtype)
    assert abs(getattr(nl, name)(x, t, **options) - printed) <= 2**-24 * 2  # they were printed from float32


def test_printed_in_tutorials_of_divergence_and_sigmoid(dtype):
    log_q = nl.log_softmax(np.array([[0.5, 1, 0.8], [0.2, 0.4, 0.6]], dtype), axis=1)
    p = np.array([[0.3, 0.4, 0.3], [0.1, 0.5, 0.4]], dtype)
    # Printed as 0.05779626 from float32, whose rounding of terms up to 0.7 it shows; exactly it is 0.0577961913.
    assert abs(nl.kl_div(log_q, p, reduction="batchmean") - 0.05779626) <= 2**-23
    probabilities = nl.sigmoid(np.array([0.2, 0.4, 0.6], dtype))
    assert abs(nl.BCELoss()(probabilities, np.array([0, 1, 1], dtype)) - 0.58288068) <= 2**-24 * 2


# --- values ----------------------------------------------------------------------------------------------------------


def coefficients(loss, x, t, options):
    """Coefficients q of a classwise loss with the class axis last, by the documented formula."""
    rows = np.moveaxis(x, 1, -1) if x.ndim > 1 else x
    classes = rows.shape[-1]
    w = np.asarray(options.get("weight", np.ones(classes)))
    smoothing = options.get("label_smoothing", 0.0)
    if not labelled(loss, t):
        t = np.moveaxis(t, 1, -1) if t.ndim > 1 else t
        return rows, w * ((1 - smoothing) * t + smoothing / classes), None
    one_hot = np.eye(classes)[t]
    q = (1 - smoothing) * w * one_hot + smoothing / classes * w
    live = t != options.get("ignore_index", -100)
    return rows, q * live[..., None], (w[t] * live).sum()


def test_reference(loss):
    """Unreduced, summed and averaged values agree with an independent implementation."""
    for x, t, options in cases(loss):
        if loss.spec.family == "classwise":
            rows, q, counted = coefficients(loss, x, t, options)
            expected = loss.spec.reference(rows, q)
            denominator = expected.size if counted is None else counted
        else:
            weight = options.get("weight", np.ones(x.shape))
            further = {k: v for k, v in options.items() if k != "weight"}
            expected = weight * loss.spec.reference(x, t, **further)
            denominator = np.sum(weight) if loss.spec.mean_of_weights else x.size
        unreduced = loss(x, t, **options, reduction="none")
        assert close(unreduced, expected, 1e-13)
        assert close(loss(x, t, **options, reduction="sum"), expected.sum(), 1e-13)
        assert close(loss(x, t, **options), expected.sum() / denominator, 1e-13)
        if "batchmean" in loss.spec.reductions:
            assert close(loss(x, t, **options, reduction="batchmean"), expected.sum() / x.shape[0], 1e-13)


def test_compiled_equals_interpreted(loss, dtype):
    """The point function gives the same in the interpreter, to a few ulp."""
    if loss.spec.family != "elementwise":
        return
    for x, t, options in cases(loss, dtype):
        mathematics = loss.spec.math
        for switch, variant in loss.spec.variants.items():
            mathematics = variant if options.get(switch) else mathematics
        parameters = [options.get(name) for name in loss.spec.parameters]
        parameters = [None if p is None else np.broadcast_to(p.astype(dtype), x.shape) for p in parameters]
        values, slopes = loss.value_and_grad(x, t, **{k: v for k, v in options.items() if k != "weight"}, reduction="none")
        for index in np.ndindex(x.shape):
            picked = [None if p is None else p[index] for p in parameters]
            value, slope = mathematics.point(x[index], t[index], *picked)
            assert isinstance(value, dtype)
            assert isinstance(slope, dtype)
            eps = 16 * np.finfo(dtype).eps
            assert abs(values[index] - value) <= eps * max(1, abs(value))
            assert abs(slopes[index] - slope) <= eps * max(1, abs(slope))


# --- derivatives -----------------------------------------------------------------------------------------------------


def difference(f, x, direction, h=1e-5):
    """Fourth-order central difference of f along a direction."""
    steps = [f(x + k * h * direction) for k in (-2, -1, 1, 2)]
    return (steps[0] - 8 * steps[1] + 8 * steps[2] - steps[3]) / (12 * h)


def test_gradients_are_derivatives(loss):
    rng = np.random.default_rng(1)
    for x, t, options in cases(loss, seed=1):
        for reduction in ("mean", "none"):
            options = {**options, "reduction": reduction}
            shape = np.shape(loss(x, t, **options))
            g = rng.normal(size=shape)
            v = rng.choice([-1.0, 1.0], x.shape) * 0.1
            grad = loss.grad(x, t, **options, grad_output=g)
            slope = difference(lambda y: np.sum(g * loss(y, t, **options)), x, v)  # noqa: B023
            assert abs(np.sum(grad * v) - slope) <= 1e-8 * max(1, np.abs(grad).sum())
            if not labelled(loss, t):
                grad = loss.grad(x, t, **options, grad_output=g, argnums=1)
                slope = difference(lambda u: np.sum(g * loss(x, u, **options)), t, v)  # noqa: B023
                assert abs(np.sum(grad * v) - slope) <= 1e-8 * max(1, np.abs(grad).sum())


def test_second_derivatives(loss):
    rng = np.random.default_rng(2)
    for x, t, options in cases(loss, seed=2):
        for reduction in ("mean", "none"):
            options = {**options, "reduction": reduction}
            g = rng.normal(size=np.shape(loss(x, t, **options)))
            v = rng.normal(size=x.shape) * 0.1
            product = loss.hvp(x, t, v, **options, grad_output=g)
            slope = difference(lambda y: loss.grad(y, t, **options, grad_output=g), x, v)  # noqa: B023
            assert close(product, slope, 1e-8)
            diagonal = loss.hessian_diag(x, t, **options, grad_output=g)
            assert diagonal.shape == x.shape
            for index in [(0,) * x.ndim, tuple(n - 1 for n in x.shape)]:
                unit = np.zeros(x.shape)
                unit[index] = 1
                assert close(loss.hvp(x, t, unit, **options, grad_output=g)[index], diagonal[index], 1e-13)


# --- consistency -----------------------------------------------------------------------------------------------------


def test_methods_agree(loss, dtype):
    for x, t, options in cases(loss, dtype):
        before = x.copy(), t.copy()
        for reduction in loss.spec.reductions:
            if reduction != "none" and reduction != "mean" and x.ndim > 2:
                continue
            value = loss(x, t, **options, reduction=reduction)
            both = loss.value_and_grad(x, t, **options, reduction=reduction)
            assert close(value, both[0], 4 * np.finfo(dtype).eps)  # loops of their own, which may add in another order
            assert np.array_equal(loss.grad(x, t, **options, reduction=reduction), both[1])
            assert np.asarray(value).dtype == both[1].dtype == dtype
            assert both[1].shape == x.shape
            if reduction != "none":
                assert isinstance(value, dtype)
            if not labelled(loss, t):
                value, grads = loss.value_and_grad(x, t, **options, reduction=reduction, argnums=(1, 0))
                assert close(value, both[0], 4 * np.finfo(dtype).eps)
                assert np.array_equal(grads[1], both[1])
                assert np.array_equal(grads[0], loss.grad(x, t, **options, reduction=reduction, argnums=1))
                assert grads[0].shape == t.shape
        assert np.array_equal(before[0], x)
        assert np.array_equal(before[1], t)


def test_plain_calls_have_the_bits_of_general_ones(loss, dtype, rng):
    """Options given by position take the general way, though they are as declared."""
    before = tuple(loss.spec.options)[: tuple(loss.spec.options).index("reduction")]
    first = [loss.spec.options[name] for name in before]
    for shape in [(7,), (300, 70)] if loss.spec.family == "elementwise" else [(7, 3), (7, 30), (300, 70), (40, 700)]:
        x, t = sample(loss, shape, dtype, rng)
        for reduction in ("mean", "sum", "none"):
            value, grad = loss.value_and_grad(x, t, *first, reduction)
            out = np.empty_like(x)
            for arguments in ({}, {"out": out}):
                v, g = loss.value_and_grad(x, t, reduction=reduction, **arguments)
                np.testing.assert_array_equal(v, value)
                np.testing.assert_array_equal(g, grad)
                assert (type(v), v.dtype, g.dtype) == (type(value), value.dtype, grad.dtype)
                assert g is out or not arguments
        value, grad = loss.value_and_grad(x, t, *first, "mean")
        for call in (loss.value_and_grad, getattr(nl, loss.spec.module)().value_and_grad):
            v, g = call(x, t)
            assert v == value
            np.testing.assert_array_equal(g, grad)
        same = x.copy()
        np.testing.assert_array_equal(loss.value_and_grad(same, t, out=same)[1], grad)
        with pytest.raises(ValueError, match="reduction must be one of"):
            loss.value_and_grad(x, t, reduction="avg")


def test_upstream_gradient(loss):
    """Linear in grad_output, ones where absent, and zero for zero, also where the loss is infinite."""
    rng = np.random.default_rng(3)
    for x, t, options in cases(loss):
        shape = np.shape(loss(x, t, **options, reduction="none"))
        g = rng.normal(size=shape)

        def grad(g, x=x, t=t, options=options):
            return loss.grad(x, t, **options, reduction="none", grad_output=g)

        assert close(grad(2 * g), 2 * grad(g), 1e-15)
        assert close(grad(g) + grad(1 - g), grad(np.ones(shape)), 1e-13)
        assert np.array_equal(grad(None), grad(np.ones(shape)))
        assert not np.any(grad(np.zeros(shape)))
        assert close(loss.grad(x, t, **options, grad_output=3.0), 3 * loss.grad(x, t, **options), 1e-15)


# --- arrays ----------------------------------------------------------------------------------------------------------


def layouts(a):
    """The same elements, held differently."""
    a = np.asarray(a)
    yield np.asfortranarray(a)
    yield np.repeat(a, 2, axis=0)[::2] if a.ndim else a
    reversed_ = a[::-1].copy()[::-1] if a.ndim else a
    yield reversed_
    frozen = a.copy()
    frozen.flags.writeable = False
    yield frozen
    yield a.astype(a.dtype.newbyteorder())
    unaligned = np.frombuffer(b"x" + a.tobytes(), np.uint8)[1:].view(a.dtype).reshape(a.shape)
    yield unaligned


def test_layouts(loss, dtype):
    for x, t, options in cases(loss, dtype):
        value, grad = loss.value_and_grad(x, t, **options, reduction="none")
        for x2, t2 in zip(layouts(x), layouts(t), strict=True):
            got = loss.value_and_grad(x2, t2, **options, reduction="none")
            assert np.array_equal(got[0], value)
            assert np.array_equal(got[1], grad)
            assert got[1].dtype == dtype
        got = loss.value_and_grad(np.asfortranarray(x), t, **options, reduction="none")
        assert np.array_equal(got[0], value)
        assert np.array_equal(got[1], grad)


def test_other_types(loss):
    for x, t, options in list(cases(loss))[:4]:
        half = x.astype(np.float16)
        value, grad = loss.value_and_grad(half, t if labelled(loss, t) else t.astype(np.float16), **options)
        assert np.asarray(value).dtype == grad.dtype == np.float16
        single = loss.value_and_grad(half.astype(np.float32), t if labelled(loss, t) else t.astype(np.float16), **options)
        assert grad.tolist() == single[1].astype(np.float16).tolist()
        long = x.astype(np.longdouble)
        assert loss.grad(long, t, **options).dtype == np.longdouble
        assert close(loss.grad(long, t, **options), loss.grad(x, t, **options), 1e-15)
        assert close(loss.grad(x.tolist(), t.tolist(), **options), loss.grad(x, t, **options), 1e-15)
        mixed = loss.value_and_grad(x.astype(np.float32), t, **options)
        assert mixed[1].dtype == np.float32
        assert np.asarray(mixed[0]).dtype == (np.float32 if labelled(loss, t) else np.float64)
    for kind in (np.int8, np.uint8, np.int32, np.uint64, np.bool_):
        x, t = sample(loss, (4, 2), np.float32, np.random.default_rng(0))
        t = np.array([0, 1, 1, 0]) if labelled(loss, t) else np.array([[0, 1], [1, 0], [1, 1], [0, 0]])
        value, grad = loss.value_and_grad(x, t.astype(kind))
        expected = loss.value_and_grad(x, t if labelled(loss, t) else t.astype(np.float32))
        assert value == expected[0]
        assert np.array_equal(grad, expected[1])
        assert isinstance(value, np.float32)


def test_integer_input_counts_as_float64():
    value, grad = nl.mse_loss.value_and_grad([1, 2], [0, 0])
    assert isinstance(value, np.float64)
    assert grad.dtype == np.float64
    assert grad.tolist() == [1.0, 2.0]


def test_empty_and_scalar(loss, dtype):
    shapes = {"elementwise": [(0,), (0, 3), (3, 0)], "classwise": [(0, 3), (0, 50), (2, 3, 0)]}[loss.spec.family]
    for shape in shapes:
        x, t = sample(loss, shape, dtype, np.random.default_rng(0))
        for reduction, expected in (("mean", np.nan), ("sum", 0.0)):
            value, grad = loss.value_and_grad(x, t, reduction=reduction)
            assert np.array_equal(value, expected, equal_nan=True)
            assert grad.shape == shape
        assert loss(x, t, reduction="none").shape == t.shape
    if loss.spec.family == "elementwise":
        value, grad = loss.value_and_grad(dtype(0.25), dtype(0.5))
        assert isinstance(value, dtype)
        assert isinstance(grad, dtype)
        near = pytest.approx(float(value), rel=4 * float(np.finfo(dtype).eps))
        assert float(loss(dtype(0.25), dtype(0.5), reduction="none")) == near
        assert loss.value_and_grad(np.array(0.25, dtype), np.array(0.5, dtype), out=np.array(0, dtype))[1] == grad


def test_out(loss, dtype):
    """`out` is written and returned; it may be the input, overlap it, or have any layout."""
    for x, t, options in cases(loss, dtype):
        expected = loss.grad(x, t, **options)
        out = np.full_like(x, np.nan)
        assert loss.grad(x, t, **options, out=out) is out
        assert np.array_equal(out, expected)
        inside = x.copy()
        value, grad = loss.value_and_grad(inside, t, **options, out=inside)
        assert grad is inside
        assert np.array_equal(inside, expected)
        assert close(value, loss(x, t, **options), 4 * np.finfo(dtype).eps)
        shared = np.empty(x.size + 1, dtype)
        before, after = shared[1:].reshape(x.shape), shared[:-1].reshape(x.shape)
        before[...] = x
        loss.grad(before, t, **options, out=after)
        assert np.array_equal(after, expected)
        fortran = np.asfortranarray(np.full_like(x, np.nan))
        loss.grad(x, t, **options, out=fortran)
        assert np.array_equal(fortran, expected)
        strided = np.full((*x.shape, 2), np.nan, dtype)[..., 0]
        loss.grad(x, t, **options, out=strided)
        assert np.array_equal(strided, expected)
        for second in (loss.hessian_diag, lambda *a, **k: loss.hvp(*a[:2], x, *a[2:], **k)):  # noqa: B023
            wanted = second(x, t, **options)
            inside = x.copy()
            assert second(inside, t, **options, out=inside) is inside
            assert np.array_equal(inside, wanted)
        if not labelled(loss, t):
            target = t.copy()
            wanted = loss.grad(x, t, **options, argnums=(0, 1))
            outs = (np.empty_like(x), target)
            got = loss.grad(x, target, **options, argnums=(0, 1), out=outs)
            assert got[0] is outs[0]
            assert got[1] is target
            assert np.array_equal(got[0], wanted[0])
            assert np.array_equal(target, wanted[1])


def test_long_arrays_take_the_parallel_way(loss, dtype):
    """Above the threshold the values are those of the parts."""
    rng = np.random.default_rng(5)
    shapes = [(60_000,)] if loss.spec.family == "elementwise" else [(9000, 7), (600, 101), (3, 5, 4001)]
    for shape in shapes:
        x, t = sample(loss, shape, dtype, rng)
        value, grad = loss.value_and_grad(x, t, reduction="sum")
        parts = [
            loss.value_and_grad(x[a:b], t[a:b], reduction="sum") for a, b in pairwise(np.linspace(0, len(x), 4).astype(int))
        ]
        assert np.array_equal(grad, np.concatenate([p[1] for p in parts]))
        assert close(value, sum(float(p[0]) for p in parts), 4 * np.finfo(dtype).eps)


def test_bits_depend_on_no_address(loss, dtype):
    """Neither on alignment, nor on what lies beside, nor on whether the result overwrites the input."""
    rng = np.random.default_rng(6)
    shapes = [(700,), (40,)] if loss.spec.family == "elementwise" else [(90, 7), (6, 101), (1, 52), (2, 5, 41)]
    for shape in shapes:
        x, t = sample(loss, shape, dtype, rng)
        expected = loss.value_and_grad(x, t)
        n = x.size
        for shift in range(0, 65, 3):
            for order in ((0, 1, 2), (0, 2, 1), (2, 1, 0), (0, 2, 0), (1, 0, 1)):  # an array that comes twice is in place
                pool = np.zeros(3 * n + 65, dtype)
                x2, t2, out = (pool[shift + k * n :][:n].reshape(shape) for k in order)
                x2[...] = x
                if t.shape == shape and t.dtype == dtype:
                    t2[...] = t
                    target = t2
                else:
                    target = t
                value, grad = loss.value_and_grad(x2, target, out=out)
                assert value == expected[0]
                assert np.array_equal(grad, expected[1])


def test_out_may_be_the_arguments_of_several_gradients(loss):
    """What one gradient is written to is not what the next, or the value, is computed from."""
    for x, t, options in list(cases(loss))[:6]:
        if labelled(loss, t):
            continue
        value, expected = loss.value_and_grad(x, t, **options, argnums=(0, 1))
        for wrt in ((0, 1), (1, 0)):
            arguments = (x.copy(), t.copy())
            outs = tuple(arguments[k] for k in wrt)
            got = loss.value_and_grad(*arguments, **options, argnums=wrt, out=outs)
            assert got[0] == value
            for k, grad, out in zip(wrt, got[1], outs, strict=True):
                assert grad is out
                assert np.array_equal(grad, expected[k])
        target = t.copy()
        got = loss.value_and_grad(x, target, **options, argnums=1, out=target)
        assert close(got[0], value, 1e-15)
        assert np.array_equal(target, expected[1])


def test_out_may_overlap_anything(loss):
    """Also the upstream gradient and the vector, element for element or not."""
    for x, t, options in list(cases(loss))[:6]:
        options = {**options, "reduction": "none"}
        shape = np.shape(loss(x, t, **options))
        for shift in (0, 1):
            shared = np.linspace(1, 2, x.size + 1)
            v, out = shared[shift : shift + x.size].reshape(x.shape), shared[: x.size].reshape(x.shape)
            expected = loss.hvp(x, t, v.copy(), **options)
            assert np.array_equal(loss.hvp(x, t, v, **options, out=out), expected)
            if shape == x.shape:
                for upstream in (v, memoryview(v)):
                    shared[:] = np.linspace(1, 2, x.size + 1)
                    expected = loss.grad(x, t, **options, grad_output=v.copy())
                    assert np.array_equal(loss.grad(x, t, **options, grad_output=upstream, out=out), expected)


# --- classes ---------------------------------------------------------------------------------------------------------


def test_classes(loss):
    for x, t, options in cases(loss):
        options = {k: v for k, v in options.items() if k not in loss.spec.module_omits}
        module = getattr(nl, loss.spec.module)(**options)
        full = {**options, "reduction": "sum"}
        module = type(module)(**full)
        again = pickle.loads(pickle.dumps(module))
        for m in (module, again):
            assert m(x, t) == loss(x, t, **full)
            assert np.array_equal(m.grad(x, t), loss.grad(x, t, **full))
            assert np.array_equal(m.value_and_grad(x, t)[1], loss.grad(x, t, **full))
            assert np.array_equal(m.hessian_diag(x, t), loss.hessian_diag(x, t, **full))
            assert np.array_equal(m.hvp(x, t, x), loss.hvp(x, t, x, **full))
        assert repr(module).startswith(f"{loss.spec.module}(")
        assert "reduction='sum'" in repr(module)
        for name in options:
            assert f"{name}=" in repr(module)
    assert repr(getattr(nl, loss.spec.module)()) == f"{loss.spec.module}()"


def test_losses_and_functions_pickle(loss):
    assert pickle.loads(pickle.dumps(loss)) is loss
    for function in (nl.sigmoid, nl.log_sigmoid, nl.softmax, nl.log_softmax):
        assert pickle.loads(pickle.dumps(function)) is function


def test_legacy_switches(loss, dtype):
    x, t = sample(loss, (6, 3), dtype, np.random.default_rng(0))
    meanings = {(None, False): "none", (False, None): "sum", (True, None): "mean", (False, True): "sum", (True, False): "none"}
    for (size_average, reduce), reduction in meanings.items():
        with pytest.warns(DeprecationWarning, match=f"use reduction='{reduction}'"):
            value = loss(x, t, size_average=size_average, reduce=reduce, reduction="mean")
        assert np.array_equal(value, loss(x, t, reduction=reduction))
        with pytest.warns(DeprecationWarning, match=f"use reduction='{reduction}'"):
            module = getattr(nl, loss.spec.module)(size_average=size_average, reduce=reduce)
        assert module.reduction == reduction


@pytest.mark.parametrize("shapes", [SHAPES, VERIFIED], ids=["tests", "verification"])
def test_shapes_reach_every_driver(shapes):
    for itemsize in (4, 8):
        layouts = [(s[min(1, len(s) - 1)], int(np.prod(s[2:]))) for s in shapes["classwise"]]
        assert {classwise.driver_of(layout, itemsize, plain=False) for layout in layouts} == {rows, tiles}
        of_labels = {label_rows, labels}
        by_tables = {short_rows}, {short_rows, columns}, {short_rows, weighted_columns}
        for (linear, apart), further in zip(((False, True), (True, False), (True, True)), by_tables, strict=True):
            reached = {classwise.driver_of(layout, itemsize, True, linear=linear, apart=apart) for layout in layouts}
            assert reached == of_labels | (further if has_tables() else set())
        assert {classwise.driver_of(layout, itemsize, soft=True) for layout in layouts} == {soft_rows, tiles}
        assert {gather.are_few(layout, itemsize) for layout in layouts} == {has_tables(), False}


def steep_point(u):
    """The fourth power, whose slope is tiny where the loss is small."""
    square = u * u
    return square * square, type(u)(4) * square * u


@nl.classwise(steep_point, class_probabilities=True)
def steep(input, target, weight=None, reduction="mean", label_smoothing=0.0):
    """A loss whose factors leave float32 though its gradients do not."""


@pytest.mark.parametrize("factor", [1e-30, 1e-20, 1.0, 1e20])
@pytest.mark.parametrize("level", [-38.0, 0.0, 38.0])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("classes", [20, 200])
def test_factors_that_are_no_normal_numbers(classes, soft, level, factor, rng):
    """Rows in float32 whose exponentials are tiny or huge, and their factor the contrary: in float64 all are normal numbers."""
    eps, tiny = 2.0**-23, float(np.finfo(np.float32).tiny)
    for loss, gap in ((nl.cross_entropy, 1.0), (nl.cross_entropy, 2.0), (steep, -30.0), (steep, 2.0)):
        if loss is steep and factor != 1.0:
            continue  # whose fourth power would be no number
        x = (level - rng.uniform(0, 0.1, (4, classes))).astype(np.float32)
        t: np.ndarray = np.full(4, 17)
        if gap > 0:
            x[:, 17] += gap
        else:
            x[:, np.arange(classes) != 17] += gap  # a small loss, and a slope that is far smaller
        if soft:
            t = np.full((4, classes), 0.01 * factor, np.float32)
            t[:, 17] = factor
            t[2:, np.arange(classes) != 17] = 0
        upstream = np.full(4, 1.0 if soft else factor, np.float32)
        wide = t.astype(np.float64) if soft else t
        expected, grad = loss.value_and_grad(
            x.astype(np.float64), wide, reduction="none", grad_output=upstream.astype(np.float64)
        )
        slope = (4 * expected**0.75 if loss is steep else np.ones(4))[:, None]
        bounds = 16 * eps * (np.abs(grad) + (slope * wide if soft else 0)) + tiny * eps
        same = x.copy()
        for out in (None, same):
            value, result = loss.value_and_grad(x if out is None else same, t, reduction="none", grad_output=upstream, out=out)
            np.testing.assert_array_equal(value, loss(x, t, reduction="none"))
            np.testing.assert_allclose(value, expected, rtol=16 * eps, atol=tiny * eps)
            assert (np.abs(result - grad) <= bounds).all(), (loss, gap)


@pytest.mark.parametrize("smoothing", [0.03, 0.5, 0.9])
@pytest.mark.parametrize(
    "shape", [(1, 1), (6, 2), (300, 3), (77, 10), (40, 100), (2, 3, 700), (1, 21, 2, 300), (3, 40, 5)], ids=str
)
def test_smoothing_in_the_quick_way_and_in_the_careful_one(shape, smoothing, dtype, rng):
    """Class weights of 1 change nothing but the driver, of moderate logits and of large ones, beside ignored rows of NaN."""
    classes = shape[1]
    for scale in (1.0, 30.0, 500.0):
        x = (rng.normal(size=shape) * scale).astype(dtype)
        t = rng.integers(0, classes, shape[:1] + shape[2:])
        for ignored in ([], [0], [0, -1]):  # of the first axis
            x, t = x.copy(), t.copy()
            for row in ignored:
                np.moveaxis(x, 1, -1)[row, ..., :] = np.nan
                t[row] = -7
            for reduction in ("none", "mean" if (t != -7).any() else "sum"):
                upstream = rng.uniform(0.1, 3, t.shape) if reduction == "none" else 1.5
                given = {"reduction": reduction, "ignore_index": -7, "label_smoothing": smoothing, "grad_output": upstream}
                value, grad = nl.cross_entropy.value_and_grad(x, t, **given)
                right, exact = nl.cross_entropy.value_and_grad(x.astype(np.float64), t, weight=np.ones(classes), **given)
                tolerance = 8 * np.finfo(dtype).eps
                np.testing.assert_allclose(value, right, rtol=tolerance)
                np.testing.assert_allclose(grad, exact, rtol=tolerance, atol=tolerance * abs(exact).max())
                in_place = x.copy()
                again, _ = nl.cross_entropy.value_and_grad(in_place, t, **given, out=in_place)
                np.testing.assert_array_equal(again, value)
                np.testing.assert_array_equal(in_place, grad)


# --- threads -----------------------------------------------------------------------------------------------------------

#: Of several blocks in every driver, but not enough to go to several threads by themselves.
LARGE = {"elementwise": [(3, 3000)], "classwise": [(4900, 4), (2100, 9), (90, 210), (2, 3, 3000)]}


def test_threads_give_the_bits_of_one(loss, monkeypatch, rng):
    """With every option."""
    if numba.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("one thread is all there is")
    for shape in LARGE[loss.spec.family]:
        for options in option_sets(loss, shape, rng):
            x, t = sample(loss, shape, np.float32, rng)
            assert not _threads.wants_parallel(x.size)
            value, grad = loss.value_and_grad(x, t, **options)
            with monkeypatch.context() as patch:
                patch.setattr(_threads, "SMALL", 0)
                patch.setattr(_threads, "SERIAL_BELOW", {})
                assert _threads.wants_parallel(x.size)
                parallel, same = loss.value_and_grad(x, t, **options)
            assert parallel == value, options
            np.testing.assert_array_equal(same, grad, str(options))


@pytest.mark.parametrize(("classes", "tables"), [*((c, True) for c in (2, 3, 5, 8, 9, 16, 17, 33, 100, 200)), (17, False)])
def test_class_indices_of_short_rows(classes, tables, dtype, rng, monkeypatch):
    """Any number of rows, with ignored ones of anything, and large logits; beside the result nothing is written."""
    if not tables:
        monkeypatch.setattr(classwise, "has_tables", lambda: False)
    elif not has_tables():
        pytest.skip("of machines without tables all go another way")
    weight = np.ones(classes)
    weight[-1] = 2  # tells from what has no weights
    for n in (1, 7, 31, 33, 64, 65, 200, 2049, 4100):
        x = rng.normal(size=(n, classes)).astype(dtype)
        x[rng.random(n) < 0.001] *= 100
        t = rng.integers(0, classes, n)
        t[rng.random(n) < 0.2] = -1
        x[(t == -1) & (rng.random(n) < 0.1)] = rng.choice([np.nan, np.inf, 1.0])
        exact = x.astype(float)
        kept, at = t != -1, np.arange(n)
        exact[~kept] = 0
        grad = special.softmax(exact, axis=1)
        surprisal = -special.log_softmax(exact, axis=1)[at, t]
        grad[at, t] = -np.where(np.arange(classes) == t[:, None], 0, grad).sum(axis=1)
        eps, tiny = np.finfo(dtype).eps, np.finfo(dtype).tiny
        gaps = np.finfo(float).eps * (exact.max() - exact.min())  # SciPy rounds them
        for options in ({}, {"weight": weight.astype(dtype)}):
            w = np.where(kept, weight[t] if options else 1, 0)
            memory = np.full((n + 40) * classes, 7, dtype)
            out = memory[20 * classes : -20 * classes].reshape(x.shape)
            options |= {"ignore_index": -1, "reduction": "sum"}
            value, _ = nl.cross_entropy.value_and_grad(x, t, **options, out=out)
            np.testing.assert_allclose(value, (w * surprisal).sum(), rtol=8 * eps)
            np.testing.assert_allclose(out, w[:, None] * grad, rtol=8 * eps + gaps, atol=tiny)
            assert nl.cross_entropy(x, t, **options) == value
            for upstream in (1e-20, 1e20):
                same, large = nl.cross_entropy.value_and_grad(x, t, **options, grad_output=upstream)
                assert same == value
                np.testing.assert_allclose(
                    large.astype(float), upstream * w[:, None] * grad, rtol=9 * eps + gaps, atol=max(1, upstream) * tiny
                )
            assert (memory[: 20 * classes] == 7).all()
            assert (memory[-20 * classes :] == 7).all()
            in_place = x.copy()
            nl.cross_entropy.value_and_grad(in_place, t, **options, out=in_place)
            np.testing.assert_array_equal(in_place, out)


@pytest.mark.parametrize("classes", range(1, 12))
def test_log_probabilities_of_few_classes(classes, dtype, rng):
    """Any number of rows, weights, ignored rows that hold anything; beside the result nothing is written."""
    weight = rng.uniform(0.5, 2, classes).astype(dtype)
    for n in (1, 2, 7, 15, 16, 17, 33, 511, 512, 513, 4095, 4100, 9000):
        t = rng.integers(0, classes, n)
        t[rng.random(n) < 0.2] = -1
        x = rng.normal(size=(n, classes)).astype(dtype)
        x[t == -1] = rng.choice([np.nan, np.inf, 1.0])
        upstream = rng.normal(size=n).astype(dtype)
        memory = np.full((n + 40) * classes, 7, dtype)
        out = memory[20 * classes : -20 * classes].reshape(x.shape)
        kept, rows = t != -1, np.arange(n)
        w = np.where(kept, weight[t], 0)
        grad = np.zeros_like(x)
        grad[rows[kept], t[kept]] = -(upstream * w)[kept]
        options = {"weight": weight, "ignore_index": -1, "reduction": "none"}
        value, _ = nl.nll_loss.value_and_grad(x, t, **options, grad_output=upstream, out=out)
        np.testing.assert_array_equal(value, np.where(kept, -w * np.where(kept, x[rows, t], 0), 0))
        np.testing.assert_allclose(out, grad, rtol=4 * np.finfo(dtype).eps)
        assert (memory[: 20 * classes] == 7).all()
        assert (memory[-20 * classes :] == 7).all()
        np.testing.assert_array_equal(
            nl.nll_loss.value_and_grad(x, t, ignore_index=-1, reduction="sum", out=out)[1], np.where(grad != 0, -1, 0)
        )
