"""The scalar functions against mpmath, in the interpreter and compiled, and the code that they compile to."""

import math
import platform
import re
import subprocess
import sys
from functools import cache
from itertools import pairwise

import mpmath
import numpy as np
import pytest
from numba import njit, types

from nlosses import _scalar as scalar
from nlosses._cpu import _vector as v
from nlosses._cpu._jit import jitable
from nlosses._cpu._scalar import exp_kept, log1p_all

TYPES = [np.float32, np.float64]
UNARY = [f for f in (*scalar.PRIMITIVES, *scalar.COMPOSITIONS) if f.__code__.co_argcount == 1]
BINARY = [scalar.xlogy, scalar.product, scalar.exp_difference, scalar.exp_below]
ALL = [*UNARY, *BINARY, scalar.maximum]

#: Largest error in ulp. The docstrings promise the same.
BOUND = {
    "exp": 1.1, "expm1": 1.2, "log": 1.1, "log1p": 1.1, "tanh": 2, "sigmoid": 2, "softplus": 2, "log_sigmoid": 2,
    "xlogy": 2, "product": 0.5, "exp_difference": 2, "exp_nonpositive": 1.1, "exp_moderate": 1.1, "exp_number": 1.1,
    "log1p_unit": 1.5, "exp_below": 2, "log_half": 1.5, "log1m_half": 1.5,
}  # fmt: skip

#: Functions that are defined on an interval alone.
LIMITED = {
    "exp_nonpositive": (-math.inf, 0), "exp_moderate": (-scalar.MODERATE, scalar.MODERATE),
    "exp_number": (-scalar.MODERATE, scalar.MODERATE), "log1p_unit": (0, 1),
    "log": (5e-324, math.inf), "log1p": (-1 + 2**-53, math.inf),
    "log_half": (5e-324, 0.5), "log1m_half": (0, 0.5),
}  # fmt: skip

inf, nan = math.inf, math.nan
EXACT = {  # arguments and result; the sign of a zero counts
    "exp": [(0.0, 1), (-0.0, 1), (inf, inf), (-inf, 0.0), (nan, nan), (1e5, inf), (-1e5, 0.0)],
    "expm1": [(0.0, 0.0), (-0.0, -0.0), (inf, inf), (-inf, -1), (nan, nan), (1e5, inf), (-1e5, -1)],
    "log": [(0.0, -inf), (-0.0, -inf), (1, 0.0), (inf, inf), (-inf, nan), (-1, nan), (-1e-40, nan), (nan, nan)],
    "log1p": [(0.0, 0.0), (-0.0, -0.0), (-1, -inf), (inf, inf), (-inf, nan), (-2, nan), (nan, nan)],
    "maximum": [
        (1.0, 2.0, 2), (2.0, 1.0, 2), (-inf, -1.0, -1), (nan, 1.0, nan), (1.0, nan, nan), (nan, inf, nan),
        (-inf, -inf, -inf), (nan, nan, nan), (0.0, -1.0, 0.0),
    ],
    "tanh": [(0.0, 0.0), (-0.0, -0.0), (inf, 1), (-inf, -1), (nan, nan), (400, 1), (-400, -1)],
    "sigmoid": [(0.0, 0.5), (-0.0, 0.5), (inf, 1), (-inf, 0.0), (nan, nan), (1e5, 1), (-1e5, 0.0)],
    "softplus": [(inf, inf), (-inf, 0.0), (nan, nan), (1e5, 1e5), (-1e5, 0.0)],
    "log_sigmoid": [(inf, 0.0), (-inf, -inf), (nan, nan), (1e5, 0.0), (-1e5, -1e5)],
    "xlogy": [
        (0.0, 0.0, 0.0), (0.0, inf, 0.0), (0.0, -1.0, 0.0), (-0.0, 0.0, 0.0), (0.0, nan, nan), (nan, 0.0, nan),
        (nan, 1.0, nan), (1.0, 0.0, -inf), (-2.0, 0.0, inf), (2.0, inf, inf), (1.0, -1.0, nan), (3.0, 1.0, 0.0),
    ],
    "product": [
        (0.0, inf, 0.0), (-0.0, -inf, 0.0), (0.0, nan, nan), (nan, 0.0, nan), (2.0, inf, inf), (inf, 0.0, nan),
        (2.0, 3.0, 6.0), (1e30, -1e300, -inf),
    ],
    "exp_nonpositive": [(0.0, 1), (-0.0, 1), (-inf, 0.0), (nan, nan), (-1e5, 0.0)],
    "exp_moderate": [(0.0, 1), (-0.0, 1), (nan, nan)],
    "exp_number": [(0.0, 1), (-0.0, 1)],
    "log1p_unit": [(0.0, 0.0), (nan, nan)],
    "log_half": [(0.0, -inf), (-0.0, -inf), (nan, nan)],
    "log1m_half": [(0.0, -0.0), (nan, nan)],
    "exp_below": [
        (-inf, 0.0, 0.0), (-inf, -1e30, 0.0), (0.0, inf, 0.0), (1.5, 1.5, 1), (-1e30, -1e30, 1), (nan, 0.0, nan),
        (0.0, nan, nan), (nan, inf, nan), (-inf, nan, nan), (inf, inf, nan), (-inf, -inf, nan), (-1e30, -1e13, 0.0),
        (-3e38, 3e38, 0.0), (0.1, 300000.1, 0.0),
    ],
    "exp_difference": [
        (-inf, 0.0, 0.0), (-inf, -1e30, 0.0), (0.0, inf, 0.0), (inf, 0.0, inf), (1.5, 1.5, 1), (-1e30, -1e30, 1),
        (nan, 0.0, nan), (0.0, nan, nan), (nan, inf, nan), (-inf, nan, nan), (inf, inf, nan), (-inf, -inf, nan),
        (1e30, 1e13, inf), (-1e30, -1e13, 0.0), (3e38, -3e38, inf), (-3e38, 3e38, 0.0), (0.1, 300000.1, 0.0),
    ],
}  # fmt: skip


