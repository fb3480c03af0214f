"""Tests of the CUDA target in Numba's simulator, against the CPU target; run by `test_cuda_simulator.py`."""

from __future__ import annotations

import contextlib
import itertools
import re
import sys
import types
import warnings
from collections import Counter

import numpy as np
import pytest
from cases import SHAPES, cases, sample
from numba import config, cuda
from test_extension import focal, huber

import gradcheck
import nlosses as nl
from nlosses._verification._device import Copy, OnDevice

assert config.ENABLE_CUDASIM
pytestmark = pytest.mark.filterwarnings("ignore:.*are broadcast to:UserWarning")

#: Largest difference from the CPU's float64, relative to the largest element: some ulp of each.
BOUND = {np.float32: 1e-6, np.float64: 2e-15}


def on_device(value):
    """NumPy arrays as device arrays, everything else as it is."""
    return cuda.to_device(np.array(value, order="C")) if isinstance(value, np.ndarray) else value


def on_host(value):
    return value.copy_to_host() if hasattr(value, "copy_to_host") else value


def assert_close(result, expected, bound):
    result, expected = np.asarray(on_host(result)), np.asarray(expected)
    assert result.dtype == expected.dtype
    assert result.shape == expected.shape
    finite = np.isfinite(expected)
    assert np.array_equal(result[~finite], expected[~finite], equal_nan=True)
    size = np.abs(expected[finite]).max(initial=0)
    assert np.abs(result[finite] - expected[finite]).max(initial=0) <= bound * size


def wide(value):
    return value.astype(np.float64) if isinstance(value, np.ndarray) and value.dtype == np.float32 else value


def both(call, *arrays, bound, **options):
    """Make a call with host and with device arrays, and compare.

    float32 is compared with the CPU's float64: that is the better reference, and half of the kernels to compile for the CPU.
    """
    single = {a.dtype for a in arrays if a.dtype.kind == "f"} == {np.dtype(np.float32)}
    expected = call(*map(wide, arrays), **options) if single else call(*arrays, **options)
    result = call(*map(on_device, arrays), **{k: on_device(v) for k, v in options.items()})
    for r, e in zip(*((v if isinstance(v, tuple) else (v,)) for v in (result, expected)), strict=True):
        assert_close(r, np.asarray(e).astype(np.float32) if single else e, bound)


def of_family(family):
    return [loss for loss in nl.LOSSES.values() if loss.spec.family == family]


def check_values(loss, dtype):
    reductions = itertools.cycle(loss.spec.reductions)
    for x, t, options in cases(loss, dtype):
        both(loss.value_and_grad, x, t, reduction=next(reductions), bound=BOUND[dtype], **options)
    x, t, options = next(cases(loss, dtype))
    for reduction in loss.spec.reductions:
        both(loss, x, t, reduction=reduction, bound=BOUND[dtype])


def check_derivatives(loss, dtype, rng):
    """Each set of options has every derivative in some shape, and each shape with some options; two of them in each case."""
    bound = BOUND[dtype]
    seen = Counter()
    for x, t, options in cases(loss, dtype):
        derivatives = ["hessian_diag", "hvp", "value_and_grad"]
        if loss.spec.family == "elementwise" or t.dtype.kind == "f":
            derivatives.append("target")
        traits = tuple(options), ("shape", x.shape, t.dtype.kind)
        derivatives.sort(key=lambda d: [seen[d, trait] for trait in traits])
        for derivative in derivatives[:2]:
            seen.update((derivative, trait) for trait in traits)
            reduced = seen[derivative, "reduced"] <= seen[derivative, "unreduced"]
            seen[derivative, "reduced" if reduced else "unreduced"] += 1
            up = 2.5 if reduced else rng.normal(size=x.shape if loss.spec.family == "elementwise" else positions(x))
            given = {"reduction": "sum" if reduced else "none", "grad_output": up, **options}
            if derivative == "hvp":  # a difference of terms of like size
                both(loss.hvp, x, t, rng.normal(size=x.shape).astype(dtype), bound=4 * bound, **given)
            elif derivative == "target":
                both(loss.grad, x, t, argnums=1, bound=bound, **given)
            else:
                both(getattr(loss, derivative), x, t, bound=bound, **given)
    assert {seen[derivative, kind] > 0 for derivative in derivatives for kind in ("reduced", "unreduced")} == {True}


def positions(x):
    """Shape of the unreduced loss of logits."""
    return x.shape[:1] + x.shape[2:] if x.ndim > 1 else ()


ELEMENTWISE = pytest.mark.parametrize("one", of_family("elementwise"), ids=lambda x: x.__name__)
CLASSWISE = pytest.mark.parametrize("one", of_family("classwise"), ids=lambda x: x.__name__)


@ELEMENTWISE
def test_values_elementwise(one, dtype):
    check_values(one, dtype)


@ELEMENTWISE
def test_derivatives_elementwise(one, dtype, rng):
    check_derivatives(one, dtype, rng)


@CLASSWISE
def test_values_classwise(one, dtype):
    check_values(one, dtype)


@CLASSWISE
def test_derivatives_classwise(one, dtype, rng):
    check_derivatives(one, dtype, rng)


# --- sizes: below, at and above every limit of the drivers ----------------------------------------------------------------


