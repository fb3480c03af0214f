"""Agreement with torch.nn.functional and torch.autograd, in float64, over random configurations.

Configuration k of a loss is drawn from a generator seeded with (SEED, name, k) alone: ``configuration(name, k)``
repeats it.  Where nlosses means to differ from torch (NaN of 0 times infinity, gradients at logarithms of 0) there are
no such inputs.
"""

import inspect
import os
import warnings
import zlib
from importlib.util import find_spec

import numpy as np
import pytest

import nlosses as nl

pytestmark = pytest.mark.peers

if find_spec("torch") is None:
    if os.environ.get("CI") and os.environ.get("NLOSSES_PEERS") == "1":
        pytest.fail("CI asks for the comparison with torch (NLOSSES_PEERS=1), but torch is not installed", pytrace=False)
    pytest.skip("torch is not installed: pip install nlosses[peers]", allow_module_level=True)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import torch
    import torch.nn.functional as F

torch.set_num_threads(1)

SEED = 20261122
#: Largest difference, relative to the larger of 1 and the largest magnitude.
FIRST_ORDER, SECOND_ORDER = 1e-10, 1e-9
#: Configurations, in parts so that a failure names a hundred of them, not a thousand.
PART, PARTS = (
    100,
    {
        "binary_cross_entropy": 5,
        "binary_cross_entropy_with_logits": 8,
        "cross_entropy": 12,
        "kl_div": 6,
        "l1_loss": 4,
        "mse_loss": 4,
        "nll_loss": 5,
    },
)
CLASSWISE = ("cross_entropy", "nll_loss")
SHAPES = [(), (1,), (7,), (3, 4), (2, 3, 4), (2, 1, 3, 2), (0,), (0, 3), (2, 0, 3), (600,)]
CLASS_SHAPES = [(4,), (40,), (1, 1), (5, 4), (3, 40), (150, 3), (2, 5, 3), (2, 3, 2, 2), (2, 40, 3)]
CLASS_SHAPES += [(0, 4), (0, 40), (0, 3, 2), (2, 3, 0), (2, 3, 0, 2)]
MODULES = {
    "binary_cross_entropy": "BCELoss",
    "binary_cross_entropy_with_logits": "BCEWithLogitsLoss",
    "cross_entropy": "CrossEntropyLoss",
    "kl_div": "KLDivLoss",
    "l1_loss": "L1Loss",
    "mse_loss": "MSELoss",
    "nll_loss": "NLLLoss",
}


# --- configurations ---------------------------------------------------------------------------------------------------


