"""Values and derivatives within 8 ulp of the exact result, which mpmath computes from the same inputs."""

import itertools
import math
import zlib

import mpmath
import numpy as np
import pytest

import nlosses as nl
from nlosses._cpu import labels
from nlosses._scalar import MODERATE

#: Largest error that is accepted, in ulp of the exact result: of the smallest subnormal number where that is subnormal.
BOUND = 8
#: Digits of the exact results.  No reference below subtracts like-sized terms, so that nearly all of them are right.
DIGITS = 40
#: What torch puts under x (1 - x) in binary cross entropy, and its limit of -log; both are part of the definition.
FLOOR = float(np.float32(1e-12))
LIMIT = 100.0
#: Where exp(-x) is the smallest subnormal number, or less.
UNDERFLOW = {np.float32: 104.5, np.float64: 746.5}

bce, bcel, ce = nl.binary_cross_entropy, nl.binary_cross_entropy_with_logits, nl.cross_entropy


@pytest.fixture(autouse=True)
def _digits():
    with mpmath.workdps(DIGITS):
        yield


def generator(*seed):
    return np.random.default_rng([zlib.crc32(str(part).encode()) for part in seed])


# --- the measure ------------------------------------------------------------------------------------------------------


def ulps(result, exact, scale, T, underflowed=0):
    """Error of one result in units in the last place of `scale`, beyond so many of the smallest subnormal number."""
    info = np.finfo(T)
    result = float(result)
    if math.isinf(result):  # stands for the first number that is too large
        overflow = mpmath.ldexp(1, int(info.maxexp))
        if abs(exact) > overflow * (1 - info.eps / 4) and (result > 0) == (exact > 0):
            return 0.0
        result = math.copysign(1, result) * overflow
    if math.isnan(result):
        return math.inf
    if mpmath.isinf(exact):
        return 0.0 if math.isinf(result) and (result > 0) == (exact > 0) else math.inf
    exponent = mpmath.mag(scale) if scale else -(10**6)
    last_place = max(exponent - info.nmant - 1, int(info.minexp) - info.nmant)
    excess = abs(result - exact) - mpmath.ldexp(underflowed, int(info.minexp) - info.nmant)
    return float(mpmath.ldexp(max(excess, 0), -last_place))


def assert_accurate(what, result, exact, T, terms=(), underflowed=0):
    """Assert that each element of `result` is within `BOUND` ulp of `exact`, and that it has the precision `T`.

    `terms` is for exact results that are differences of like-sized terms, of which no algorithm in working precision
    can keep the relative accuracy: soft targets, S p - q, log t - x.  There the ulp is that of the largest term.

    `underflowed` is for exponentials that are subnormal numbers already: each is off by up to half of the smallest one, which
    the factor that comes after, or the number of them in a sum, multiplies.  It states that product.
    """
    result = np.asarray(result)
    assert result.dtype == T, (what, result.dtype)
    exact = np.broadcast_to(np.asarray(exact, object), result.shape)
    scale = magnitude(*terms) if terms else exact
    scale = np.broadcast_to(np.asarray(scale, object), result.shape)
    errors = np.array([ulps(r, e, s, T, underflowed) for r, e, s in zip(result.flat, exact.flat, scale.flat, strict=True)])
    errors = errors.reshape(result.shape)
    if errors.size:
        worst = np.unravel_index(np.argmax(errors), errors.shape)
        where = [int(k) for k in worst]
        report = f"{what}{where}: {float(result[worst])!r}, exact {mpmath.nstr(exact[worst], 20)}"
        bad = int((errors > BOUND).sum())
        assert not bad, f"{report}: {errors[worst]:.4g} ulp; {bad} of {errors.size} are beyond {BOUND} ulp"


def assert_reduced(function, x, t, options, exact, divisors, T):
    """Assert that the value and the gradient are accurate for each of the reductions, given by name and divisor."""
    for reduction, divisor in divisors.items():
        value, grad = function.value_and_grad(x, t, **options, reduction=reduction)
        assert_accurate(f"{reduction} value", value, total(exact["value"]) / divisor, T)
        assert_accurate(f"{reduction} gradient", grad, exact["grad"] / divisor, T)


def singly(function, x, t, **options):
    """Value of each element by itself, and gradient of the sum of all.

    This is what 'none' gives but for a loss with a `summand`, from the kernel that 'sum' and 'mean' need too: a kernel is
    cheaper to call than to compile.
    """
    w = options.pop("weight", None)

    def call(part):
        weight = {} if w is None else {"weight": w[part]}
        return function.value_and_grad(x[part], t[part], reduction="sum", **weight, **options)

    return np.array([call(slice(i, i + 1))[0] for i in range(x.size)]), call(slice(None))[1]


def magnitude(*terms):
    """Largest absolute value of the terms, element by element."""
    largest = abs(np.asarray(terms[0], object))
    for term in terms[1:]:
        largest = np.maximum(largest, abs(np.asarray(term, object)))
    return largest


# --- exact functions, on arrays of mpmath's numbers -------------------------------------------------------------------

number = np.frompyfunc(lambda v: mpmath.mpf(float(v)), 1, 1)
exp = np.frompyfunc(mpmath.exp, 1, 1)
log = np.frompyfunc(lambda v: mpmath.log(v) if v else mpmath.ninf, 1, 1)
log1p = np.frompyfunc(lambda v: mpmath.log1p(v) if v != -1 else mpmath.ninf, 1, 1)


def sigmoid(x):
    return 1 / (1 + exp(-x))


def softplus(x):
    return np.maximum(x, mpmath.mpf(0)) + log1p(exp(-abs(x)))


def total(values):
    """Sum of all elements, with no rounding that matters."""
    return mpmath.fsum(np.asarray(values, object).flat)


class Softmax:
    """Softmax along the last axis of x: p, 1 - p and -log p, each without cancellation."""

    def __init__(self, x):
        m = x.max(axis=-1, keepdims=True)
        e = exp(x - m)
        others = _exclusive(e) + _exclusive(e[..., ::-1])[..., ::-1]
        z = e + others
        self.p = e / z
        self.complement = others / z
        rest = log1p(np.take_along_axis(others, np.argmax(x, axis=-1)[..., None], -1))
        self.surprisal = (m - x) + rest