def test_lengths(dtype, rng):
    from nlosses._cuda import elementwise as driver

    tile = driver.THREADS * driver.VECTORS * 16 // np.dtype(dtype).itemsize
    for n in (0, 1, 3, 4, 5, tile - 1, tile, tile + 1, 2 * tile + 3):
        x, t = rng.normal(size=n).astype(dtype), rng.normal(size=n).astype(dtype)
        for reduction in ("none", "mean"):
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                both(nl.binary_cross_entropy_with_logits.value_and_grad, x, t, reduction=reduction, bound=BOUND[dtype])
    x, t = rng.normal(size=(5, 7, 3)).astype(dtype), rng.uniform(size=(5, 7, 3)).astype(dtype)
    for shape in ((3,), (7, 1), (5, 1, 1), (5, 1, 3), (1, 7, 1), (), (5, 7, 3)):
        w = rng.uniform(size=shape)
        both(nl.binary_cross_entropy_with_logits.value_and_grad, x, t, weight=w, pos_weight=w + 1, bound=BOUND[dtype])


#: Classes that a thread, a warp and a block take, one more, and several chunks; the simulator has warps of 8 threads.
SIZES = [(2, c) for c in (1, 3, 4, 5, 7, 8, 9, 32, 33, 64, 65, 128, 129, 132, 230, 232)]
SIZES += [(2, c, 3) for c in (1, 8, 9, 21)] + [(70, 3), (5, 33), (0, 5), (4, 3, 0)]


@pytest.mark.parametrize("shape", SIZES, ids=str)
def test_class_counts(shape, rng):
    from nlosses._cuda import classwise

    assert classwise.WARP == 8
    labels = shape[:1] + shape[2:]
    for dtype, smoothing in ((np.float32, 0.0), (np.float64, 0.1)):
        x = rng.normal(size=shape, scale=4).astype(dtype)
        t = rng.integers(0, shape[1], labels)
        if t.size > 1:
            t.flat[-1] = -100
        options = {"label_smoothing": smoothing, "weight": rng.uniform(0.5, 2, shape[1]), "bound": 2 * BOUND[dtype]}
        if t.size:
            both(nl.cross_entropy.value_and_grad, x, t, **options)
        both(nl.cross_entropy.value_and_grad, x, t, reduction="none", grad_output=rng.normal(size=labels), **options)
        if shape[1] in (33, 65, 129, 132):
            v = rng.normal(size=shape)
            both(nl.cross_entropy.hvp, x, t, v, **(options | {"bound": 40 * BOUND[dtype]}))
            both(nl.cross_entropy.hessian_diag, x, t, **options)
            p = rng.dirichlet(np.ones(shape[1]), shape[0]).astype(dtype)
            both(nl.cross_entropy.value_and_grad, x, p, **options)
            both(nl.cross_entropy.grad, x, p, argnums=1, **options)


# --- functions ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sigmoid", "log_sigmoid"])
def test_functions_of_elements(name, dtype, rng):
    function = getattr(nl, name)
    for shape in ((), (0,), (1,), (130,), (3, 5)):
        x, g = rng.normal(size=shape, scale=9).astype(dtype), rng.normal(size=shape).astype(dtype)
        if not shape:
            x, g = np.array(x), np.array(g)
        both(function, x, bound=BOUND[dtype])
        y = np.asarray(function(wide(x)), dtype)
        both(function.vjp, g, y, bound=BOUND[dtype])
    values = np.array([0, -0.0, 100, -100, 800, -800, np.inf, -np.inf, np.nan], dtype)
    with np.errstate(all="ignore"):
        both(function, values, bound=BOUND[dtype])


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@pytest.mark.parametrize(
    "shape", [(1,), (5,), (0, 3), (3, 0), (21, 4), (5, 8), (2, 33), (2, 65), (3, 130), (2, 132), (2, 9, 3), (2, 33, 3)], ids=str
)
def test_functions_of_rows(name, shape, dtype, rng):
    function = getattr(nl, name)
    x, g = rng.normal(size=shape, scale=9).astype(dtype), rng.normal(size=shape).astype(dtype)
    axis = len(shape) // 2
    if 0 in shape and shape[axis] == 0:
        for call in (lambda f: function(f(x), axis=axis), lambda f: function.vjp(f(g), f(x), axis)):
            assert message(lambda call=call: call(on_device)) == message(lambda call=call: call(np.asarray))
        return
    both(function, x, axis=axis, bound=BOUND[dtype])
    if shape[0]:
        both(function, x[::-1], axis=0, bound=BOUND[dtype])
    y = function(wide(x) / 5, axis=axis).astype(dtype)
    both(function.vjp, g, y, axis=axis, bound=8 * BOUND[dtype])  # g less a sum, of like size


def test_functions_take_and_give_any_type(rng):
    x, g = rng.normal(size=(4, 6)), rng.normal(size=(4, 6))
    for function in (nl.sigmoid, nl.log_sigmoid, nl.softmax, nl.log_softmax):
        both(function, x.astype(np.float16), bound=1e-3)
        both(function.vjp, g.astype(np.float32), function(x), bound=1e-15)
        both(function.vjp, g, function(x.astype(np.float32)), bound=1e-6)
        both(function, np.arange(6), bound=1e-15)
        strided = view_of(np.repeat(x, 2, axis=1), lambda a: a[:, ::2])
        assert_close(function(strided), function(x), 1e-15)
        for call in (
            lambda f, function=function: function(f(x + 0j)),
            lambda f, function=function: function.vjp(f(g[:2]), f(x)),
        ):
            assert message(lambda call=call: call(on_device)) == message(lambda call=call: call(np.asarray))
    with pytest.raises(ValueError, match="axis must be in"):
        nl.softmax(on_device(x), axis=2)


# --- a user's own losses ----------------------------------------------------------------------------------------------------