# --- helpers ----------------------------------------------------------------------------------------------------------


@cache
def compiled(function):
    """The loop that kernels are made of, around one function."""
    jitable(function)
    if function.__code__.co_argcount == 1:

        def loop(x, y):
            for i in range(x.size):
                y[i] = function(x[i])

    else:

        def loop(a, b, y):
            for i in range(a.size):
                y[i] = function(a[i], b[i])

    return njit(error_model="numpy", fastmath={"contract"})(loop)


def run_compiled(function, *arguments):
    out = np.empty_like(arguments[0])
    compiled(function)(*arguments, out)
    return out


def run_interpreted(function, *arguments):
    T = arguments[0].dtype.type
    with np.errstate(all="ignore"):
        results = [function(*map(T, point)) for point in zip(*(a.tolist() for a in arguments), strict=True)]
    assert all(type(r) is T for r in results)
    return np.array(results, T)


ENGINES = [run_interpreted, run_compiled]


def reference(name, *point):
    """The exact result, as far as 30 digits go."""
    x, *more = map(mpmath.mpf, point)
    rest = mpmath.log1p(mpmath.exp(-abs(x))) if name in ("softplus", "log_sigmoid") else None
    return {
        "exp": mpmath.exp,
        "exp_nonpositive": mpmath.exp,
        "exp_moderate": mpmath.exp,
        "exp_number": mpmath.exp,
        "expm1": mpmath.expm1,
        "log": mpmath.log,
        "log1p": mpmath.log1p,
        "log1p_unit": mpmath.log1p,
        "log_half": mpmath.log,
        "log1m_half": lambda x: mpmath.log1p(-x),
        "tanh": mpmath.tanh,
        "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
        "softplus": lambda x: max(x, 0) + rest,
        "log_sigmoid": lambda x: min(x, 0) - rest,
        "xlogy": lambda a, y: a * mpmath.log(y),
        "product": lambda a, y: a * y,
        "exp_difference": lambda a, b: mpmath.exp(a - b),
        "exp_below": lambda a, b: mpmath.exp(a - b),
    }[name](x, *more)