def _exclusive(e):
    """Sums of what stands before each element along the last axis."""
    sums = np.full(e.shape, mpmath.mpf(0), object)
    sums[..., 1:] = np.add.accumulate(e[..., :-1], axis=-1)
    return sums


# --- logits -----------------------------------------------------------------------------------------------------------


def logits(T, n):
    """Logits of either sign: all magnitudes from 1e-30 to 1e20, where the functions vary, and where exp underflows."""
    rng = generator("logits", T, n)
    edge = UNDERFLOW[T]
    special = np.array([0, 0.5, 1, 10, 15, 16, 17, 18, 20, 36, 37, 38, 40, 87, 88, 89, 100, edge - 1, edge])
    parts = [
        10.0 ** rng.uniform(-30, 20, n),
        rng.uniform(0, 30, n),
        rng.uniform(0, edge + 5, n),
        rng.uniform(edge - 20, edge + 1, n),
        special,
    ]
    x = np.concatenate(parts)
    return np.concatenate([x, -x]).astype(T)


def factors(rng, shape, T):
    """Weights of ordinary size."""
    return rng.uniform(0.1, 4, shape).astype(T)


def soft_targets(rng, n):
    t = rng.random(n)
    t[::5] = 10.0 ** rng.uniform(-30, 0, t[::5].size)
    t[1::5] = 1 - 10.0 ** rng.uniform(-16, 0, t[1::5].size)
    t[2::10] = 0.5
    return t


# --- binary cross entropy of logits -----------------------------------------------------------------------------------


def exact_bcel(x, t, w, pw):
    x, t, w, pw = number(x), number(t), number(w), number(pw)
    a, b = pw * t, 1 - t
    up, down = sigmoid(x), sigmoid(-x)
    return {
        "value": w * (a * softplus(-x) + b * softplus(x)),
        "grad": w * (b * up - a * down),
        "grad_terms": (w * b * up, w * a * down),
        "hessian": w * (a + b) * up * down,
        "target": w * (pw * softplus(-x) - softplus(x)) if np.any(pw != 1) else -w * x,
        "target_terms": (w * pw * softplus(-x), w * softplus(x)),
    }


@pytest.mark.parametrize("label", [0, 1])
def test_bcel_hard_labels(dtype, label):
    x = logits(dtype, 40)
    rng = generator("bcel", dtype, label)
    t, w, pw = np.full_like(x, label), factors(rng, x.shape, dtype), factors(rng, x.shape, dtype)
    options = {"weight": w, "pos_weight": pw, "reduction": "none"}
    exact = exact_bcel(x, t, w, pw)
    value, grad = bcel.value_and_grad(x, t, **options)
    assert_accurate("value", value, exact["value"], dtype)
    assert_accurate("gradient", grad, exact["grad"], dtype)
    assert_accurate("hessian_diag", bcel.hessian_diag(x, t, **options), exact["hessian"], dtype)
    target = bcel.grad(x, t, **options, argnums=1)
    assert_accurate("target gradient", target, exact["target"], dtype, exact["target_terms"])


@pytest.mark.parametrize("label", [0, 1])
def test_bcel_hard_labels_without_weights(dtype, label):
    x = logits(dtype, 40)
    t = np.full_like(x, label)
    exact = exact_bcel(x, t, 1, 1)
    for value, grad in (singly(bcel, x, t), bcel.value_and_grad(x, t, reduction="none")):
        assert_accurate("value", value, exact["value"], dtype)
        assert_accurate("gradient", grad, exact["grad"], dtype)


def test_bcel_soft_targets(dtype):
    x = np.concatenate([logits(dtype, 40), generator("soft", dtype).normal(size=200).astype(dtype)])
    rng = generator("bcel soft", dtype)
    t = soft_targets(rng, x.size).astype(dtype)
    w, pw = factors(rng, x.shape, dtype), factors(rng, x.shape, dtype)
    options = {"weight": w, "pos_weight": pw, "reduction": "none"}
    exact = exact_bcel(x, t, w, pw)
    value, grad = bcel.value_and_grad(x, t, **options)
    assert_accurate("value", value, exact["value"], dtype)  # a sum of two terms that are not negative
    assert_accurate("gradient", grad, exact["grad"], dtype, exact["grad_terms"])
    assert_accurate("hessian_diag", bcel.hessian_diag(x, t, **options), exact["hessian"], dtype)
    target = bcel.grad(x, t, **options, argnums=1)
    assert_accurate("target gradient", target, exact["target"], dtype, exact["target_terms"])


@pytest.mark.parametrize("kind", ["usual", "confident and right", "all magnitudes"])
def test_bcel_reduced(dtype, kind):
    rng = generator("bcel reduced", kind)
    n = 2000
    t = rng.integers(0, 2, n)
    x = {
        "usual": rng.normal(0, 3, n),
        "confident and right": rng.uniform(15, UNDERFLOW[dtype], n) * (2 * t - 1),
        "all magnitudes": 10.0 ** rng.uniform(-30, 20, n) * rng.choice([-1, 1], n),
    }[kind].astype(dtype)
    t = t.astype(dtype)
    assert_reduced(bcel, x, t, {}, exact_bcel(x, t, 1, 1), {"sum": 1, "mean": n}, dtype)


@pytest.mark.parametrize("n", [1, 2, 63, 64, 65, 511, 512, 513, 1500, 4097])
def test_bcel_logarithms_of_products(dtype, n):
    """Logits of 0 have the largest product, 2 for each element; and beside them stand those whose logarithm is nearly 0."""
    x = np.zeros(n, dtype)
    x[::3] = generator("products", n).uniform(20, 30, x[::3].size)
    t = (x > 0).astype(dtype)
    for xs, ts in ((x, t), (x[x > 0], t[x > 0]), (np.zeros(n, dtype), np.zeros(n, dtype))):
        assert_reduced(bcel, xs, ts, {}, exact_bcel(xs, ts, 1, 1), {"sum": 1, "mean": xs.size}, dtype)