def test_own_losses(dtype, rng):
    x, t = rng.normal(size=(3, 40)).astype(dtype) * 3, rng.normal(size=(3, 40)).astype(dtype)
    for delta in (1.0, np.array([[0.5], [1.0], [2.0]])):
        both(huber.value_and_grad, x, t, delta=delta, reduction="none", bound=BOUND[dtype])
        both(huber.hessian_diag, x, t, delta=delta, bound=BOUND[dtype])
    for shape in ((5, 3), (3, 50), (2, 3, 4), (2, 12, 2), (2, 150)):
        x = rng.normal(size=shape).astype(dtype)
        t = rng.integers(0, shape[1], shape[:1] + shape[2:])
        t[0] = -100
        v = rng.normal(size=shape)
        both(focal.value_and_grad, x, t, bound=4 * BOUND[dtype])
        both(focal.hessian_diag, x, t, bound=8 * BOUND[dtype])
        both(focal.hvp, x, t, v, bound=8 * BOUND[dtype])


# --- arrays: layouts, types, kinds -------------------------------------------------------------------------------------------


def view_of(host, take):
    """A device array that is `take` of another one, without a copy."""
    return take(cuda.to_device(host))


def test_layouts(rng):
    x, t = rng.normal(size=(6, 8, 5)), rng.normal(size=(6, 8, 5))
    expected = nl.mse_loss.value_and_grad(x[::2, ::-1, 1:], t[:3, :, :4])
    value, grad = nl.mse_loss.value_and_grad(
        view_of(x, lambda a: a[::2, ::-1, 1:]), view_of(t, lambda a: a[:3, :, :4])
    )  # fmt: skip
    assert value == pytest.approx(expected[0], rel=1e-15)
    assert np.array_equal(on_host(grad), expected[1])
    for take in (lambda a: a[1:], lambda a: a[::2], lambda a: a.reshape(-1)[3:]):  # not aligned to 16 bytes, or strided
        for dtype in (np.float32, np.float64):
            a = x.astype(dtype)
            assert_close(
                nl.l1_loss.grad(view_of(a, take), view_of(a + dtype(1), take)),
                nl.l1_loss.grad(take(a), take(a) + dtype(1)),
                1e-6,
            )
    six = rng.normal(size=(2, 3, 2, 3, 2, 3))

    def many_axes(a):
        return a[:, :2, :, :2, :, :2]

    grad = nl.mse_loss.grad(view_of(six, many_axes), view_of(0 * six, many_axes))
    assert np.array_equal(on_host(grad), nl.mse_loss.grad(many_axes(six), many_axes(0 * six)))
    logits, labels = rng.normal(size=(7, 6)), rng.integers(0, 6, 14)
    expected = nl.cross_entropy.value_and_grad(logits.T.copy(), labels[:6], reduction="none")
    result = nl.cross_entropy.value_and_grad(
        view_of(logits, lambda a: a.T), view_of(labels, lambda a: a[:6]), reduction="none"
    )  # fmt: skip
    for r, e in zip(result, expected, strict=True):
        assert_close(r, e, 1e-14)


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int32, np.uint16, np.uint64, np.bool_])
def test_labels_of_any_type(kind, rng):
    x, t = rng.normal(size=(6, 2)), rng.integers(0, 2, 6).astype(kind)
    for loss in (nl.cross_entropy, nl.nll_loss):
        both(loss.value_and_grad, x, t, bound=1e-15)


def test_types(rng):
    x, t = rng.normal(size=(4, 5)), rng.uniform(size=(4, 5))
    call = nl.binary_cross_entropy_with_logits.value_and_grad
    both(call, x.astype(np.float16), t.astype(np.float16), bound=1e-3)
    both(call, x.astype(np.float32), t, bound=2e-15)
    both(call, x.astype(np.float32), t > 0.5, bound=1e-6)
    both(nl.mse_loss.value_and_grad, np.arange(5), np.ones(5), bound=1e-15)
    both(nl.cross_entropy.value_and_grad, x.astype(np.float16), np.arange(4), bound=1e-3)
    both(call, np.array(0.5), np.array(1.0), bound=1e-15)
    with pytest.raises(TypeError, match="input must hold real numbers, got dtype complex128"):
        nl.mse_loss(on_device(x + 0j), on_device(t))


def test_broadcast_losses(rng):
    x, t = rng.normal(size=(4, 1, 5)), rng.uniform(0.1, 1, size=(3, 5))
    for argnums in (0, 1, (0, 1)):
        expected = nl.kl_div.grad(x, t, argnums=argnums)
        result = nl.kl_div.grad(on_device(x), on_device(t), argnums=argnums)
        for r, e in zip(*(v if isinstance(v, tuple) else (v,) for v in (result, expected)), strict=True):
            assert_close(r, e, 1e-14)
    both(nl.l1_loss.value_and_grad, x[:, :, :1], t[:1, :1], bound=1e-14)


