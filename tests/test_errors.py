"""Bad calls: the right kind of error, which names the argument, what it was and what it should be; no argument is changed."""

from __future__ import annotations

import numpy as np
import pytest
from cases import inside

import nlosses as nl

X = np.full((2, 3), 0.5)
BCE, LOGITS, CE, NLL, KL, MSE = (
    nl.binary_cross_entropy, nl.binary_cross_entropy_with_logits, nl.cross_entropy, nl.nll_loss, nl.kl_div, nl.mse_loss
)  # fmt: skip
Y = np.array([0, 1])

BAD = [
    # shapes
    (BCE, (X, X[:1]), {}, ValueError, r"target must have the shape of input, \(2, 3\), got \(1, 3\)"),
    (LOGITS, (X, X[0]), {}, ValueError, r"target must have the shape of input, \(2, 3\), got \(3,\)"),
    (MSE, (X, X[:, :2]), {}, ValueError, r"target must broadcast with input of shape \(2, 3\), got \(2, 2\)"),
    (KL, (X, np.ones(4)), {}, ValueError, r"target must broadcast with input"),
    (CE, (X, np.array([0, 1, 2])), {}, ValueError, r"class indices of shape \(2,\) for an input of shape \(2, 3\)"),
    (CE, (X, np.array([[0], [1]])), {}, ValueError, r"got shape \(2, 1\)"),
    (CE, (np.float64(1), 0), {}, ValueError, r"input must have shape \(C,\), \(N, C\)"),
    (CE, (np.ones((2, 0)), Y), {}, ValueError, r"at least one class, got shape \(2, 0\)"),
    (CE, (X, Y), {"weight": np.ones(2)}, ValueError, r"weight must have shape \(3,\), one a class, got \(2,\)"),
    (CE, (X, X), {"weight": np.ones((2, 3))}, ValueError, r"weight must have shape \(3,\)"),
    (BCE, (X, X), {"weight": np.ones((2, 2))}, ValueError, r"weight must broadcast to shape \(2, 3\), got shape \(2, 2\)"),
    (LOGITS, (X, X), {"pos_weight": np.ones((1, 2, 3))}, ValueError, r"pos_weight must broadcast to shape \(2, 3\)"),
    (MSE, (X, X), {"weight": np.ones(3)}, ValueError, r"weight must have the shape of input, \(2, 3\), got \(3,\)"),
    # contents
    (BCE, (X + 1, X), {}, ValueError, r"input must lie in \[0, 1\], got input\[0, 0\] = 1.5"),
    (BCE, (X, np.array([[0, 0, 0], [0, -1, 0.0]])), {}, ValueError, r"target\[1, 1\] = -1.0"),
    (BCE, (X * np.nan, X), {}, ValueError, r"input\[0, 0\] = nan"),
    (CE, (X, np.array([0, 3])), {}, IndexError, r"target must hold class indices in \[0, 3\) .* target\[1\] = 3"),
    (NLL, (X, np.array([0, -1])), {}, IndexError, r"ignore_index=-100, got target\[1\] = -1"),
    # types
    (MSE, (X * 1j, X), {}, TypeError, "input must hold real numbers, got dtype complex128"),
    (MSE, (X, np.array([["a"] * 3] * 2)), {}, TypeError, "target must hold real numbers, got dtype <U1"),
    (MSE, (X, [[None] * 3] * 2), {}, TypeError, "target must hold real numbers, got dtype object"),
    (CE, (X, np.array([0.0, 1.0])), {}, TypeError, r"target must hold integer class indices, got an array of shape \(2,\)"),
    (NLL, (X, X), {}, TypeError, "target must hold integer class indices"),
    (CE, (X, Y), {"weight": "abc"}, TypeError, "weight must hold real numbers"),
    # options
    (MSE, (X, X), {"reduction": "avg"}, ValueError, "reduction must be one of 'none', 'mean', 'sum', got 'avg'"),
    (MSE, (X, X), {"reduction": "batchmean"}, ValueError, "got 'batchmean'"),
    (MSE, (X, X), {"reduction": None}, ValueError, "got None"),
    (MSE, (X, X), {"reduktion": "sum"}, TypeError, "mse_loss has no argument 'reduktion'; its options are size_average"),
    (MSE, (X, X, None, None, "sum"), {"reduction": "sum"}, TypeError, "got 'reduction' by position and by name"),
    (MSE, (X, X, None, None, "sum", None, 1), {}, TypeError, "takes at most 4 options"),
    (MSE, (X,), {}, TypeError, "target"),
    (KL, (X, X), {"log_target": 1.5}, TypeError, r"log_target must be True or False, got 1.5 \(float\)"),
    (CE, (X, Y), {"label_smoothing": 2}, ValueError, r"label_smoothing must lie in \[0, 1\], got 2.0"),
    (CE, (X, Y), {"label_smoothing": "much"}, TypeError, r"label_smoothing must be a real number, got 'much' \(str\)"),
    (CE, (X, Y), {"ignore_index": 1.5}, TypeError, r"ignore_index must be an integer, got 1.5 \(float\)"),
    (CE, (X, Y), {"ignore_index": np.float64(1)}, TypeError, r"must be an integer, got np.float64\(1.0\) \(float64\)"),
    (CE, (X, Y), {"ignore_index": 2**63}, ValueError, r"ignore_index must be an integer of 64 bits.*, got 9223372036854775808"),
    (NLL, (X, Y), {"ignore_index": -(2**63) - 1}, ValueError, r"ignore_index .* got -9223372036854775809"),
    (CE, (X, X), {"ignore_index": 1}, ValueError, "ignore_index applies to class indices"),
    (CE, (X, X.astype(int)), {}, ValueError, "target must hold class indices of shape"),
]