def test_bcel_sums_of_equal_elements(dtype):
    """Whose roundings are all the same, and do not cancel: of a product alone, of a chunk and of a block."""
    rng = generator("equal", dtype)
    for x in rng.uniform(-8, 8, 60).astype(dtype):
        t = dtype(rng.integers(0, 2))
        exact = exact_bcel(np.array([x]), np.array([t]), 1, 1)["value"][0]
        one_product = np.full(512, dtype(1 - 2 * t) * dtype(-200))  # on the right side: nothing beside the others
        one_product[::64] = x
        for xs, count in ((one_product, 8), (np.full(512, x), 512), (np.full(4096, x), 4096)):
            value = bcel(xs, np.full_like(xs, t), reduction="sum")
            assert_accurate("sum", value, count * exact, dtype)


def test_bcel_large_weights_of_vanishing_probabilities(dtype):
    """Where exp(-x) is subnormal, a weight multiplies what it has lost."""
    x = np.linspace(UNDERFLOW[dtype] - 20, UNDERFLOW[dtype] + 3, 200).astype(dtype)
    one = np.ones_like(x)
    pw = np.full_like(x, 100)
    exact = exact_bcel(x, one, 1, pw)
    value, grad = bcel.value_and_grad(x, one, weight=one, pos_weight=pw, reduction="none")
    assert_accurate("value", value, exact["value"], dtype, underflowed=100)
    assert_accurate("gradient", grad, exact["grad"], dtype, underflowed=100)


# --- binary cross entropy of probabilities ----------------------------------------------------------------------------


def probabilities(T, n):
    """Probabilities near 0 and near 1, at both ends, in between, and where the floor and the limits begin to hold."""
    rng = generator("probabilities", T)
    info = np.finfo(T)
    low = np.log10(float(info.smallest_subnormal))
    near_0 = np.concatenate([10.0 ** rng.uniform(low, 0, n), 10.0 ** rng.uniform(-14, -10, n), [1e-12, 3e-12, 1e-13]])
    near_0 = np.concatenate([near_0, np.exp(-rng.uniform(98, 103, 20)), [float(info.smallest_subnormal), 0.0]])
    near_half = 0.5 + 10.0 ** rng.uniform(-17, -1, n) * rng.choice([-1, 1], n)
    x = np.concatenate([near_0, rng.random(n), near_half]).astype(T)
    near_1 = (1 - near_0).astype(T)
    x = np.concatenate([x, near_1, [T(1) - info.epsneg, T(0.25), T(0.5), T(0.75), T(1)]]).astype(T)
    v = x.astype(np.longdouble) * (1 - x.astype(np.longdouble))
    return x[abs(v / FLOOR - 1) > 1e-5]  # the floor makes the second derivative jump


def exact_bce(x, t, w):
    x, t, w = number(x), number(t), number(w)
    v = x * (1 - x)
    floored = v <= FLOOR
    limit = mpmath.mpf(LIMIT)
    a, b = np.minimum(-log(x), limit), np.minimum(-log1p(-x), limit)
    safe = np.where(floored, mpmath.mpf("0.5"), x)
    curvature = t / safe**2 + (1 - t) / (1 - safe) ** 2
    # log(x) - log(1 - x) as one logarithm on either side of one half
    odds = np.where(x < 0.5, -1, 1) * log1p(abs(1 - 2 * x) / np.where((x == 0) | (x == 1), 1, np.minimum(x, 1 - x)))
    odds = np.where(x == 0, mpmath.ninf, np.where(x == 1, mpmath.inf, odds))
    return {
        "value": w * (t * a + (1 - t) * b),
        "grad": w * (x - t) / np.maximum(v, mpmath.mpf(FLOOR)),
        "hessian": w * np.where(floored, 1 / mpmath.mpf(FLOOR), curvature),
        "target": -w * odds,
    }


@pytest.mark.parametrize("targets", ["0", "1", "soft"])
def test_bce(dtype, targets):
    x = probabilities(dtype, 40)
    rng = generator("bce", dtype, targets)
    t = (soft_targets(rng, x.size) if targets == "soft" else np.full(x.size, float(targets))).astype(dtype)
    w = factors(rng, x.shape, dtype)
    exact = exact_bce(x, t, w)
    value, grad = singly(bce, x, t, weight=w)
    assert_accurate("value", value, exact["value"], dtype)
    assert_accurate("gradient", grad, exact["grad"], dtype)
    hessian = bce.hessian_diag(x, t, weight=w, reduction="none")
    assert_accurate("hessian_diag", hessian, exact["hessian"], dtype)


def test_bce_target_gradient(dtype):
    x = probabilities(dtype, 40)
    w = factors(generator("bce target", dtype), x.shape, dtype)
    target = bce.grad(x, np.zeros_like(x), weight=w, reduction="none", argnums=1)
    assert_accurate("target gradient", target, exact_bce(x, 0 * x, w)["target"], dtype)


def test_bce_reduced(dtype):
    rng = generator("bce reduced", dtype)
    n = 2000
    t = rng.integers(0, 2, n).astype(dtype)
    x = np.where(rng.random(n) < 0.5, 10.0 ** rng.uniform(-30, 0, n), rng.random(n)).astype(dtype)
    w = factors(rng, n, dtype)
    assert_reduced(bce, x, t, {"weight": w}, exact_bce(x, t, w), {"sum": 1, "mean": n}, dtype)


# --- cross entropy ----------------------------------------------------------------------------------------------------

#: Rows and classes of arrays of each driver: rows of more than 48 classes (24 in float64), or of labels alone more than 200
#: (100) or 127 (63) where there are no tables; shorter ones; and tiles for few classes and inner axes.
SHAPES = {
    "rows": [(28, 57), (12, 129), (9, 200), (10, 257), (2, 1000), (1, 5000), (64, 9), (40, 16), (24, 33), (14, 100)],
    "tiles": [(160, 3), (64, 2), (40, 17), (24, 24), (14, 48), (2, 57, 8), (6, 5, 13), (3, 40, 8), (2, 3, 2, 9)],
    "images": [(1, 12, 64), (1, 3, 25, 24)],  # tiles whose classes each lie in one piece: a single one, and one after the other
}