def test_out(rng):
    x, t = rng.normal(size=(4, 5)), rng.uniform(size=(4, 5))
    labels = rng.integers(0, 5, 4)
    for loss, target in ((nl.binary_cross_entropy_with_logits, t), (nl.cross_entropy, labels), (nl.nll_loss, labels)):
        expected = loss.grad(x, target)
        for make in (lambda: cuda.to_device(0 * x), lambda: cuda.to_device(np.zeros((4, 10)))[:, ::2]):
            out = make()
            _, result = loss.value_and_grad(on_device(x), on_device(target), out=out)
            assert result is out
            assert_close(out, expected, 1e-14)
        same = cuda.to_device(x)
        assert loss.grad(same, on_device(target), out=same) is same
        assert_close(same, expected, 1e-14)
        memory = cuda.to_device(np.concatenate([x.ravel(), np.zeros(1)]))
        shifted = memory[1:].reshape(4, 5)
        loss.grad(memory[:-1].reshape(4, 5), on_device(target), out=shifted)  # overlaps, element for another
        assert_close(shifted, expected, 1e-14)
        for out, error in (
            (on_device(x[:2]), ValueError), (on_device(x.astype(np.float32)), TypeError), (0 * x, TypeError),
        ):  # fmt: skip
            with pytest.raises(error, match="out must"):
                loss.grad(on_device(x), on_device(target), out=out)
    outs = cuda.to_device(0 * x), cuda.to_device(0 * t)
    grads = nl.mse_loss.grad(on_device(x), on_device(t), argnums=(0, 1), out=outs)
    assert grads == outs
    for g, e in zip(grads, nl.mse_loss.grad(x, t, argnums=(0, 1)), strict=True):
        assert_close(g, e, 1e-14)
    upstream = cuda.to_device(t)
    result = nl.mse_loss.grad(on_device(x), on_device(t), reduction="none", grad_output=upstream, out=upstream)
    assert_close(result, nl.mse_loss.grad(x, t, reduction="none", grad_output=t), 1e-14)


class Foreign:
    """An array of another library, which is on the device for all that anybody knows."""

    def __init__(self, host, stream=None, read_only=False):
        self.host = host
        self.stream = stream
        self.read_only = read_only

    @property
    def __cuda_array_interface__(self):
        host = self.host
        return {
            "shape": host.shape, "strides": host.strides, "typestr": host.dtype.str, "data": (host.ctypes.data, self.read_only),
            "version": 3, "stream": self.stream,
        }  # fmt: skip


class ByDLPack:
    def __init__(self, host):
        self.host = host

    def __dlpack_device__(self):
        return (2, 0)

    def __dlpack__(self, **options):
        return self.host.__dlpack__()


def test_other_libraries(monkeypatch, rng):
    x, t = rng.normal(size=(4, 5)), rng.normal(size=(4, 5))
    expected = nl.mse_loss.value_and_grad(x, t)
    for kind in (Foreign, ByDLPack):
        value, grad = nl.mse_loss.value_and_grad(kind(x), kind(t))
        assert value == pytest.approx(expected[0], rel=1e-15)
        assert_close(grad, expected[1], 1e-15)
    library = types.ModuleType("library")
    library.from_dlpack = np.from_dlpack
    monkeypatch.setitem(sys.modules, "library", library)
    monkeypatch.setattr(Foreign, "__module__", "library.arrays")
    value, grad = nl.mse_loss.value_and_grad(Foreign(x), Foreign(t))
    assert type(grad) is np.ndarray
    assert np.array_equal(grad, expected[1])
    values = nl.mse_loss(Foreign(x), Foreign(t), reduction="none")
    assert np.array_equal(values, (x - t) ** 2)
    from nlosses._cuda import dlpack

    assert len(dlpack._lent) == 2
    del grad, values
    assert not dlpack._lent
    out = Foreign(0 * x)
    assert nl.mse_loss.grad(Foreign(x), Foreign(t), out=out) is out
    assert np.array_equal(out.host, expected[1])


class Tensor:
    """As much of torch's tensors as is used, in the simulator's memory."""

    is_cuda, layout = True, "strided"

    def __init__(self, host, requires_grad=False):
        self.host, self.dtype, self.shape, self.requires_grad = host, host.dtype.name, host.shape, requires_grad

    @property
    def __cuda_array_interface__(self):
        raise RuntimeError("what requires grad has none")

    def __dlpack_device__(self):
        raise AssertionError("what is asked of is_cuda need not be asked of DLPack")

    def get_device(self):
        return 0

    def is_neg(self):
        return False

    def stride(self):
        return tuple(s // self.host.itemsize for s in self.host.strides)

    def data_ptr(self):
        return self.host.ctypes.data

    def view(self, shape):
        return Tensor(self.host.reshape(shape))


class CuPyArray(Foreign):
    @property
    def data(self):
        return types.SimpleNamespace(ptr=self.host.ctypes.data)

    def reshape(self, shape):
        return CuPyArray(self.host.reshape(shape))


@pytest.fixture
def torch(monkeypatch):
    module = types.ModuleType("torch")
    kinds = ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "bool", "bfloat16")
    vars(module).update({kind: kind for kind in kinds})
    module.Tensor, module.strided = Tensor, "strided"
    module.device = lambda kind, number: (kind, number)
    module.empty = lambda shape, dtype, device: Tensor(np.full(shape, 7, dtype))
    module._C = types.SimpleNamespace(_cuda_getCurrentRawStream=lambda device: 0)
    monkeypatch.setitem(sys.modules, "torch", module)
    monkeypatch.setattr(Tensor, "__module__", "torch")
    return Tensor


@pytest.fixture
def cupy(monkeypatch):
    module = types.ModuleType("cupy")
    module.cuda = types.SimpleNamespace(Device=lambda number: contextlib.nullcontext())
    module.empty = lambda shape, dtype: CuPyArray(np.full(shape, 7, dtype))
    module.from_dlpack = lambda array: ("by DLPack", array)
    monkeypatch.setitem(sys.modules, "cupy", module)
    monkeypatch.setattr(CuPyArray, "__module__", "cupy._core.core")
    return CuPyArray