class Configuration:
    """One call: arrays, options, and what to differentiate."""

    def __init__(self, name, index, *, second_order=False):
        self.id = f"configuration({name!r}, {index}, second_order={second_order})"
        self.name, self.second_order = name, second_order
        self.rng = np.random.default_rng([SEED, zlib.crc32(name.encode()), index, second_order])
        self.options, self.legacy = {}, {}
        self.argnums = (0,)
        reductions = ["mean", "sum", "none"] + ["batchmean"] * (name == "kl_div")
        self.options["reduction"] = self.reduction = str(self.rng.choice(reductions))
        if name in CLASSWISE:
            self._classwise()
        else:
            self._elementwise()
        if self.chance(0.1) and self.reduction != "batchmean":  # with which torch divides twice
            self._legacy()
        self.x = self.laid_out(self.x)
        if self.t.dtype.kind == "f":
            self.t = self.laid_out(self.t)
        self.grad_output = self.upstream()

    def __repr__(self):
        shapes = {k: getattr(v, "shape", v) for k, v in self.options.items()}
        argnums, upstream = self.argnums, self.grad_output is not None
        return f"{self.id}: {self.x.shape}, {self.t.shape}, {shapes}, {self.legacy}, {argnums=}, {upstream=}"

    def chance(self, probability):
        return self.rng.random() < probability

    def pick(self, items):
        return items[self.rng.integers(len(items))]

    # Each kernel takes up to seconds to compile: options come together where no kernel treats them apart.

    def _elementwise(self):
        rng, name = self.rng, self.name
        shape = self.pick([s for s in SHAPES if np.prod(s) < 50] if self.second_order else SHAPES)
        inside = rng.uniform(0.01, 0.99, shape)
        self.x = np.asarray(inside if name == "binary_cross_entropy" else rng.normal(0, 3, shape))
        self.t = np.asarray(rng.normal(0, 3, shape))
        if name.startswith("binary"):
            self.t = np.asarray(rng.integers(0, 2, shape).astype(float) if self.chance(0.5) else rng.random(shape))
        if self.chance(0.5) and not self.second_order:
            self.argnums = (0, 1)
        if name == "kl_div":
            self.x = -abs(self.x)
            self.t = np.asarray(rng.uniform(0.01, 1, shape))
            if self.chance(0.5):
                self.options["log_target"] = True
                self.t = np.log(self.t)
            elif self.chance(0.3):
                self.t = np.where(rng.random(shape) < 0.3, 0.0, self.t)
                self.argnums = (0,)  # at t = 0 torch's gradient with respect to it is NaN
            self._broadcast(shape)
        elif name in ("l1_loss", "mse_loss"):
            if self.chance(0.2):
                self.t = np.where(rng.random(shape) < 0.5, self.x, self.t)
            if self.chance(0.5):
                self._broadcast(shape)
            elif self.chance(0.8):
                self.options["weight"] = self.laid_out(rng.uniform(0.1, 3, shape))
                if self.chance(0.2) and not self.second_order:  # of the target alone: see the test of the weighted mean
                    self.t = self.t[self.smaller(shape)]
        elif name == "binary_cross_entropy":
            if self.chance(0.5):
                self.options["weight"] = self.operand(shape)
        else:
            if self.chance(0.5):
                self.options["weight"] = self.operand(shape)
            if self.chance(0.5) or self.second_order:
                self.options["pos_weight"] = self.operand(shape)
            self.t = np.asarray(self.t * 3 - 1 if self.chance(0.2) else self.t)  # not confined to [0, 1]

    def _broadcast(self, shape):
        """Give input or target, or both, a smaller shape that broadcasts to the other's."""
        if self.second_order or self.chance(0.7) or not shape:
            return
        if self.chance(0.7):
            self.t = self.t[self.smaller(shape)]
        if self.chance(0.4):
            self.x = self.x[self.smaller(shape)]

    def smaller(self, shape):
        """An index that leaves out leading axes and cuts others to one element."""
        rng = self.rng
        lead = int(rng.integers(len(shape) + 1)) if 0 not in shape else 0
        return (0,) * lead + tuple(slice(0, 1) if rng.random() < 0.4 else slice(None) for _ in shape[lead:])

    def operand(self, shape):
        """A factor of any shape that broadcasts to `shape`."""
        lead = int(self.rng.integers(len(shape) + 1))
        own = tuple(1 if self.chance(0.4) else n for n in shape[lead:])
        return self.laid_out(np.asarray(self.rng.uniform(0.1, 3, own)))

    def _classwise(self):
        rng, labelled = self.rng, self.name == "nll_loss" or self.chance(0.6)
        shape = self.pick([s for s in CLASS_SHAPES if np.prod(s) < 130] if self.second_order else CLASS_SHAPES)
        classes = shape[min(1, len(shape) - 1)]
        self.x = rng.normal(0, self.pick([1, 5]), shape)
        if self.name == "nll_loss" or self.chance(0.2):
            self.x = np.asarray(nl.log_softmax(self.x, axis=min(1, len(shape) - 1)))
        if self.chance(0.5) or self.second_order:
            self.options["weight"] = rng.uniform(0.1, 3, classes)
        if self.name == "cross_entropy" and (self.second_order or self.chance(0.5)):
            self.options["label_smoothing"] = float(self.pick([0.1, 0.5, 1.0]))
        if not labelled:
            t = rng.random(shape) if self.chance(0.5) else rng.exponential(1, shape) * (rng.random(shape) < 0.6)
            self.t = np.asarray(t)
            if self.chance(0.5) and not self.second_order and ("weight" in self.options) == (self.reduction == "none"):
                self.argnums = (0, 1)
            return
        positions = shape[:1] + shape[2:] if len(shape) > 1 else ()
        self.t = np.asarray(rng.integers(0, classes, positions))
        if self.chance(0.5):
            ignored = int(self.pick([-100, -1, 0, 1, classes + 5]))
            skip = rng.random(positions) < self.pick([0.2, 0.8, 1.0])
            self.t = np.asarray(np.where(skip, ignored, self.t))
            if ignored != -100 or self.chance(0.5):
                self.options["ignore_index"] = ignored

    def _legacy(self):
        """Ask for the reduction by the deprecated switches, which win over `reduction`."""
        self.legacy = self.pick({
            "mean": [{"size_average": True}, {"reduce": True}, {"size_average": True, "reduce": True}],
            "sum": [{"size_average": False}, {"size_average": False, "reduce": True}],
            "none": [{"reduce": False}, {"size_average": True, "reduce": False}],
        }[self.reduction])  # fmt: skip
        self.options["reduction"] = self.pick(["mean", "sum", "none"])

    def upstream(self):
        if self.reduction == "none":
            shape = np.broadcast_shapes(self.x.shape, self.t.shape) if self.name not in CLASSWISE else (
                self.x.shape[:1] + self.x.shape[2:] if self.x.ndim > 1 else ()
            )  # fmt: skip
            return self.laid_out(np.asarray(self.rng.normal(size=shape)))
        return float(self.rng.normal()) if self.chance(0.5) else None

    def laid_out(self, array):
        """The same numbers in some memory layout: C, Fortran, strided, reversed, read-only, permuted axes."""
        array = np.asarray(array)
        if array.ndim == 0:
            return array
        kind = self.pick(["C", "C", "C", "F", "strided", "reversed", "permuted", "read-only"])
        if kind == "F":
            return np.asfortranarray(array)
        if kind == "strided":
            wide = np.zeros((*array.shape[:-1], 2 * array.shape[-1]))
            wide[..., ::2] = array
            return wide[..., ::2]
        if kind == "reversed":
            return np.ascontiguousarray(array[::-1])[::-1]
        if kind == "permuted":
            axes = self.rng.permutation(array.ndim)
            return np.ascontiguousarray(array.transpose(axes)).transpose(np.argsort(axes))
        if kind == "read-only":
            array = array.copy()
            array.flags.writeable = False
        return array

    # --- the two libraries ------------------------------------------------------------------------------------------

    @property
    def warns(self):
        """Categories of nlosses' and torch's warnings."""
        broadcast = self.name in ("l1_loss", "mse_loss") and self.x.shape != self.t.shape
        legacy = bool(self.legacy)
        ours = [UserWarning] * broadcast + [DeprecationWarning] * legacy
        return ours, [UserWarning] * (broadcast + legacy)

    def keywords(self):
        return {**self.options, **self.legacy}

    def nlosses(self):
        """Value and gradients."""
        loss = getattr(nl, self.name)
        argnums = self.argnums if len(self.argnums) > 1 else self.argnums[0]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            value, grads = loss.value_and_grad(self.x, self.t, argnums=argnums, grad_output=self.grad_output, **self.keywords())
        categories = [w.category for w in caught]
        assert sorted(categories, key=str) == sorted(self.warns[0], key=str), (self, caught)
        return value, grads if isinstance(grads, tuple) else (grads,)

    def tensors(self):
        arrays = [tensor(self.x), tensor(self.t)]
        for k in self.argnums:
            arrays[k].requires_grad_()
        options = {k: tensor(v) if isinstance(v, np.ndarray) else v for k, v in self.keywords().items()}
        return arrays, options

    def torch(self):
        """Value and gradients, and the tensors for more."""
        arrays, options = self.tensors()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            value = getattr(F, self.name)(*arrays, **options)
        assert not self.warns[1] or any(w.category in self.warns[1] for w in caught), (self, caught)
        upstream = None if self.grad_output is None else tensor(np.asarray(self.grad_output)).reshape(value.shape)
        upstream = torch.ones_like(value) if upstream is None else upstream
        wanted = [arrays[k] for k in self.argnums]
        grads = torch.autograd.grad(value, wanted, upstream, create_graph=self.second_order)
        return value, grads, arrays[0]