def class_logits(T, shape):
    """Rows of logits: flat, peaked, with ties, with gaps beyond which exp underflows, and far from 0."""
    rng = generator("class logits", T, shape)
    rows, classes = math.prod(shape) // shape[1], shape[1]
    edge = UNDERFLOW[T]
    few = classes <= 8  # a sum of many subnormal exponentials has a test of its own
    x = rng.normal(size=(rows, classes))
    for i in range(rows):
        kind = i % 8 if rows >= 8 else (2 * i + 1) % 8  # the few of many classes: a peak, all gaps
        if kind == 1:  # one class far above all others
            x[i, rng.integers(classes)] += rng.uniform(15, edge + 4 if few else edge - 22)
        elif kind == 2:
            x[i] *= 10
        elif kind == 3:  # all gaps up to underflow
            x[i] = -rng.uniform(0, edge + 2, classes)
        elif kind == 4:  # ties, of the maximum too
            x[i] = rng.integers(-3, 2, classes) * 10.0
        elif kind == 5:  # one against one
            x[i] = -edge - np.log(classes) - rng.uniform(0, 9, classes)
            x[i, rng.permutation(classes)[:2]] = 0, -rng.uniform(0, edge)
        elif kind == 6:
            x[i] = x[i] * 20 + rng.choice([-1, 1]) * 10.0 ** rng.uniform(1, 4)
        elif kind == 7:
            x[i] = 10.0 ** rng.uniform(-30, 20, classes) * rng.choice([-1, 1], classes)
    return rows_to(x.astype(T), shape)


def rows_to(rows, shape):
    """The array of shape (N, C, ...) with these rows of classes."""
    return np.ascontiguousarray(np.moveaxis(rows.reshape(shape[0], *shape[2:], shape[1]), -1, 1))


def to_rows(array):
    return np.moveaxis(array, 1, -1).reshape(-1, array.shape[1])


def labels_of(x, rng):
    """A label for each position: of the maximum, and of other classes, by turns."""
    rows = to_rows(x)
    y = np.where(np.arange(len(rows)) % 2, rng.integers(0, x.shape[1], len(rows)), rows.argmax(axis=1))
    y[::16] = rows[::16].argmax(axis=1)
    return y.reshape(x.shape[0], *x.shape[2:])


EXACT_SOFTMAX: dict = {}


def exact_softmax(x):
    key = (x.dtype, x.shape, zlib.crc32(x.tobytes()))
    if key not in EXACT_SOFTMAX:
        EXACT_SOFTMAX[key] = Softmax(number(to_rows(x)))
    return EXACT_SOFTMAX[key]


def exact_ce(x, q):
    """Loss and derivatives from the rows of coefficients, none of them negative, in the layout of x."""
    s = exact_softmax(x)
    S = q.sum(axis=-1, keepdims=True)
    arrays = {
        "grad": S * s.p - q,
        "hessian": S * s.p * s.complement,
        "Sp": S * s.p,
        "q": q,
    }
    exact = {name: rows_to(a, x.shape) for name, a in arrays.items()}
    exact["value"] = (q * s.surprisal).sum(axis=-1).reshape(x.shape[0], *x.shape[2:])
    exact["grad_terms"] = exact["Sp"], exact["q"]
    return exact


def exact_labels(x, y, w=None):
    """As `exact_ce`, with class indices and without smoothing: the gradient at the label is -w (1 - p)."""
    s = exact_softmax(x)
    w = number(np.ones(x.shape[1]) if w is None else w)
    flat = y.reshape(-1)
    own = w[flat][:, None]
    at = np.arange(len(flat)), flat
    grad = own * s.p
    grad[at] = -(own[:, 0] * s.complement[at])
    return {
        "value": (own[:, 0] * s.surprisal[at]).reshape(y.shape),
        "grad": rows_to(grad, x.shape),
        "hessian": rows_to(own * s.p * s.complement, x.shape),
    }


@pytest.mark.parametrize("driver", SHAPES)
def test_ce_hard_labels(dtype, driver):
    for shape in SHAPES[driver]:
        x = class_logits(dtype, shape)
        y = labels_of(x, generator("labels", shape))
        exact = exact_labels(x, y)
        value, grad = ce.value_and_grad(x, y, reduction="none")
        assert_accurate(f"{shape} value", value, exact["value"], dtype)
        assert_accurate(f"{shape} gradient", grad, exact["grad"], dtype)
        assert_accurate(f"{shape} hessian_diag", ce.hessian_diag(x, y, reduction="none"), exact["hessian"], dtype)


@pytest.mark.parametrize("reach", [MODERATE, labels.MODERATE])
@pytest.mark.parametrize("driver", SHAPES)
def test_ce_moderate_logits(dtype, driver, reach):
    """Rows and tiles of which no logit is large take exp(x) exp(-m) for exp(x - m), or exp(x) as it is."""
    for shape in SHAPES[driver]:
        x = class_logits(dtype, shape).clip(-reach, reach)
        y = labels_of(x, generator("labels", shape))
        exact = exact_labels(x, y)
        value, grad = ce.value_and_grad(x, y, reduction="none")
        assert_accurate(f"{shape} value", value, exact["value"], dtype)
        assert_accurate(f"{shape} gradient", grad, exact["grad"], dtype)
        assert_accurate(f"{shape} hessian_diag", ce.hessian_diag(x, y, reduction="none"), exact["hessian"], dtype)


@pytest.mark.parametrize("reach", [np.inf, labels.MODERATE, 3])
@pytest.mark.parametrize("classes", range(2, 9))
def test_ce_sums_of_few_classes(dtype, classes, reach):
    """Of these few logarithms are taken, of products of some rows."""
    x = class_logits(dtype, (150, classes)).clip(-reach, reach)
    y = labels_of(x, generator("sums", dtype, classes))
    exact = exact_labels(x, y)
    value, grad = ce.value_and_grad(x, y, reduction="sum")
    assert_accurate("value", value, total(exact["value"]), dtype)
    assert_accurate("gradient", grad, exact["grad"], dtype)
    values = np.array([ce(x[i : i + 1], y[i : i + 1]) for i in range(len(x))])
    assert_accurate("values", values, exact["value"], dtype)


@pytest.mark.parametrize("driver", SHAPES)
def test_ce_hard_labels_weighted_mean(dtype, driver):
    for shape in SHAPES[driver]:
        x = class_logits(dtype, shape)
        rng = generator("weighted", dtype, shape)
        y = labels_of(x, rng)
        w = factors(rng, shape[1], dtype)
        w[(int(y.flat[0]) + 1) % shape[1]] = 0
        exact = exact_labels(x, y, w)
        divisor = total(number(w[y]))
        value, grad = ce.value_and_grad(x, y, weight=w)
        assert_accurate(f"{shape} value", value, total(exact["value"]) / divisor, dtype)
        assert_accurate(f"{shape} gradient", grad, exact["grad"] / divisor, dtype)