@pytest.mark.parametrize("library", ["torch", "cupy"])
def test_memory_of_the_callers_library(library, request, rng):
    kind = request.getfixturevalue(library)
    x, labels, v = rng.normal(size=(5, 33)), rng.integers(0, 33, 5), rng.normal(size=(5, 33))
    for host in (x, x[::-1, ::2], x.astype(np.float32), x.astype(np.float16)):
        t = labels % host.shape[1]
        expected = nl.cross_entropy.value_and_grad(host, t)
        value, grad = nl.cross_entropy.value_and_grad(kind(host), kind(t))
        assert value == pytest.approx(expected[0], rel=1e-3 if host.itemsize == 2 else 1e-6)
        assert type(grad) is kind
        assert (grad.host.dtype, grad.host.shape) == (host.dtype, host.shape)
        assert np.allclose(grad.host, expected[1], rtol=1e-3 if host.itemsize == 2 else 1e-5, atol=1e-6)
    out = kind(0 * x)
    assert nl.cross_entropy.hvp(kind(x), kind(labels), kind(v), out=out) is out
    assert np.allclose(out.host, nl.cross_entropy.hvp(x, labels, v))
    wide = nl.kl_div.grad(kind(x[:, :1]), kind(abs(x)), argnums=0)
    assert type(wide) is kind
    assert np.allclose(wide.host, nl.kl_div.grad(x[:, :1], abs(x)))
    assert type(nl.softmax(kind(x))) is kind
    empty = nl.mse_loss.grad(kind(x[:0]), kind(x[:0]))
    assert type(empty) is kind
    assert empty.host.shape == (0, 33)


def test_bfloat16_of_cupy(cupy, rng):
    x = cupy(bits_of(as_bfloat(rng.normal(size=5))[1]).view("V2"))
    way, result = nl.mse_loss.grad(x, x)
    assert way == "by DLPack"
    assert result.array.dtype == np.dtype("V2")


def test_streams(torch, monkeypatch, rng):
    """The host waits for other streams than the first array's before the work, and for the work after it."""
    from nlosses._cuda import _backend

    waited = []
    monkeypatch.setattr(_backend, "synchronize", waited.append)
    x, t = rng.normal(size=5), rng.normal(size=5)
    for first, second, expected in (
        (Foreign(x), Foreign(t), []),
        (Foreign(x, 1), Foreign(t), []),
        (Foreign(x, 1), torch(t), []),  # on the legacy stream, both
        (torch(x), Foreign(t, 64), [64, 0]),
        (Foreign(x, 64), torch(t), [1, 64]),
        (Foreign(x, 64), Foreign(t, 64), []),
        (Foreign(x, 64), ByDLPack(t), [1, 64]),
    ):
        waited.clear()
        nl.mse_loss.grad(first, second)
        assert waited == expected
    waited.clear()
    nl.mse_loss.grad(Foreign(x), Foreign(t), out=Foreign(0 * x, 64))
    assert waited == [64, 0]


def test_memory_that_is_read_only(rng):
    x = rng.normal(size=5)
    nl.mse_loss(Foreign(x, read_only=True), Foreign(x))
    with pytest.raises(ValueError, match="mse_loss: out must be writable, got a read-only array"):
        nl.mse_loss.grad(Foreign(x), Foreign(x), out=Foreign(0 * x, read_only=True))


def test_tensors_that_require_grad(torch, rng):
    x = rng.normal(size=3)
    with pytest.raises(TypeError, match="target cannot be read through __cuda_array_interface__: what requires grad has none"):
        nl.mse_loss(torch(x), torch(x, requires_grad=True))
    with pytest.raises(TypeError, match="input on CUDA device 0, target in host memory"):
        nl.mse_loss(torch(x), x)


# --- bfloat16 ----------------------------------------------------------------------------------------------------------------


@np.errstate(all="ignore")
def bfloat_bits(x):
    """Bits of the bfloat16 next to float32s, the even one of two: the reference, by NumPy."""
    x = np.asarray(x, np.float32)
    bits = x.view(np.uint32)
    down = (bits & 0xFFFF0000).view(np.float32)
    up = ((bits & 0xFFFF0000) + np.uint32(0x10000)).view(np.float32)
    below, above = np.abs(x.astype(np.float64) - down), np.abs(up.astype(np.float64) - x)
    largest = bits & 0x7FFF0000 == 0x7F7F0000  # the next one would be 2**128; it is infinity
    above = np.where(largest, 2.0**120 - below, above)
    odd = bits >> 16 & 1 == 1
    nearest = np.where((below > above) | ((below == above) & odd), up, down)
    return (np.where(np.isnan(x) | np.isinf(x), x, nearest).view(np.uint32) >> 16).astype(np.uint16)


def as_bfloat(x):
    """Floats next to x that bfloat16 has, and a device array of these."""
    bits = bfloat_bits(x)
    return (bits.astype(np.uint32) << 16).view(np.float32), cuda.to_device(bits.view("V2"))


def bits_of(array):
    host = array.copy_to_host()
    assert host.dtype == np.dtype("V2")
    return np.ascontiguousarray(host).view(np.uint16)