def tensor(array):
    return torch.from_numpy(np.array(array, order="C"))


def configuration(name, index, second_order=False):
    return Configuration(name, index, second_order=second_order)


def assert_close(what, ours, theirs, bound):
    theirs = theirs.detach().numpy(force=True)
    assert np.shape(ours) == theirs.shape, (what, np.shape(ours), theirs.shape)
    assert ours.dtype == theirs.dtype, (what, ours.dtype, theirs.dtype)
    scale = max(1.0, abs(theirs[np.isfinite(theirs)]).max(initial=0))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=bound * scale, err_msg=str(what))


# --- values and derivatives -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "part"), [(name, part) for name, parts in PARTS.items() for part in range(parts)])
def test_random_configurations(name, part):
    for index in range(part * PART, (part + 1) * PART):
        config = configuration(name, index)
        value, grads = config.nlosses()
        torch_value, torch_grads, _ = config.torch()
        assert_close(("value", config), value, torch_value, FIRST_ORDER)
        for k, grad, torch_grad in zip(config.argnums, grads, torch_grads, strict=True):
            assert_close((f"gradient {k}", config), grad, torch_grad, FIRST_ORDER)


@pytest.mark.parametrize("name", ["l1_loss", "mse_loss"])
@pytest.mark.parametrize("shapes", [((3, 1), (3, 4)), ((4,), (3, 4)), ((), (5,))])
def test_weighted_mean_of_a_broadcast_input(name, shapes):
    """The weight has the input's shape; 'mean' divides by the sum of its elements."""
    rng = np.random.default_rng(SEED)
    x, t, w = (rng.uniform(0.1, 3, shape) for shape in (*shapes, shapes[0]))
    x, w = np.asarray(x), np.asarray(w)
    torch_x = tensor(x).requires_grad_()
    with pytest.warns(UserWarning, match="size"):
        torch_value = getattr(F, name)(torch_x, tensor(t), weight=tensor(w))
    with pytest.warns(UserWarning, match="shape"):
        value, grad = getattr(nl, name).value_and_grad(x, t, weight=w)
    assert_close(name, value, torch_value, FIRST_ORDER)
    assert_close(name, grad, torch.autograd.grad(torch_value, torch_x)[0], FIRST_ORDER)