@pytest.mark.parametrize("driver", SHAPES)
def test_ce_smoothing_with_weights(dtype, driver):
    for shape in SHAPES[driver]:
        x = class_logits(dtype, shape)
        rng = generator("smoothing", dtype, shape)
        y = labels_of(x, rng)
        w = factors(rng, shape[1], dtype)
        smoothing = [0.1, 0.5, 0.999][len(shape) % 3]
        q = mpmath.mpf(smoothing) / shape[1] * np.broadcast_to(number(w), (y.size, shape[1])).copy()
        q[np.arange(y.size), y.reshape(-1)] += (1 - mpmath.mpf(smoothing)) * number(w[y.reshape(-1)])
        exact = exact_ce(x, q)
        options = {"weight": w, "label_smoothing": smoothing, "reduction": "none"}
        value, grad = ce.value_and_grad(x, y, **options)
        assert_accurate(f"{shape} value", value, exact["value"], dtype)  # no term is negative
        assert_accurate(f"{shape} gradient", grad, exact["grad"], dtype, exact["grad_terms"])


@pytest.mark.parametrize("driver", SHAPES)
def test_ce_smoothing(dtype, driver):
    """At the label the gradient is what smoothing takes from it, less what softmax leaves to others: even if both are tiny."""
    for shape in SHAPES[driver]:
        classes = shape[1]
        for x in (class_logits(dtype, shape), class_logits(dtype, shape).clip(-39, 39)):
            y = labels_of(x, generator("plain smoothing", dtype, shape))
            at = np.arange(y.size), y.reshape(-1)
            s = exact_softmax(x)
            of_softmax = s.p.copy()
            of_softmax[at] = s.complement[at]
            for smoothing in (1e-6, 0.01, 0.1, 0.5):
                even = mpmath.mpf(smoothing) / classes
                q = np.full((y.size, classes), even)
                of_target = q.copy()
                q[at] += 1 - mpmath.mpf(smoothing)
                of_target[at] *= classes - 1
                exact = exact_ce(x, q)
                value, grad = ce.value_and_grad(x, y, label_smoothing=smoothing, reduction="none")
                assert_accurate(f"{shape} {smoothing} value", value, exact["value"], dtype)
                terms = rows_to(of_softmax, shape), rows_to(of_target, shape)
                assert_accurate(f"{shape} {smoothing} gradient", grad, exact["grad"], dtype, terms)