def test_bits_of_bfloat16(rng):
    from nlosses._cuda import _backend, arrays, copies

    finest = np.arange(0x3F7FFFF0, 0x3F820010, dtype=np.uint32)[::257]
    special = np.array([0, 0x7F7F7FFF, 0x7F7F8000, 0x7F800000, 1, 0x8000, 0x8001, 0x18000, 0x7F800001, 0x7FFFFFFF], np.uint32)
    bits = np.concatenate([finest, special, rng.integers(0, 2**31, 100, np.uint32)])
    x = np.concatenate([bits, bits | np.uint32(2**31)]).view(np.float32)
    queue = arrays._queue(0, 0, 0)
    out = cuda.to_device(np.zeros(x.size, np.uint16).view("V2"))
    copies.copy(queue, _backend.to_device(x), x.shape, _backend.of_numba(out)[0])
    result, expected = bits_of(out), bfloat_bits(x)
    assert np.array_equal(result[~np.isnan(x)], expected[~np.isnan(x)])
    nan = result[np.isnan(x)]
    assert np.all((nan & 0x7F80 == 0x7F80) & (nan & 0x7F != 0))
    back = cuda.to_device(np.zeros(x.size, np.float32))
    copies.copy(queue, _backend.of_numba(out)[0], x.shape, _backend.of_numba(back)[0])
    assert np.array_equal(back.copy_to_host().view(np.uint32), result.astype(np.uint32) << 16)


def test_bfloat16(loss, rng):
    """Results are those of float32, rounded; a value that is one number is a float32."""
    x, t = sample(loss, (6, 5), np.float32, rng)
    x, dx = as_bfloat(x)
    t, dt = as_bfloat(t) if t.dtype.kind == "f" else (t, on_device(t))
    value, grad = loss.value_and_grad(dx, dt, reduction="sum")
    assert type(value) is np.float32
    assert value == pytest.approx(loss(wide(x), wide(t), reduction="sum"), rel=1e-6)
    single = loss.grad(on_device(x), on_device(t), reduction="sum")
    assert np.array_equal(bits_of(grad), bfloat_bits(single.copy_to_host()))
    values = loss(dx, dt, reduction="none")
    assert np.array_equal(bits_of(values), bfloat_bits(loss(on_device(x), on_device(t), reduction="none").copy_to_host()))
    assert loss.grad(dx, dt, reduction="sum", out=dx) is dx
    assert np.array_equal(bits_of(dx), bits_of(grad))


def test_bfloat16_with_others(rng):
    (x, dx), (t, dt) = as_bfloat(rng.normal(size=(4, 6))), as_bfloat(rng.normal(size=(4, 6)))
    d = on_device
    mse = nl.mse_loss
    assert mse(dx, dt, reduction="none")[::2].dtype == np.dtype("V2")
    assert mse(dx, d(t), reduction="none").dtype == np.float32
    assert mse(d(x), dt, reduction="none").dtype == np.float32
    assert type(mse(dx, d(t.astype(np.float64)))) is np.float64
    expected = bfloat_bits(mse.grad(x.astype(np.float64), t.astype(np.float64)))
    assert np.array_equal(bits_of(mse.grad(dx, d(t.astype(np.float64)))), expected)
    out = cuda.to_device(np.zeros((4, 12), np.uint16).view("V2"))[:, ::2]
    assert mse.grad(dx, dt, out=out) is out
    assert np.array_equal(bits_of(out), bits_of(mse.grad(dx, dt)))
    first, second = mse.grad(dx, dt, argnums=(0, 1))
    assert np.array_equal(bits_of(first), bits_of(second) ^ 0x8000)
    strided = mse.grad(dx[::2, 1:], dt[::2, 1:], reduction="sum")
    assert np.array_equal(bits_of(strided), bits_of(mse.grad(dx, dt, reduction="sum"))[::2, 1:])
    for function in (nl.sigmoid, nl.log_softmax):
        y = function(dx)
        assert np.array_equal(bits_of(y), bfloat_bits(function(d(x)).copy_to_host()))
        assert function.vjp(dt, y).dtype == np.dtype("V2")
    assert mse.grad(cuda.to_device(np.zeros((0, 3), np.uint16).view("V2")), d(np.zeros((0, 3)))).shape == (0, 3)
    with pytest.raises(TypeError, match="out must have dtype bfloat16, got float32"):
        mse.grad(dx, dt, out=d(x))
    with pytest.raises(TypeError, match="out must have dtype float32, got bfloat16"):
        mse.grad(d(x), d(t), out=dx)


def test_bfloat16_of_other_libraries(monkeypatch, rng):
    from nlosses._cuda import _backend, dlpack

    class Bfloat:
        def __init__(self, array):
            self.array = array

        def __dlpack_device__(self):
            return (2, 0)

        def __dlpack__(self, **options):
            return dlpack.Exported(_backend.of_numba(self.array)[0], 0).__dlpack__()

    library = types.ModuleType("library")
    library.from_dlpack = lambda array: Bfloat(_backend.for_numba(dlpack.imported("array", array), 0))
    monkeypatch.setitem(sys.modules, "library", library)
    monkeypatch.setattr(Bfloat, "__module__", "library.arrays")
    dx, dt = (as_bfloat(rng.normal(size=(4, 6)))[1] for _ in range(2))
    grad = nl.mse_loss.grad(Bfloat(dx), Bfloat(dt))
    assert type(grad) is Bfloat
    assert np.array_equal(bits_of(grad.array), bits_of(nl.mse_loss.grad(dx, dt)))
    by_interface = nl.mse_loss.grad(Foreign(bits_of(dx).view("V2")), Foreign(bits_of(dt).view("V2")))
    assert np.array_equal(bits_of(by_interface), bits_of(nl.mse_loss.grad(dx, dt)))


# --- errors ------------------------------------------------------------------------------------------------------------------