def ulps(result, exact, T):
    """Error of `result` in units in the last place of `exact`."""
    info = np.finfo(T)
    overflow = mpmath.ldexp(1, int(info.maxexp))  # an infinity stands for the first number that is too large
    if math.isinf(result):
        if abs(exact) > overflow and (result > 0) == (exact > 0):
            return 0.0
        result = math.copysign(1, result) * overflow
    exponent = mpmath.mag(exact) if exact else -(10**6)
    spacing = mpmath.ldexp(1, max(exponent - info.nmant - 1, int(info.minexp) - info.nmant))
    return float(abs(mpmath.mpf(result) - exact) / spacing)


def assert_accurate(engine, function, *arguments):
    name, T = function.__name__, arguments[0].dtype.type
    results = engine(function, *arguments)
    with mpmath.workdps(30):
        points = zip(*(a.tolist() for a in arguments), strict=True)
        errors = [ulps(r, reference(name, *point), T) for r, point in zip(results.tolist(), points, strict=True)]
    worst = int(np.argmax(errors))
    assert not np.isnan(results).any(), [a[np.isnan(results)][:5] for a in arguments]
    assert errors[worst] <= BOUND[name], (name, [a[worst] for a in arguments], results[worst], errors[worst])


def domain(name, x):
    x = x[np.isfinite(x)]
    low, high = LIMITED.get(name, (-inf, inf))
    return x[(x >= low) & (x <= high)]


def regions(T, per_region=300):
    """Random points of either sign, evenly spread over the binades of each region, subnormal numbers included."""
    info = np.finfo(T)
    least, most = int(info.minexp) - info.nmant, int(info.maxexp)
    edges = [least, int(info.minexp), -2 * info.nmant, -info.nmant - 3, -10, -4, -1, 1, 4, 7, 11, most]
    rng = np.random.default_rng(7)
    spans = [rng.uniform(lo, hi, per_region) for lo, hi in pairwise(edges)]
    x = np.exp2(np.concatenate(spans)).astype(T)
    return np.concatenate([x, -x])


def critical(T):
    """Edges of the format, of the functions and of their implementations, each with its neighbours."""
    info = np.finfo(T)
    tiny, least, greatest = float(info.smallest_normal), float(info.smallest_subnormal), float(info.max)
    ln2 = math.log(2)
    edges = [least, 3 * least, tiny / 2, tiny, info.eps / 8, info.eps / 4, info.eps / 2, 0.25, 0.5, 1, 2, 3, greatest]
    edges += [math.log(greatest), -math.log(tiny), -math.log(least), -math.log(least) + ln2, greatest / math.sqrt(2)]
    edges += [scalar.MODERATE, 18, 38, 89, 104, 710, 746, math.log(3) / 2]  # bounds of exp and expm1, change of form in tanh
    edges += [(k + 0.5) * ln2 for k in (0, 1, 2, 23, 24, 25, 51, 52, 53, 54, 126, 127)]  # change of exponent in exp
    edges += [2.0**k * math.sqrt(0.5) for k in range(-3, 4)] + [math.sqrt(2) - 1, 1 - math.sqrt(0.5)]  # and in log
    edges += [2.0**k for k in range(info.nmant - 1, info.nmant + 3)]  # where 1 + x becomes x
    x = np.array([*edges, *(-e for e in edges)], T)
    up, down = x, x
    points = [x]
    with np.errstate(all="ignore"):
        for _ in range(3):
            up, down = np.nextafter(up, T(inf)), np.nextafter(down, T(-inf))
            points += [up, down]
    return np.unique(np.concatenate(points))