@pytest.mark.parametrize(("function", "args", "options", "error", "message"), BAD, ids=range(len(BAD)))
def test_message(function, args, options, error, message):
    for method in (function, function.value_and_grad, function.grad, function.hessian_diag):
        with pytest.raises(error, match=message) as caught:
            method(*args, **options)
        assert "numba" not in str(caught.value).lower()
        assert len(str(caught.value)) < 400


OUT = np.zeros((2, 3))
FROZEN = np.zeros((2, 3))
FROZEN.flags.writeable = False

BAD_METHODS = [
    ({"argnums": 2}, ValueError, "argnums must be 0 .*got 2"),
    ({"argnums": True}, ValueError, "argnums must be 0"),
    ({"argnums": ()}, ValueError, r"got \(\)"),
    ({"argnums": (0, 0)}, ValueError, r"got \(0, 0\)"),
    ({"argnums": "input"}, ValueError, "got 'input'"),
    ({"grad_output": np.ones(2)}, ValueError, r"grad_output must be a scalar, as the loss is, got shape \(2,\)"),
    ({"grad_output": "1"}, TypeError, "grad_output must hold real numbers"),
    ({"grad_output": 1.0, "reduction": "none"}, ValueError, r"grad_output must be an array of the loss's shape \(2, 3\)"),
    ({"out": [[0.0] * 3] * 2}, TypeError, r"out must be a NumPy array, got \[\[0.0, 0.0, 0.0\]"),
    ({"out": OUT[:, :2]}, ValueError, r"out must have shape \(2, 3\), got \(2, 2\)"),
    ({"out": OUT.astype(np.float32)}, TypeError, "out must have dtype float64, got float32"),
    ({"out": FROZEN}, ValueError, "out must be writable, got a read-only array"),
    ({"out": OUT, "argnums": (0, 1)}, TypeError, "out must be a tuple of 2 arrays"),
    ({"out": (OUT,), "argnums": (0, 1)}, TypeError, "out must be a tuple of 2 arrays"),
]