def test_mixed_places(rng):
    x, t, w = rng.normal(size=(4, 5)), rng.normal(size=(4, 5)), rng.uniform(size=5)
    d = on_device
    bce = nl.binary_cross_entropy_with_logits
    calls = {
        "input on CUDA device 0, target in host memory": lambda: bce(d(x), t),
        "input in host memory, target on CUDA device 0": lambda: bce.value_and_grad(x, d(t)),
        "weight in host memory": lambda: bce(d(x), d(t), weight=w),
        "weight is on a CUDA device": lambda: bce(x, t, weight=d(w)),
        "pos_weight in host memory": lambda: bce(d(x), d(t), pos_weight=w),
        "vector in host memory": lambda: bce.hvp(d(x), d(t), x),
        "vector is on a CUDA device": lambda: bce.hvp(x, t, d(x)),
        "grad_output in host memory": lambda: bce.grad(d(x), d(t), reduction="none", grad_output=x),
        "grad_output is on a CUDA device": lambda: bce.grad(x, t, reduction="none", grad_output=d(x)),
        "out must be a NumPy array": lambda: bce.grad(x, t, out=d(x)),
        "output in host memory, grad_output on CUDA device 0": lambda: nl.softmax.vjp(d(x), x),
        "output on CUDA device 0, grad_output in host memory": lambda: nl.sigmoid.vjp(x, d(x)),
    }
    for message, call in calls.items():
        with pytest.raises(TypeError, match=re.escape(message)):
            call()
    assert_close(bce(d(x), d(t), weight=2.0, pos_weight=3), bce(x, t, weight=2.0, pos_weight=3), 1e-15)


def message(call):
    with pytest.raises((ValueError, TypeError, IndexError, NotImplementedError)) as caught:
        call()
    return caught.type, str(caught.value)


def test_errors_are_those_of_the_cpu(rng):
    x, t, labels = rng.normal(size=(4, 5)), rng.normal(size=(4, 5)), rng.integers(0, 5, 4)
    d = on_device
    calls = [
        lambda f: nl.mse_loss(f(x), f(t), reduction="all"),
        lambda f: nl.binary_cross_entropy_with_logits(f(x), f(t[:2])),
        lambda f: nl.binary_cross_entropy_with_logits(f(x), f(t), weight=f(np.ones(3))),
        lambda f: nl.mse_loss(f(x), f(t), weight=f(np.ones(5))),
        lambda f: nl.mse_loss.grad(f(x), f(t), grad_output=f(x)),
        lambda f: nl.mse_loss.hvp(f(x), f(t), f(x[0])),
        lambda f: nl.cross_entropy(f(x), f(labels[:2])),
        lambda f: nl.cross_entropy(f(x), f(t[:, 0])),
        lambda f: nl.cross_entropy(f(x), f(labels), weight=f(np.ones(4))),
        lambda f: nl.cross_entropy(f(x), f(abs(t)), ignore_index=1),
        lambda f: nl.cross_entropy.grad(f(x), f(labels), argnums=1),
        lambda f: nl.cross_entropy(f(x[0, 0]), f(labels)),
        lambda f: nl.nll_loss(f(x), f(t)),
        lambda f: huber.grad(f(x), f(t), argnums=1),
        lambda f: nl.binary_cross_entropy(f(x), f(abs(t))),
        lambda f: nl.binary_cross_entropy.grad(f(0.1 * abs(x)), f(t - 9)),
        lambda f: nl.binary_cross_entropy(f(np.array([0.5, np.nan])), f(np.array([0.5, 1])), reduction="none"),
    ]
    for call in calls:
        assert message(lambda call=call: call(d)) == message(lambda call=call: call(lambda a: a))


@CLASSWISE
@pytest.mark.parametrize("shape", [(6, 3), (2, 40), (2, 12, 3), (1, 150)], ids=str)
def test_bad_indices(one, shape, rng):
    loss = one
    x = rng.normal(size=shape)
    calls = itertools.cycle(itertools.product((loss, loss.grad, loss.hessian_diag), ("mean", "none")))
    for bad in (-1, shape[1], -101, 2**40, -(2**62)):
        t = rng.integers(0, shape[1], shape[:1] + shape[2:])
        t.flat[-1] = bad
        call, reduction = next(calls)
        expected = message(lambda c=call, t=t, r=reduction: c(x, t, reduction=r))
        assert message(lambda c=call, t=t, r=reduction: c(on_device(x), on_device(t), reduction=r)) == expected
    t = np.zeros(shape[:1] + shape[2:], np.uint64)
    t.flat[0] = 2**64 - 100
    assert message(lambda: loss(on_device(x), on_device(t))) == message(lambda: loss(x, t))
    t[...] = 0
    assert_close(loss(on_device(x), on_device(t)), loss(x, t), 1e-14)  # and nothing of it is left behind


# --- numbers that are none ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(6, 3), (6, 13), (6, 40), (3, 151), (6, 12, 1)], ids=str)
def test_infinite_logits(shape, dtype):
    x = np.zeros(shape, dtype)
    x[0, 0] = np.inf
    x[1, :2] = np.inf
    x[2] = -np.inf
    x[-1, 1] = np.nan
    x[-2, 1:] = -np.inf
    t = np.zeros(shape[:1] + shape[2:], int)
    t[1] = 1
    with np.errstate(all="ignore"):
        for smoothing in (0.0, 0.1):
            options = {"reduction": "none", "label_smoothing": smoothing, "bound": BOUND[dtype]}
            both(nl.cross_entropy.value_and_grad, x, t, **options)
        t[1:3] = t[-1] = -100
        both(nl.cross_entropy.value_and_grad, x, t, bound=BOUND[dtype])
        t[...] = -100
        both(nl.cross_entropy.value_and_grad, x, t, bound=0)
        both(nl.nll_loss.value_and_grad, x, t, bound=0)