@pytest.mark.parametrize("reach", [np.inf, labels.MODERATE])
@pytest.mark.parametrize("driver", SHAPES)
def test_ce_class_probabilities(dtype, driver, reach):
    """With and without class weights: rows that have none, and no large logit, go a quick way."""
    for shape in SHAPES[driver]:
        x = class_logits(dtype, shape).clip(-reach, reach)
        rng = generator("class probabilities", dtype, shape)
        t = rng.dirichlet(np.full(shape[1], 0.3), math.prod(shape) // shape[1])
        t = rows_to(np.where(t < 1e-3 / shape[1], 0, t).astype(dtype), shape)
        w = factors(rng, shape[1], dtype)
        for smoothing, weight in itertools.product((0.0, 0.1), (None, w)):
            kept = 1 - mpmath.mpf(smoothing)
            q = kept * number(to_rows(t)) + mpmath.mpf(smoothing) / shape[1]
            if weight is not None:
                q = q * number(w)
            exact = exact_ce(x, q)
            options = {"weight": weight, "label_smoothing": smoothing, "reduction": "none"}
            value, grad = ce.value_and_grad(x, t, **options)
            assert_accurate(f"{shape} value", value, exact["value"], dtype)
            assert_accurate(f"{shape} gradient", grad, exact["grad"], dtype, exact["grad_terms"])
        options["reduction"] = "mean"
        target = ce.grad(x, t, **options, argnums=1)
        exact_target = rows_to(kept * number(w) * exact_softmax(x).surprisal, shape) / (math.prod(shape) // shape[1])
        assert_accurate(f"{shape} target gradient", target, exact_target, dtype)


@pytest.mark.parametrize("reach", [np.inf, labels.MODERATE])
@pytest.mark.parametrize("driver", SHAPES)
def test_ce_one_hot_probabilities_are_as_good_as_labels(dtype, driver, reach):
    for shape in SHAPES[driver]:
        x = class_logits(dtype, shape).clip(-reach, reach)
        rng = generator("one-hot", shape)
        y = labels_of(x, rng)
        t = rows_to(np.eye(shape[1], dtype=dtype)[y.reshape(-1)], shape)
        for w in (None, factors(rng, shape[1], dtype)):
            exact = exact_labels(x, y, w)
            value, grad = ce.value_and_grad(x, t, weight=w, reduction="none")
            assert_accurate(f"{shape} value", value, exact["value"], dtype)
            assert_accurate(f"{shape} gradient", grad, exact["grad"], dtype)


@pytest.mark.parametrize("shape", [(60, 40), (1500, 3), (80, 5, 9)])
def test_ce_reduced(dtype, shape):
    rng = generator("ce reduced", shape)
    x = (rng.normal(size=shape) * rng.choice([1, 8, 60], (shape[0],) + (1,) * (len(shape) - 1))).astype(dtype)
    y, w = labels_of(x, rng), factors(rng, shape[1], dtype)
    divisors = {"sum": 1, "mean": total(number(w[y]))}
    assert_reduced(ce, x, y, {"weight": w}, exact_labels(x, y, w), divisors, dtype)


@pytest.mark.parametrize("classes", [30, 300, 3000])
def test_ce_certain_among_many_classes(dtype, classes):
    """Where each exponential is subnormal, their sum has lost as many times as much."""
    rng = generator("vanishing", classes)
    shape = (6, classes)
    x = rng.normal(size=shape)
    x[:, 0] += UNDERFLOW[dtype] - np.linspace(20, 0, 6)
    x, y = x.astype(dtype), np.zeros(6, int)
    exact = exact_labels(x, y)
    value, grad = ce.value_and_grad(x, y, reduction="none")
    assert_accurate("value", value, exact["value"], dtype, underflowed=classes)
    assert_accurate("gradient", grad, exact["grad"], dtype, underflowed=classes)


def test_ce_sum_of_nearly_certain_rows(dtype):
    n = 2000
    gap = generator("certain").uniform(17, UNDERFLOW[dtype] - 2, n)
    x = np.stack([gap, np.zeros(n), -gap], axis=1).astype(dtype)
    y = np.zeros(n, int)
    w = np.ones(3, dtype)
    assert_reduced(ce, x, y, {"weight": w}, exact_labels(x, y), {"sum": 1, "mean": n}, dtype)


# --- softmax and its kin ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("driver", SHAPES)
def test_softmax(dtype, driver):
    for shape in SHAPES[driver]:
        x = class_logits(dtype, shape)
        exact = exact_softmax(x)
        if (driver, dtype) != ("tiles", np.float64):  # one of the two will do for a driver that is slow to compile
            assert_accurate(f"{shape} softmax", nl.softmax(x, axis=1), rows_to(exact.p, shape), dtype)
        if (driver, dtype) != ("tiles", np.float32):
            log_p = rows_to(-exact.surprisal, shape)
            assert_accurate(f"{shape} log_softmax", nl.log_softmax(x, axis=1), log_p, dtype)


def test_softmax_products(dtype):
    for shape in [(40, 5), (4, 300), (5, 6, 7)]:
        rng = generator("vjp", shape)
        g = rng.normal(size=shape).astype(dtype)
        e = np.exp(rng.normal(0, 5, shape))
        y = (e / e.sum(axis=1, keepdims=True)).astype(dtype)
        exact_g, exact_y = number(g), number(y)
        dot = (exact_g * exact_y).sum(axis=1, keepdims=True)
        terms = exact_y * exact_g, exact_y * abs(exact_g * exact_y).sum(axis=1, keepdims=True)
        assert_accurate("softmax.vjp", nl.softmax.vjp(g, y, axis=1), exact_y * (exact_g - dot), dtype, terms)
        y = np.log(y)
        p = exp(number(y))
        terms = exact_g, p * abs(exact_g).sum(axis=1, keepdims=True)
        exact = exact_g - p * exact_g.sum(axis=1, keepdims=True)
        assert_accurate("log_softmax.vjp", nl.log_softmax.vjp(g, y, axis=1), exact, dtype, terms)


def test_sigmoid(dtype):
    x = logits(dtype, 80)
    assert_accurate("sigmoid", nl.sigmoid(x), sigmoid(number(x)), dtype)
    assert_accurate("log_sigmoid", nl.log_sigmoid(x), -softplus(-number(x)), dtype)


def test_sigmoid_products(dtype):
    x = logits(dtype, 40)
    g = factors(generator("sigmoid vjp"), x.shape, dtype)
    y, log_y = nl.sigmoid(x), nl.log_sigmoid(x)
    exact = number(g) * number(y) * (1 - number(y))
    assert_accurate("sigmoid.vjp", nl.sigmoid.vjp(g, y), exact, dtype)
    exact = number(g) * -np.frompyfunc(mpmath.expm1, 1, 1)(number(log_y))
    assert_accurate("log_sigmoid.vjp", nl.log_sigmoid.vjp(g, log_y), exact, dtype)


# --- the other losses -------------------------------------------------------------------------------------------------


def pairs(T, n):
    """Predictions and targets: far apart, close together, of all magnitudes."""
    rng = generator("pairs", T)
    x = np.concatenate([rng.normal(size=n), 10.0 ** rng.uniform(-30, 15, n), rng.normal(size=n)])
    t = np.concatenate([rng.normal(size=n), -(10.0 ** rng.uniform(-30, 15, n)), x[2 * n :]])
    t[2 * n :] *= 1 + 10.0 ** rng.uniform(-16, -1, n)
    return x.astype(T), t.astype(T)


@pytest.mark.parametrize("distance", [nl.l1_loss, nl.mse_loss], ids=["l1_loss", "mse_loss"])
def test_l1_and_mse(dtype, distance):
    x, t = pairs(dtype, 120)
    w = factors(generator("l1"), x.shape, dtype)
    squared = distance is nl.mse_loss
    r, exact_w = number(x) - number(t), number(w)
    exact_value = exact_w * (r**2 if squared else abs(r))
    exact_grad = exact_w * (2 * r if squared else np.sign(r))
    value, grad = singly(distance, x, t, weight=w)
    assert_accurate("value", value, exact_value, dtype)
    assert_accurate("gradient", grad, exact_grad, dtype)
    target = distance.grad(x, t, weight=w, reduction="none", argnums=1)
    assert_accurate("target gradient", target, -exact_grad, dtype)
    if squared:
        hessian = distance.hessian_diag(x, t, weight=w, reduction="none")
        assert_accurate("hessian_diag", hessian, 2 * exact_w, dtype)
    exact = {"value": exact_value, "grad": exact_grad}
    assert_reduced(distance, x, t, {"weight": w}, exact, {"sum": 1, "mean": total(exact_w)}, dtype)


@pytest.mark.parametrize("distance", [nl.l1_loss, nl.mse_loss], ids=["l1_loss", "mse_loss"])
def test_sums_of_equal_elements(dtype, distance):
    """All roundings of a running sum have the same sign: the worst that can happen to it."""
    rng = generator("equal")
    for n in (512, 520, 1023, 5000, 16500):
        for c in rng.uniform(1, 2, 200):
            x = np.full(n, c, dtype)
            each = number(x[:1])[0] ** (2 if distance is nl.mse_loss else 1)
            value, _ = distance.value_and_grad(x, np.zeros_like(x), weight=np.ones_like(x), reduction="sum")
            assert_accurate(f"sum of {n} times {c:.17g}", value, n * each, dtype)


def test_sum_of_parts_near_the_largest_number():
    """The sum is 0, but that of every other element is infinite."""
    x = np.full(4096, 1e306)
    weight = np.where(np.arange(x.size) % 2, 1.0, -1.0)
    value, _ = nl.l1_loss.value_and_grad(x, np.zeros_like(x), weight=weight, reduction="sum")
    assert value == 0


@pytest.mark.parametrize("distance", [nl.l1_loss, nl.mse_loss], ids=["l1_loss", "mse_loss"])
def test_mean_of_huge_elements(distance):
    """The elements and their mean are finite, the sum is not in float32; sums are taken in float64."""
    x = np.full(2000, 1e38 if distance is nl.l1_loss else 1e19, np.float32)
    each = number(x[:1])[0] ** (2 if distance is nl.mse_loss else 1)
    value, _ = distance.value_and_grad(x, np.zeros_like(x), weight=np.ones_like(x))
    assert_accurate("mean", value, each, np.float32)


def test_nll(dtype):
    for shape in [(300, 3), (40, 100), (50, 4, 6)]:
        rng = generator("nll", shape)
        x = -abs(class_logits(dtype, shape))
        y, w = rng.integers(0, shape[1], (shape[0], *shape[2:])), factors(rng, shape[1], dtype)
        at = np.arange(y.size), y.reshape(-1)
        own = number(w)[y.reshape(-1)]
        exact_value = -own * number(to_rows(x))[at]
        exact_grad = np.full((y.size, shape[1]), mpmath.mpf(0), object)
        exact_grad[at] = -own
        value, grad = nl.nll_loss.value_and_grad(x, y, weight=w, reduction="none")
        assert_accurate("value", value, exact_value.reshape(y.shape), dtype)
        assert_accurate("gradient", grad, rows_to(exact_grad, shape), dtype)
        value, grad = nl.nll_loss.value_and_grad(x, y, weight=w)
        assert_accurate("mean", value, total(exact_value) / total(own), dtype)
        assert_accurate("mean gradient", grad, rows_to(exact_grad / total(own), shape), dtype)


def test_nll_weighted_mean_of_many_rows(dtype):
    for rows in (1000, 4000):
        rng = generator("many", rows)
        x = -rng.exponential(1, (rows, 10)).astype(dtype)
        y, w = rng.integers(0, 10, rows), factors(rng, 10, dtype)
        own = number(w)[y]
        exact_value = -own * number(x)[np.arange(rows), y]
        value, grad = nl.nll_loss.value_and_grad(x, y, weight=w)
        assert_accurate("mean", value, total(exact_value) / total(own), dtype)
        labelled = grad[np.arange(rows), y][:50]
        assert_accurate("mean gradient", labelled, (-own / total(own))[:50], dtype)


def distributions(T, n):
    """Target probabilities of all magnitudes, and log-probabilities near theirs and far from them."""
    rng = generator("kl", T)
    t = np.concatenate([rng.random(n), 10.0 ** rng.uniform(-30, 0, n), 1 - 10.0 ** rng.uniform(-16, 0, n)]).astype(T)
    t[t == 0] = 0.5
    x = np.log(t) + rng.normal(size=t.size) * 10.0 ** rng.uniform(-8, 1, t.size)
    x[::3] = -(10.0 ** rng.uniform(-20, 5, x[::3].size))
    return x.astype(T), t


def test_kl_div(dtype):
    x, t = distributions(dtype, 150)
    exact_x, exact_t = number(x), number(t)
    log_t = log(exact_t)
    value, grad = singly(nl.kl_div, x, t)
    assert_accurate("value", value, exact_t * (log_t - exact_x), dtype, (exact_t * log_t, exact_t * exact_x))
    assert_accurate("gradient", grad, -exact_t, dtype)
    target = nl.kl_div.grad(x, t, reduction="none", argnums=1)
    assert_accurate("target gradient", target, log_t + 1 - exact_x, dtype, (log_t, 1 + 0 * exact_x, exact_x))


def test_kl_div_of_log_target(dtype):
    x, t = distributions(dtype, 150)
    t = np.log(t)
    t[::7] = -generator("log target").uniform(0, UNDERFLOW[dtype] - 40, t[::7].size)
    exact_x, exact_t = number(x), number(t)
    p = exp(exact_t)
    difference = exact_t - exact_x  # of two inputs: rounded once, it keeps its relative accuracy
    value, grad = singly(nl.kl_div, x, t, log_target=True)
    assert_accurate("value", value, p * difference, dtype)
    assert_accurate("gradient", grad, -p, dtype)
    target = nl.kl_div.grad(x, t, log_target=True, reduction="none", argnums=1)
    assert_accurate("target gradient", target, p * (difference + 1), dtype, (p * exact_t, p * exact_x, p))


def test_kl_div_of_vanishing_log_target(dtype):
    """Where exp(t) is subnormal, the difference multiplies what it has lost."""
    t = -np.linspace(UNDERFLOW[dtype] - 20, UNDERFLOW[dtype] + 3, 200).astype(dtype)
    x = np.full_like(t, -1)
    exact_p, difference = exp(number(t)), number(t) - number(x)
    value, grad = singly(nl.kl_div, x, t, log_target=True)
    assert_accurate("gradient", grad, -exact_p, dtype)
    assert_accurate("value", value, exact_p * difference, dtype, underflowed=int(max(abs(difference))) + 1)


def test_kl_div_reduced(dtype):
    """With x far below log t, no element is negative or a difference of like-sized terms."""
    rng = generator("kl reduced")
    t = rng.random((300, 7)).astype(dtype)
    x = (2 * np.log(t) - rng.exponential(3, t.shape)).astype(dtype)
    exact = {"value": number(t) * (log(number(t)) - number(x)), "grad": -number(t)}
    assert_reduced(nl.kl_div, x, t, {}, exact, {"sum": 1, "mean": t.size, "batchmean": len(t)}, dtype)


# --- where torch loses accuracy ---------------------------------------------------------------------------------------


def softplus_at(x):
    return mpmath.log1p(mpmath.exp(x))


#: Function, method, input, target, dtype, exact result, and what torch 2.13.0 gives on the CPU.
TABLE = [
    (bcel, "value", -10, 0, np.float32, "4.53989e-5", 4.5776e-05),
    (bcel, "value", -15, 0, np.float32, "3.05902e-7", 0),
    (bcel, "value", -20, 0, np.float32, "2.06115e-9", 0),
    (bcel, "value", -88, 0, np.float32, "6.05460e-39", 0),
    (bcel, "grad", 15, 1, np.float32, "-3.05902e-7", -3.576e-7),
    (bcel, "grad", 20, 1, np.float32, "-2.06115e-9", 0),
    (bcel, "grad", 88, 1, np.float32, "-6.05460e-39", 0),
    (ce, "value", [16, 0, 0], 0, np.float32, "2.25070e-7", 2.384e-7),
    (ce, "value", [17, 0, 0], 0, np.float32, "8.27988e-8", 0),
    (ce, "value", [20, 0, 0], 0, np.float32, "4.12231e-9", 0),
    (ce, "value", [90, 0, 0], 0, np.float32, "1.63880e-39", 0),
    (ce, "grad", [17, 0, 0], 0, np.float32, "-8.27988e-8", 0),
    (ce, "grad", [20, 0, 0], 0, np.float32, "-4.12231e-9", 0),
    (ce, "grad", [90, 0, 0], 0, np.float32, "-1.63880e-39", 0),
    (bcel, "grad", 40, 1, np.float64, "-4.24835e-18", 0),
    (bcel, "hessian_diag", 40, 1, np.float64, "4.24835e-18", 0),
]


@pytest.mark.parametrize(("function", "method", "x", "t", "T", "printed", "torch"), TABLE)
def test_table_of_torchs_errors(function, method, x, t, T, printed, torch):
    if function is bcel:
        z = mpmath.mpf(x if t else -x)  # positive where the prediction is right
        wrong = mpmath.exp(-z) / (1 + mpmath.exp(-z))
        sign = -1 if t else 1
        exact = {"value": softplus_at(-z), "grad": sign * wrong, "hessian_diag": wrong / (1 + mpmath.exp(-z))}[method]
        x, t = np.array([x], T), np.array([t], T)
    else:
        others = 2 * mpmath.exp(-mpmath.mpf(x[0]))
        exact = {"value": mpmath.log1p(others), "grad": -others / (1 + others)}[method]
        x, t = np.array([x], T), np.array([t])
    reduction = "none" if function is ce else "sum"
    if method == "hessian_diag":
        result = bcel.hessian_diag(x, t, weight=np.ones(1), pos_weight=np.ones(1), reduction=reduction)
    else:
        result = function.value_and_grad(x, t, reduction=reduction)[method == "grad"]
    result = np.reshape(result, -1)[0]
    assert mpmath.almosteq(exact, mpmath.mpf(printed), rel_eps=mpmath.mpf("2e-6"))  # the table itself
    assert_accurate(f"{function.__name__} {method}", result, exact, T)
    spacing = float(np.spacing(abs(T(float(exact)))))
    assert abs(torch - float(exact)) > BOUND * spacing  # what makes the row worth its place


# --- few classes, whose weights and losses go by a kernel of their own -------------------------------------------------


def of_rows(x, y, weight, ignored):
    """Losses, gradients of their sum, and what a mean divides by, in long double."""
    x, n = x.astype(np.longdouble), np.arange(len(y))
    kept = y != ignored
    label = np.where(kept, y, 0)
    w = np.where(kept, weight.astype(np.longdouble)[label], 0)
    e = np.exp(x - x.max(1, keepdims=True))
    p = e / e.sum(1, keepdims=True)
    rest = np.where(np.arange(x.shape[1]) == label[:, None], 0, p).sum(1)  # 1 - p of the label, without cancellation
    far = p[n, label] < 0.5
    losses = np.where(far, x.max(1) - x[n, label] + np.log(e.sum(1)), -np.log1p(-np.where(far, 0, rest)))
    grad = p
    grad[n, label] = -rest
    return w * losses, w[:, None] * grad, w.sum()


@pytest.mark.parametrize("largest", [1, 30, 39, 79, 300])
@pytest.mark.parametrize("classes", [2, 3, 5, 8])
def test_weights_of_few_classes(classes, largest, dtype, rng):
    """Of logits that are moderate or not, of weights that fit or not, and among rows that are ignored."""
    bound = BOUND * np.finfo(dtype).eps
    tiny = np.finfo(dtype).smallest_subnormal
    for n in (1, 63, 64, 1000, 5000):
        x = rng.uniform(-largest / 2, largest / 2, (n, classes)).astype(dtype)
        y = rng.integers(0, classes, n)
        y[rng.random(n) < 0.1] = -100
        for w in (1, 0, 2.0**-60, 2.0**60):
            weight = rng.uniform(0.5, 2, classes).astype(dtype)
            weight[rng.integers(classes)] = w
            off = 4 * tiny * max(w, 1)  # a weight multiplies the half of the smallest number that a probability is off
            for given in ({}, {"weight": weight}):
                losses, slopes, divisor = of_rows(x, y, given.get("weight", np.ones(classes)), -100)
                found, grad = ce.value_and_grad(x, y, reduction="none", **given)
                np.testing.assert_allclose(found, losses.astype(float), rtol=bound, atol=off)
                np.testing.assert_allclose(grad, slopes.astype(float), rtol=bound, atol=off)
                total, grad = ce.value_and_grad(x, y, reduction="sum", **given)
                np.testing.assert_allclose(total, losses.sum().astype(float), rtol=bound, atol=n * off)
                if divisor > 0:
                    same = x.copy()
                    mean, _ = ce.value_and_grad(same, y, out=same, **given)
                    np.testing.assert_allclose(mean, (losses.sum() / divisor).astype(float), rtol=bound, atol=n * off)
                    exact = (slopes / divisor).astype(float)
                    np.testing.assert_allclose(same, exact, rtol=bound, atol=off / min(1, float(divisor)))


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("w", [1e-12, 1e-10, 1e-30, 3e38, math.inf])
def test_weights_at_the_ends_of_few_classes(classes, w, dtype):
    """A weight times a loss is in float64 before a mean divides, though it may be too large or too small for float32."""
    x = np.zeros((50, classes), dtype)
    x[:, 1] = 37.5
    y = np.ones(50, int)
    weight = np.ones(classes, dtype)
    weight[1] = w
    losses, _, _ = of_rows(x, y, np.ones(classes), -100)
    assert ce(x, y, weight=weight) == pytest.approx(float(losses[0]) if w < math.inf else math.nan, rel=1e-6, nan_ok=True)
    y[:25] = 0
    mean = (losses[0] * weight[1] + 37.5) / (1 + weight[1].astype(float)) if w < math.inf else math.nan
    assert ce(x, y, weight=weight) == pytest.approx(float(mean), rel=1e-6, nan_ok=True)