@pytest.mark.parametrize(("options", "error", "message"), BAD_METHODS, ids=range(len(BAD_METHODS)))
def test_message_of_methods(options, error, message):
    for loss in (MSE, LOGITS):
        with pytest.raises(error, match=message):
            loss.value_and_grad(X, X, **options)


def test_messages_of_classwise_methods():
    with pytest.raises(TypeError, match="argnums must be 0 where target holds class indices"):
        CE.grad(X, Y, argnums=1)
    with pytest.raises(ValueError, match=r"grad_output must be an array of the loss's shape \(2,\), got shape \(2, 3\)"):
        CE.grad(X, Y, reduction="none", grad_output=X)
    with pytest.raises(ValueError, match=r"vector must have the shape of input, \(2, 3\), got \(3,\)"):
        CE.hvp(X, Y, np.ones(3))
    with pytest.raises(ValueError, match="vector must have the shape of input"):
        MSE.hvp(X, X, np.ones(3))


def test_nothing_is_written_before_an_error():
    out = np.full((2, 3), 7.0)
    outs = (out, np.full((2, 3), 8.0))
    for call in (
        lambda: BCE.grad(X, X * 3, out=out, argnums=1),
        lambda: CE.grad(X, np.array([0, 5]), out=out),
        lambda: CE.grad(X, Y, weight=np.ones(2), out=out),
        lambda: MSE.grad(X, X, reduction="no", out=out),
        lambda: MSE.grad(X, X, grad_output=np.ones(3), out=out),
        lambda: MSE.grad(X, X, argnums=(0, 1), out=(out, FROZEN)),
        lambda: CE.grad(X, Y, argnums=(0, 1), out=outs),
    ):
        with pytest.raises((ValueError, IndexError, TypeError)):
            call()
    assert np.all(out == 7)
    assert np.all(outs[1] == 8)


def test_classes_check_their_options():
    with pytest.raises(TypeError, match="BCELoss has no argument 'pos_weight'"):
        nl.BCELoss(pos_weight=1)
    with pytest.raises(ValueError, match="reduction must be one of"):
        nl.MSELoss(reduction="avg")
    with pytest.raises(ValueError, match="label_smoothing"):
        nl.CrossEntropyLoss(label_smoothing=3)
    with pytest.raises(TypeError, match="takes at most 3 options"):
        nl.MSELoss(None, None, "mean", None)


def test_functions():
    for function in (nl.softmax, nl.log_softmax):
        with pytest.raises(ValueError, match=r"axis must be in \[-2, 2\) .*got 2"):
            function(X, axis=2)
        with pytest.raises(TypeError, match="axis must be an integer, got None"):
            function(X, axis=None)
        with pytest.raises(ValueError, match="grad_output must have the shape of output"):
            function.vjp(X[0], X, axis=1)
        with pytest.raises(ValueError, match="no element along axis"):
            function(np.ones((2, 0)), axis=1)
    for function in (nl.sigmoid, nl.log_sigmoid):
        with pytest.raises(TypeError, match="input must hold real numbers, got dtype complex128"):
            function(1j)
        with pytest.raises(ValueError, match="grad_output must have the shape of output"):
            function.vjp(X[0], X)


@pytest.fixture(params=[loss for loss in nl.LOSSES.values() if loss.spec.checks_domains], ids=lambda loss: loss.__name__)
def bounded(request):
    """A loss whose arguments must lie in intervals."""
    return request.param