def test_infinite_elements(dtype):
    values = np.array([0, -0.0, 1, -1, 100, -100, np.inf, -np.inf, np.nan, 1e-30, np.finfo(dtype).max], dtype)
    x, t = (a.ravel() for a in np.meshgrid(values, values))
    with np.errstate(all="ignore"):
        for loss in (nl.binary_cross_entropy_with_logits, nl.kl_div, nl.l1_loss, nl.mse_loss):
            expected = loss.value_and_grad(x, t, reduction="none")
            result = loss.value_and_grad(on_device(x), on_device(t), reduction="none")
            for r, e in zip(result, expected, strict=True):
                r = on_host(r)
                assert np.array_equal(np.isnan(r), np.isnan(e))
                finite = np.isfinite(e)
                assert np.array_equal(r[~finite], e[~finite], equal_nan=True)
                assert np.all(abs(r[finite] - e[finite]) <= 8 * np.finfo(dtype).eps * abs(e[finite]))


def test_sums_do_not_overflow():
    x = np.full(1000, 1e38, np.float32)
    assert nl.l1_loss(on_device(x), on_device(0 * x)) == pytest.approx(1e38, rel=1e-6)


# --- sums ------------------------------------------------------------------------------------------------------------------


def test_same_bits_every_time(rng):
    x, t = (rng.normal(size=(50, 41)).astype(np.float32) for _ in range(2))
    labels = rng.integers(0, 41, 50)
    dx, dt, dl = map(on_device, (x, t, labels))
    assert len({nl.mse_loss(dx, dt).tobytes() for _ in range(3)}) == 1
    assert len({nl.cross_entropy(dx, dl).tobytes() for _ in range(3)}) == 1
    shapes = SHAPES["classwise"]
    for loss, shape in itertools.product((nl.cross_entropy, nl.mse_loss), shapes):  # of one call nothing gets into the next
        a, b = sample(loss, shape, np.float32, rng)
        assert_close(loss(on_device(a), on_device(b)), loss(a, b), 1e-6)


def test_classes_and_modules(rng):
    x, t = rng.normal(size=(4, 5)), rng.integers(0, 5, 4)
    criterion = nl.CrossEntropyLoss(label_smoothing=0.1)
    both(criterion.value_and_grad, x, t, bound=1e-14)
    assert type(criterion(on_device(x), on_device(t))) is np.float64


@pytest.mark.parametrize(
    ("fault", "code"), [(None, None), ("value", "value"), ("input", "input-modified"), ("buffer", "overwritten")]
)
def test_the_verification_notices_faults(fault, code, rng):
    """Results and arguments are the host's, but what happens to them on the device is seen."""
    buffer = cuda.to_device(np.zeros(5))

    def gradient(x, t):
        grad = nl.mse_loss.grad(x, t, out=buffer if fault == "buffer" else None)
        if fault == "value":
            grad[3] *= 1 + 1e-14
        if fault == "input":
            t[2] = 0.0
        return grad

    x, t = rng.normal(size=5), rng.normal(size=5)
    result = gradcheck.check_transfer(
        nl.mse_loss.grad, OnDevice(gradient), x, t, sampler=lambda rng: (rng.normal(size=5), t)
    )  # fmt: skip
    assert {finding.code for finding in result.findings} == ({code} if code else set())


def test_layouts_of_the_verification(rng):
    a = rng.normal(size=(4, 6))
    for view in (a, a[::2, ::-1], a.T, a[1:, 2:], a[0, 0, ...], a.astype(np.float16)[:, ::3]):
        copy = Copy(view)
        assert copy.array.shape == view.shape
        assert view.ndim == 0 or copy.array.strides == view.strides
        assert np.array_equal(copy.now(), view)


def test_the_simulator_notices_faults():
    from nlosses._cuda import _backend

    def make(fault, stamp):
        def kernel(x):
            thread = _backend.cuda.threadIdx.x
            if fault == "barrier":
                if thread < 40:
                    _backend.cuda.syncthreads()
            elif fault == "own lane":
                _backend.cuda.shfl_xor_sync(0b1111, 0.0, 1)
            elif fault == "partner":
                if thread % _backend.WARP < 4:
                    _backend.cuda.shfl_xor_sync(0b1111, 0.0, 4)
            elif fault == "outside":
                _backend.store(x, thread, 0.0)
            elif fault == "negative":
                _backend.store(x, thread - 1, 0.0)
            else:
                tile = _backend.cuda.shared.array(64, np.float64)
                tile[thread] = thread
                x[0] = tile[63 - thread]

        return kernel

    x = cuda.to_device(np.zeros(8))
    array = _backend.of_numba(x)[0]
    faults = {"barrier": "never come to the barrier", "outside": "out of bounds", "negative": "negative index"}
    faults |= {"own lane": "without the thread's own", "partner": "with lane 4, which is not among lanes 1111"}
    for fault, error in faults.items():
        with pytest.raises(RuntimeError, match=error):
            _backend.build(make, "kernel", {"fault": fault}, 64).launch(0, 0, 1, array)
    _backend.build(make, "kernel", {"fault": "race"}, 64).launch(0, 0, 1, array)
    assert np.isnan(x.copy_to_host()[0]) or x.copy_to_host()[0] == 0  # the poison, or what was first, instead of 63


def test_the_inspection_finds_its_kernels():
    """What `test_cuda_code` looks at where there is a compiler can be listed where there is none."""
    from benchmarks import cuda_code

    assert len({(s.what, s.dtype) for s in cuda_code.subjects()}) == len(list(cuda_code.subjects())) > 200