def test_there_are_thousands_of_configurations():
    assert PART * sum(PARTS.values()) >= 3000
    assert set(PARTS) == set(nl.LOSSES) == set(MODULES)


@pytest.mark.parametrize("name", PARTS)
def test_curvature(name):
    """hessian_diag and hvp against double backward."""
    for index in range(40):
        config = configuration(name, index, second_order=True)
        loss = getattr(nl, name)
        vector = config.laid_out(config.rng.normal(size=config.x.shape))
        options = {"grad_output": config.grad_output, **config.keywords()}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            diagonal = loss.hessian_diag(config.x, config.t, **options)
            product = loss.hvp(config.x, config.t, vector, **options)
        _, (grad,), x = config.torch()
        assert_close(("hvp", config), product, hessian_times(grad, x, tensor(vector)), SECOND_ORDER)
        rows = torch.eye(x.numel(), dtype=x.dtype).reshape(x.numel(), *x.shape)
        columns = [hessian_times(grad, x, row).reshape(-1)[i] for i, row in enumerate(rows)]
        torch_diagonal = torch.stack(columns).reshape(x.shape) if columns else torch.zeros_like(x)
        assert_close(("hessian_diag", config), diagonal, torch_diagonal, SECOND_ORDER)


def hessian_times(grad, x, vector):
    """Product by double backward; 0 where the gradient does not depend on x."""
    if not grad.requires_grad:
        return torch.zeros_like(x)
    (product,) = torch.autograd.grad(grad, x, vector.reshape(x.shape), retain_graph=True, allow_unused=True)
    return torch.zeros_like(x) if product is None else product


# --- classes and signatures -------------------------------------------------------------------------------------------


def parameters(function, ignored=("self",)):
    """Names, kinds and defaults, in order."""
    found = inspect.signature(function).parameters.values()
    return [(p.name, p.kind, p.default) for p in found if p.name not in ignored]


@pytest.mark.parametrize("name", PARTS)
def test_signature_of_function(name):
    ours, theirs = parameters(getattr(nl, name)), parameters(getattr(F, name))
    assert ours == theirs[: len(ours)]


@pytest.mark.parametrize("name", PARTS)
def test_signature_of_class(name):
    ours, theirs = parameters(getattr(nl, MODULES[name])), parameters(getattr(torch.nn, MODULES[name]))
    assert ours == theirs[: len(ours)]


@pytest.mark.parametrize("name", PARTS)
def test_classes_agree(name):
    """Options given by position, in torch's order."""
    for index in range(20):
        config = configuration(name, index)
        order = [p[0] for p in parameters(getattr(nl, MODULES[name]))]
        if config.legacy or not set(config.options) <= set(order):
            continue
        last = max(order.index(option) for option in config.options)
        defaults = {p[0]: p[2] for p in parameters(getattr(torch.nn, MODULES[name]))}
        values = [config.options.get(option, defaults[option]) for option in order[: last + 1]]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            ours = getattr(nl, MODULES[name])(*values)
            theirs = getattr(torch.nn, MODULES[name])(*[tensor(v) if isinstance(v, np.ndarray) else v for v in values])
            torch_value = theirs(tensor(config.x), tensor(config.t))
            value = ours(config.x, config.t)
        assert_close(("value", config), value, torch_value, FIRST_ORDER)