@pytest.mark.parametrize("wrong", [-0.25, np.nextafter(np.float32(1), np.float32(2)), np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("n", [1, 600, 5000, 30_000])
def test_one_element_outside_its_interval_is_found(bounded, wrong, n, dtype, rng):
    """In any vector, chunk, block or thread, by whatever method and wherever the result goes."""
    x, t = (inside(interval, n, dtype, rng) for interval in (bounded.spec.input, bounded.spec.target))
    methods = [bounded, bounded.value_and_grad, bounded.grad, bounded.hessian_diag]
    for reduction in ("mean", "none"):
        for method in methods:
            method(x, t, reduction=reduction)
        for i in {0, n // 2, n - 1}:
            for name, array in (("input", x), ("target", t)):
                right, array[i] = array[i], wrong
                for method in methods:
                    with pytest.raises(ValueError, match=rf"{name} must lie in .* got {name}\[{i}\] = "):
                        method(x, t, reduction=reduction)
                with pytest.raises(ValueError, match=rf"{name}\[{i}\]"):
                    bounded.value_and_grad(x, t, reduction=reduction, out=np.empty_like(x))
                array[i] = right


def overlapping(store, reduction):
    """Arguments of which `out` is one, or a part."""
    n = store.size // 3
    x, other, t = store[:n], store[n : 2 * n], store[2 * n :]
    view, whole, small = store[: 2 * n : 2], store[: 2 * n], store.view(np.uint8)[:n]
    own, own_t = x.copy(), t.copy()
    yield x, t, {"out": x}
    yield x, t, {"out": x[:]}
    yield x, t, {"out": t}
    yield x, t, {"out": (x, t), "argnums": (0, 1)}
    yield x.reshape(1, n), t.reshape(1, n), {"out": x.reshape(1, n)}
    yield x.reshape(2, -1).T, t.reshape(2, -1).T, {"out": x.reshape(2, -1).T}
    yield x.reshape(2, -1).T, t.reshape(2, -1).T, {"out": t.reshape(-1, 2)}
    yield list(x.reshape(2, -1)), t.reshape(2, -1), {"out": x.reshape(2, -1)}
    yield x, t, {"out": other, "weight": other}
    yield x, t, {"out": other, "weight": view}
    yield x, t, {"out": other, "weight": memoryview(whole)[::2]}
    yield view, t, {"out": x}
    yield view, t, {"out": view}
    yield t, view, {"out": x}
    yield store[::-1], store, {"out": store}
    yield np.full_like(x, -1), small, {"out": x}
    yield own, own_t, {"out": own}
    if reduction == "none":
        yield x, t, {"out": other, "grad_output": view}
        yield x, t, {"out": other, "grad_output": memoryview(other)}


@pytest.mark.parametrize("n", [2, 600, 30_000])
@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("bad", ["input", "target"])
def test_an_element_outside_its_interval_leaves_the_arguments_as_they_were(bounded, reduction, bad, n, dtype, rng):
    store = np.concatenate([inside(interval, n, dtype, rng) for interval in [bounded.spec.input] * 2 + [bounded.spec.target]])
    store[[n - 1, n, 2 * n - 1] if bad == "input" else -1] = -0.25
    for method in bounded.value_and_grad, bounded.grad:
        for input, target, options in overlapping(store, reduction):
            before, own = store.copy(), np.array(input)
            with pytest.raises(ValueError, match="must lie in"):
                method(input, target, reduction=reduction, **options)
            assert (store == before).all()
            assert (np.array(input) == own).all()


def test_a_gradient_alone_tells_of_elements_and_of_out(bounded, dtype):
    half = np.full(3, 0.5, dtype)
    for argnums in (0, 1, (0,), (0, 1)):
        with pytest.raises(ValueError, match="input must lie in"):
            bounded.grad(-half, half, argnums=argnums)
        out = np.empty(2, dtype)
        with pytest.raises(ValueError, match=r"out must have shape \(3,\)"):
            bounded.grad(half, half, argnums=argnums, out=(out,) * len(argnums) if isinstance(argnums, tuple) else out)


def test_ends_of_an_interval_lie_in_it(bounded, dtype):
    low, high = bounded.spec.input.low, bounded.spec.input.high
    ends = np.array([low, -low, high] * 2, dtype)  # -0 is 0
    assert np.isfinite(bounded(ends, ends[::-1].copy(), reduction="none")).all()


def test_nan_of_weights_is_no_fault_of_the_elements(bounded, dtype):
    half = np.full(3, 0.5, dtype)
    assert np.isnan(bounded(half, half, weight=np.full(3, np.nan)))