def operands(name, T):
    """Pairs of arguments for a function of two."""
    rng = np.random.default_rng(11)
    x = regions(T, 60)
    big = np.log(np.finfo(T).max)
    if name == "xlogy":
        return rng.permutation(x), np.abs(x)
    if name == "product":
        return rng.permutation(x), x
    b = np.concatenate([x, rng.uniform(-30, 30, 1000), rng.uniform(-1e4, 1e4, 1000)]).astype(T)
    below = np.concatenate([rng.exponential(3, b.size // 2), rng.uniform(-big, 1.3 * big, b.size - b.size // 2)])
    with np.errstate(over="ignore"):
        a = (b - below).astype(T)
    kept = np.isfinite(a) & ((a <= b) | (name != "exp_below"))
    return a[kept], b[kept]


# --- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("T", TYPES)
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("function", UNARY)
def test_random_points_of_every_region(function, engine, T):
    assert_accurate(engine, function, domain(function.__name__, regions(T)))


@pytest.mark.parametrize("T", TYPES)
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("function", UNARY)
def test_critical_points(function, engine, T):
    assert_accurate(engine, function, domain(function.__name__, critical(T)))


@pytest.mark.parametrize("T", TYPES)
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("function", BINARY)
def test_random_pairs(function, engine, T):
    assert_accurate(engine, function, *operands(function.__name__, T))


@pytest.mark.parametrize("T", TYPES)
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("function", ALL)
def test_exact_values(function, engine, T):
    with np.errstate(over="ignore"):
        *arguments, expected = np.array(EXACT[function.__name__]).T.astype(T)
    arguments = [np.ascontiguousarray(a) for a in arguments]
    result = engine(function, *arguments)
    np.testing.assert_array_equal(result, expected)
    zero = expected == 0
    np.testing.assert_array_equal(np.signbit(result[zero]), np.signbit(expected[zero]))


@pytest.mark.parametrize("T", TYPES)
@pytest.mark.parametrize("engine", ENGINES)
def test_maximum(engine, T):
    a, b = regions(T, 30), np.random.default_rng(3).permutation(regions(T, 30))
    np.testing.assert_array_equal(engine(scalar.maximum, a, b), np.maximum(a, b))


NUMPY = {
    "exp": np.exp,
    "exp_nonpositive": np.exp,
    "exp_moderate": np.exp,
    "exp_number": np.exp,
    "expm1": np.expm1,
    "log": np.log,
    "log1p_unit": np.log1p,
    "log_half": np.log,
    "log1m_half": lambda x: np.log1p(-x),
    "log1p": np.log1p,
    "tanh": np.tanh,
    "sigmoid": lambda x: np.exp(np.minimum(x, 0)) / (1 + np.exp(-abs(x))),
    "softplus": lambda x: np.maximum(x, 0) + np.log1p(np.exp(-abs(x))),
    "log_sigmoid": lambda x: np.minimum(x, 0) - np.log1p(np.exp(-abs(x))),
}


@pytest.mark.parametrize("function", UNARY)
def test_dense_float32(function):
    """Every 4099th float32, and a million where the function varies, against NumPy in float64."""
    name = function.__name__
    everywhere = np.arange(0, 2**32, 4099, dtype=np.uint64).astype(np.uint32).view(np.float32)
    rng = np.random.default_rng(5)
    inside = np.concatenate([rng.uniform(-2, 2, 500_000), rng.uniform(-110, 95, 500_000)]).astype(np.float32)
    x = np.concatenate([everywhere, inside])
    if name in LIMITED and name not in ("log", "log1p"):  # those have values, if not numbers, everywhere
        x = domain(name, x)
    result = run_compiled(function, x)
    with np.errstate(all="ignore"):
        exact = NUMPY[name](x.astype(np.float64))
        rounded = exact.astype(np.float32)
    special = ~np.isfinite(rounded)
    np.testing.assert_array_equal(result[special], rounded[special])
    spacing = np.ldexp(1.0, np.maximum(np.frexp(exact[~special])[1] - 24, -149))
    errors = abs(result[~special] - exact[~special]) / spacing
    worst = int(np.argmax(errors))
    assert errors[worst] <= BOUND[name], (x[~special][worst], errors[worst])


@pytest.mark.parametrize("function", UNARY)
def test_results_have_the_type_of_the_argument(function):
    assert [type(function(T(0.5))) for T in (float, *TYPES)] == [float, *TYPES]
    jitable(function)
    call = njit(lambda x: function(x))
    for T in TYPES:
        call(T(0.5))
    assert [s.return_type for s in call.nopython_signatures] == [types.float32, types.float64]


@pytest.mark.parametrize("function", [f for f in UNARY if f in scalar.PRIMITIVES])
def test_integers_count_as_float64(function):
    jitable(function)
    call = njit(lambda x: function(x))
    assert call(3) == call(3.0)
    assert type(call(3)) is float
    assert type(function(3)) is float


@njit(error_model="numpy")
def exponentials(x, out):
    for i in range(0, x.size, v.lanes_of(x)):
        numbers = v.load(x, i)
        v.store(out[0], i, exp_kept(numbers, v.unknown_zero(x)))
        v.store(out[1], i, scalar.exp_number(numbers))
        v.store(out[2], i, exp_kept(numbers, scalar.exp_number(numbers) * x.dtype.type(0)))


@pytest.mark.parametrize("T", TYPES)
def test_exponentials_of_vectors(T):
    """All ways to them give the same bits."""
    jitable(scalar.exp_number)
    changes = (np.arange(-2008, 2008, 3) + 0.5) * math.log(2) / v.TABLE  # of the number that is looked up
    x = np.concatenate([regions(T, 40), critical(T), changes.astype(T), np.linspace(-87, 87, 10_000, dtype=T)])
    x = domain("exp_number", x)
    x = np.resize(x, -(-x.size // 64) * 64)
    out = np.empty((3, x.size), T)
    exponentials(x, out)
    np.testing.assert_array_equal(out, np.broadcast_to(out[0], out.shape))
    with mpmath.workdps(30):
        points = zip(x.tolist(), out[0].tolist(), strict=True)
        assert max(ulps(e, reference("exp_number", number), T) for number, e in points) <= BOUND["exp_number"]


VECTORS = [scalar.exp_nonpositive, scalar.exp_moderate, scalar.exp_number, scalar.log1p_unit]
#: By tables alone.
LOOKED_UP = [scalar.exp, scalar.log, scalar.log_half, scalar.log1m_half] * v.has_tables()


@cache
def of_vectors(function):
    jitable(function)

    @njit(error_model="numpy")
    def results(x, out):
        for i in range(0, x.size, v.lanes_of(x)):
            v.store(out, i, function(v.load(x, i)))

    return results


@pytest.mark.parametrize("T", TYPES)
@pytest.mark.parametrize("function", VECTORS + LOOKED_UP)
def test_functions_of_vectors(function, T):
    """As accurate as those of numbers, though they may look up what those compute."""
    name = function.__name__
    high = 1 if name == "log1p_unit" else 110
    nodes = (np.arange(0, 3000) + 0.5) * math.log(2) / v.TABLE  # where the number that is looked up changes
    x = np.concatenate(
        [regions(T, 40), critical(T), nodes.astype(T), -nodes.astype(T), np.linspace(-high, high, 5000, dtype=T)]
    )
    ends = np.outer(2.0 ** np.arange(-6, 5), np.arange(1, 2, 1 / 32)).astype(T).ravel()  # as for a logarithm
    ends = np.concatenate([ends, np.nextafter(ends, T(0)), np.nextafter(ends, T(9)), ends * T(1.01)])
    x = np.concatenate([x, np.linspace(0, 2, 1801, dtype=T), ((np.arange(30) + 0.5) / 30).astype(T), ends])
    x = domain(name, x)
    x = np.resize(x, -(-x.size // 64) * 64)
    out = np.empty_like(x)
    of_vectors(function)(x, out)
    with mpmath.workdps(30):
        errors = [ulps(y, reference(name, number), T) for number, y in zip(x.tolist(), out.tolist(), strict=True)]
    worst = int(np.argmax(errors))
    assert errors[worst] <= BOUND[name], (x[worst], out[worst], errors[worst])
    for arguments in EXACT[name]:
        of_vectors(function)(np.full(64, arguments[0], T), out)
        np.testing.assert_array_equal(out[:16], T(arguments[1]))


@njit
def _log1p_all(x, n):
    log1p_all(x, n)


@pytest.mark.parametrize("T", TYPES)
def test_log1p_all(T):
    """Of numbers that are not negative, by tables where there are some."""
    ends = np.outer(2.0 ** np.arange(-70, 100), np.arange(1, 2, 1 / 32)).astype(T).ravel()
    below_one = np.outer(2.0 ** np.arange(0, 5), np.arange(1, 2, 1 / 32)).astype(T).ravel() - T(1)  # where 1 + x is such an end
    ends = np.concatenate([ends, below_one])
    ends = np.concatenate([ends, np.nextafter(ends, T(0)), np.nextafter(ends, T(np.inf)), ends * T(1.01)])
    x = np.concatenate([np.abs(regions(T, 40)), ends, np.linspace(0, 3, 5000, dtype=T)])
    x = x[x < np.finfo(T).max / 4]
    count = x.size
    found = np.resize(x, -(-count // 32) * 32)
    _log1p_all(found, count)
    with mpmath.workdps(30):
        errors = [ulps(y, reference("log1p", a), T) for a, y in zip(x.tolist(), found[:count].tolist(), strict=True)]
    worst = int(np.argmax(errors))
    assert errors[worst] <= 1.5, (x[worst], found[worst], errors[worst])
    special = np.array([np.nan, 0.0] * 16, T)
    _log1p_all(special, 32)
    np.testing.assert_array_equal(special, np.array([np.nan, 0.0] * 16, T))


def test_documented_bounds_are_the_tested_ones():
    for function in (*UNARY, scalar.xlogy, scalar.exp_difference):
        assert f"within {BOUND[function.__name__]} ulp" in function.__doc__, function.__name__


# --- code -------------------------------------------------------------------------------------------------------------

VECTOR = {
    "x86_64": r"\bv?(add|sub|mul|div|max|min|fn?m(add|sub)\d+)p[sd]\b",
    "aarch64": r"\bf(add|sub|mul|div|max|min|mla|mls)\b.*\.?(4s|2d)\b",
}
VECTOR["AMD64"], VECTOR["arm64"] = VECTOR["x86_64"], VECTOR["aarch64"]


def code_of(function, T, inspect):
    run_compiled(function, *[np.ones(8, T)] * function.__code__.co_argcount)
    listing = getattr(compiled(function), inspect)()
    return next(text for signature, text in listing.items() if str(signature[0].dtype) == np.dtype(T).name)


def innermost_loops(assembly):
    """The basic blocks that jump back to their own beginning."""
    label, block = None, []
    for line in assembly.splitlines():
        if match := re.match(r"([.\w$]+):", line):
            label, block = match[1], []
        else:
            block.append(line)
            if label and re.match(rf"\s+(j\w+|b\.?\w*|cbn?z|tbn?z)\s.*{re.escape(label)}\b", line):
                yield "\n".join(block)


@pytest.mark.skipif(platform.machine() not in VECTOR, reason="vector instructions of this machine not known")
@pytest.mark.parametrize("T", TYPES)
@pytest.mark.parametrize("function", ALL)
def test_loop_is_vectorised_and_calls_nothing(function, T):
    assembly = code_of(function, T, "inspect_asm")
    vectorised = [b for b in innermost_loops(assembly) if re.search(VECTOR[platform.machine()], b)]
    assert vectorised
    assert not [line for block in vectorised for line in block.splitlines() if re.match(r"\s+(call\w*|blr?)\s", line)]
    assert not re.search(r"\b_?(exp|expm1|log|log1p|tanh|fma|floor|rint)f?\b(?!\.)", assembly)


@pytest.mark.parametrize("function", ALL)
def test_float32_computes_in_float32_alone(function):
    ir = code_of(function, np.float32, "inspect_llvm")
    operations = r"= (?:\w+ )*(f\w+|[su]itofp|fpto[su]i|bitcast|call|select)\b.*\bdouble\b"
    assert not [line for line in ir.splitlines() if re.search(operations, line)]


def test_import_compiles_nothing():
    program = """
from numba.core import event
with event.install_recorder("numba:compile") as recorder:
    import nlosses._cpu._scalar
assert not recorder.buffer, recorder.buffer
"""
    subprocess.run([sys.executable, "-c", program], check=True)
