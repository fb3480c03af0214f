"""Promises about processes, threads, forks, caches, memory and imports, kept in processes of their own.

All of them run a copy of the package, so that an edit while the tests run changes nothing.  Where the loss does not matter
it is `mse_loss`, which compiles fastest.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import nlosses as nl

PACKAGE = Path(nl.__file__).parent
LAYERS = ("omp", "workqueue")
PRECISIONS = ("float32", "float64")
#: Beyond the size from which every threading layer is used.
MANY = 250_000
MEGABYTE = 2**20


# --- processes -------------------------------------------------------------------------------------------------------

#: Runs `body`, which sets `result`, and prints that, the number of compilations and the warnings as JSON.
HARNESS = """
import contextlib, json, os, sys, threading, warnings
import numpy as np
import nlosses as nl
from numba.core import event

rng = np.random.default_rng(7)
x, t, w = rng.random((3, {many}))
result = None
with warnings.catch_warnings(record=True) as caught, event.install_recorder("numba:compile") as recorded:
    warnings.simplefilter("always")
    exec({body!r})
compiled = sum(e.is_start for _, e in recorded.buffer)
shown = [[w.category.__name__, str(w.message)] for w in caught]
print(json.dumps(dict(result=result, compiled=compiled, warnings=shown)))
"""


class Done(NamedTuple):
    result: Any
    compiled: int
    warnings: list[list[str]]


def environment(package: Path, cache: Path, **variables: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("NUMBA_", "PYTHON"))}
    own = {"PYTHONPATH": str(package.parent), "PYTHONDONTWRITEBYTECODE": "1", "NUMBA_CACHE_DIR": str(cache)}
    return {**kept, **own, **variables}


def start(package: Path, cache: Path, body: str, **variables: str) -> subprocess.Popen[str]:
    code = HARNESS.format(many=MANY, body=body)
    return subprocess.Popen(
        [sys.executable, "-c", code], env=environment(package, cache, **variables), cwd=package.parent,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def finish(process: subprocess.Popen[str]) -> Done:
    out, errors = process.communicate(timeout=600)
    assert process.returncode == 0, f"status {process.returncode}\n{errors}"
    return Done(**json.loads(out.splitlines()[-1]))


def run(package: Path, cache: Path, body: str, *, quiet: bool = True, **variables: str) -> Done:
    """What `body` gives in a process of its own."""
    done = finish(start(package, cache, body, **variables))
    assert not quiet or not done.warnings
    return done


def command(package: Path, cache: Path, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "nlosses", *arguments], env=environment(package, cache), cwd=package.parent,
        capture_output=True, text=True, timeout=600, check=False, **options,
    )  # fmt: skip


def copied(folder: Path) -> Path:
    return Path(shutil.copytree(PACKAGE, folder / "nlosses", ignore=shutil.ignore_patterns("__pycache__")))


def edit(file: Path, old: str, new: str) -> None:
    source = file.read_text()
    assert source.count(old) == 1, f"{file.name} must have {old!r} once"
    file.write_text(source.replace(old, new))


def contents(cache: Path) -> dict[str, str]:
    files = [file for file in cache.rglob("*") if file.is_file()]
    return {str(file.relative_to(cache)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Path:
    return copied(tmp_path_factory.mktemp("package"))


# --- the same bits ---------------------------------------------------------------------------------------------------

#: Digests of value and gradient by threads and family; "serial" is a call without the loop of the threads, 1 one with it.
BITS = """
import gc
import hashlib
import numba
from nlosses._cpu import _threads

def digest(pair):
    return hashlib.sha256(b"".join(np.asarray(part).tobytes() for part in pair)).hexdigest()

x, t, w = (a.astype("{precision}") for a in (x, t, w))
def classes(*shape):
    return x[:np.prod(shape)].reshape(shape), rng.integers(0, shape[1], shape[:1] + shape[2:])
rows, few, image, tall = classes(1000, 250), classes(25_000, 10), classes(10, 10, 50, 50), (
    np.log(rng.random(({many}, 4))).astype("{precision}"), rng.integers(0, 4, {many}))
calls = dict(
    elementwise=lambda: nl.mse_loss.value_and_grad(x, t, weight=w),
    exponential=lambda: nl.binary_cross_entropy_with_logits.value_and_grad(x, t, w),
    products=lambda: nl.binary_cross_entropy_with_logits.value_and_grad(x, t),
    unit=lambda: nl.binary_cross_entropy.value_and_grad(nl.sigmoid(x), nl.sigmoid(t)),
    rows=lambda: nl.cross_entropy.value_and_grad(*rows),
    few=lambda: nl.cross_entropy.value_and_grad(*few),
    image=lambda: nl.cross_entropy.value_and_grad(*image),
    nll=lambda: nl.nll_loss.value_and_grad(*tall),
    softmax=lambda: [nl.softmax(rows[0], axis=1)],
)
assert _threads.layer() == os.environ["NUMBA_THREADING_LAYER"] and _threads.wants_parallel({many})
result = {{}}
for threads in ("serial", 1, 2, 4):
    _threads.wants_parallel = lambda size: threads != "serial"
    numba.set_num_threads(1 if threads == "serial" else threads)
    result[str(threads)] = {{name: digest(call()) for name, call in calls.items()}}
    gc.collect()  # kernels must outlive whatever compiled them
"""


def bits(package: Path, cache: Path, precision: str, layer: str) -> subprocess.Popen[str]:
    body = BITS.format(precision=precision, many=MANY)
    return start(package, cache, body, NUMBA_THREADING_LAYER=layer, NUMBA_NUM_THREADS="4")


class Filled(NamedTuple):
    """A cache that two processes have filled, one for each precision, with what they got."""

    cache: Path
    first: dict[str, Done]


@pytest.fixture(scope="module")
def filled(package, tmp_path_factory) -> Filled:
    cache = tmp_path_factory.mktemp("filled")
    processes = {precision: bits(package, cache, precision, "omp") for precision in PRECISIONS}
    first = {precision: finish(process) for precision, process in processes.items()}
    return Filled(cache, first)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_bits_do_not_depend_on_threads(filled, precision):
    assert filled.first[precision].compiled > 0
    by_threads = filled.first[precision].result
    assert len(by_threads) == 4
    for threads in by_threads:
        assert by_threads[threads] == by_threads["serial"], threads


@pytest.mark.parametrize("layer", LAYERS)
def test_later_processes_compile_nothing_and_get_the_same_bits(package, filled, layer):
    before = contents(filled.cache)
    processes = {precision: bits(package, filled.cache, precision, layer) for precision in PRECISIONS}
    for precision, process in processes.items():
        done = finish(process)
        assert done.compiled == 0
        assert not done.warnings
        assert done.result == filled.first[precision].result
    assert contents(filled.cache) == before


# --- the disk cache --------------------------------------------------------------------------------------------------

VALUE = "result = float(nl.mse_loss([1.0, 3.0], [0.0, 1.0], weight=[2.0, 2.0]))"
RIGHT = 2.5


@pytest.fixture(scope="module")
def small(package, tmp_path_factory) -> Path:
    """A cache with what `VALUE` needs, not to be changed."""
    cache = tmp_path_factory.mktemp("small")
    assert run(package, cache, VALUE).result == RIGHT
    return cache


def test_an_edit_of_any_file_is_noticed(tmp_path):
    package, cache = copied(tmp_path), tmp_path / "cache"
    assert run(package, cache, VALUE).result == RIGHT
    assert run(package, cache, VALUE) == (RIGHT, 0, [])
    edit(package / "losses" / "mse_loss.py", "return r * r, r + r", "return r * r * 3, r + r")
    edited = run(package, cache, VALUE)
    assert edited.result == 3 * RIGHT
    assert edited.compiled > 0
    edit(package / "_scalar.py", "ay = a * y\n", "ay = a * y + a * y\n")
    edited = run(package, cache, VALUE)
    assert edited.result == 6 * RIGHT
    assert edited.compiled > 0
    edit(package / "_scalar.py", "ay = a * y + a * y\n", "ay = a * y\n")
    assert run(package, cache, VALUE) == (3 * RIGHT, 0, [])


def test_processes_may_fill_one_cache_at_once(package, tmp_path):
    for done in [finish(p) for p in [start(package, tmp_path, VALUE) for _ in range(8)]]:
        assert (done.result, done.warnings) == (RIGHT, [])
    assert run(package, tmp_path, VALUE) == (RIGHT, 0, [])
    assert not list(tmp_path.rglob("*.tmp*"))


def test_processes_may_fill_one_cache_with_different_kernels(package, tmp_path):
    calls = ("mse_loss(a, b)", "l1_loss(a, b)", "mse_loss.grad(a, b, argnums=1)", "mse_loss.hessian_diag(a, b)")
    body = "a, b = np.{}([x, t]); result = np.ravel(nl.{})[:5].tolist()"
    bodies = [body.format(dtype, call) for call in calls for dtype in PRECISIONS]
    cold = [finish(p).result for p in [start(package, tmp_path, body) for body in bodies]]
    everything = "".join(f"{body}; every += [result]\n" for body in bodies)
    ninth = run(package, tmp_path, f"every = []\n{everything}result = every")
    assert ninth == (cold, 0, [])


OWN = """
import math
import nlosses as nl

def scaled(factor):
    def point(x, t):
        T = type(x)
        return T(factor) * (x - t), T(factor)
    @nl.elementwise(point)
    def loss(input, target, reduction="mean"):
        "A difference, scaled."
    return [float(loss([3.0] * n, [1.0] * n)) for n in (1, {many})]
"""


def own(folder: Path, factors: list[float]) -> str:
    (folder / "own.py").write_text(OWN.format(many=MANY))
    return f"sys.path.insert(0, {str(folder)!r}); import own; result = [own.scaled(f) for f in {factors}]"


def test_losses_of_one_name_are_kept_apart(package, tmp_path):
    """Kernels that two processes compiled for functions of one name meet in a third one."""
    cache = tmp_path / "cache"
    for factors in ([1.0], [3.0]):
        assert run(package, cache, own(tmp_path, factors)).result == [[2 * f, 2 * f] for f in factors]
    for factors in ([1.0, 3.0], [3.0, 1.0]):
        assert run(package, cache, own(tmp_path, factors)) == ([[2 * f, 2 * f] for f in factors], 0, [])


def test_losses_of_one_name_may_be_compiled_at_once(package, tmp_path):
    cache, factors = tmp_path / "cache", [1.0, 2.0, 3.0]
    cold = [finish(p).result for p in [start(package, cache, own(tmp_path, [f])) for f in factors]]
    assert cold == [[[2 * f, 2 * f]] for f in factors]
    assert run(package, cache, own(tmp_path, factors)).result == [[2 * f, 2 * f] for f in factors]


NO_CACHE = {
    "no folder": {"NUMBA_CACHE_DIR": "/dev/null/cache", "NUMBA_CACHE_LOCATOR_CLASSES": "UserProvidedCacheLocator"},
    "no locator": {"NUMBA_CACHE_LOCATOR_CLASSES": "NoSuchLocator"},
}


@pytest.mark.parametrize("variables", NO_CACHE.values(), ids=NO_CACHE)
def test_no_cache_is_a_warning(package, tmp_path, variables):
    done = run(package, tmp_path, VALUE, quiet=False, **variables)
    assert done.result == RIGHT
    assert [category for category, _ in done.warnings] == ["RuntimeWarning"]
    assert "disk cache" in done.warnings[0][1]


def test_full_disk_is_a_warning(package, tmp_path):
    full = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
    done = run(package, tmp_path, full + VALUE, quiet=False)
    assert done.result == RIGHT
    assert [category for category, _ in done.warnings] == ["RuntimeWarning"]


@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
def test_broken_cache_is_replaced(package, small, tmp_path, suffix):
    shutil.copytree(small, tmp_path, dirs_exist_ok=True)
    files = list(tmp_path.rglob(f"*.{suffix}"))
    assert files
    for file in files:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert run(package, tmp_path, VALUE, quiet=False).result == RIGHT
    assert run(package, tmp_path, VALUE) == (RIGHT, 0, [])


# --- threads and forks -----------------------------------------------------------------------------------------------

THREADS = """
from concurrent.futures import ThreadPoolExecutor
from nlosses._cpu import _threads

expected = 2 * w * (x - t) / w.sum()
together = threading.Barrier(8)
def work(_):
    together.wait()
    pairs = [nl.mse_loss.value_and_grad(x, t, weight=w) for _ in range(20)]
    return {float(value) for value, _ in pairs}, all(np.allclose(grad, expected, 1e-13, 0) for _, grad in pairs)
with ThreadPoolExecutor(8) as pool:
    seen = list(pool.map(work, range(8)))
assert _threads.layer() == os.environ["NUMBA_THREADING_LAYER"] and _threads.wants_parallel(x.size)
values = set().union(*(values for values, _ in seen))
right = np.isclose(values.pop(), np.average((x - t) ** 2, weights=w), 1e-13, 0)
result = bool(right and not values and all(ok for _, ok in seen))
"""


@pytest.mark.parametrize("layer", LAYERS)
def test_several_threads_at_once(package, filled, layer):
    done = run(package, filled.cache, THREADS, NUMBA_THREADING_LAYER=layer, NUMBA_NUM_THREADS="2")
    assert done == (True, 0, [])


FIRST = """
from concurrent.futures import ThreadPoolExecutor
together = threading.Barrier({threads})
def work(_):
    together.wait()
    return float(nl.mse_loss(x, t))
with ThreadPoolExecutor({threads}) as pool:
    result = len(set(pool.map(work, range({threads}))))
"""


def test_first_calls_at_once_compile_once(package, tmp_path):
    # The workqueue layer lets most of the eight go alone.
    eight = run(package, tmp_path, FIRST.format(threads=8), NUMBA_THREADING_LAYER="workqueue", NUMBA_NUM_THREADS="2")
    assert eight.result == 1
    assert len(list(tmp_path.rglob("*.nbc"))) <= 2
    assert run(package, tmp_path, FIRST.format(threads=8)) == (1, 0, [])


FORKS = """
import multiprocessing
from nlosses._cpu import _threads

def same():
    value, grad = nl.mse_loss.value_and_grad(x, t, weight=w)
    return value == parent[0] and grad.tobytes() == parent[1].tobytes()
def child():
    sys.exit(0 if same() else 3)

parent = nl.mse_loss.value_and_grad(x, t, weight=w)
assert _threads.layer() == os.environ["NUMBA_THREADING_LAYER"] and _threads.wants_parallel(x.size)
warnings.simplefilter("ignore", DeprecationWarning)
pid = os.fork()
if pid == 0:
    os._exit(0 if same() else 3)
process = multiprocessing.get_context("fork").Process(target=child)
process.start()
process.join()
result = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), process.exitcode, int(same())]
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.parametrize("layer", LAYERS)
def test_forked_children_compute(package, filled, layer):
    done = run(package, filled.cache, FORKS, NUMBA_THREADING_LAYER=layer, NUMBA_NUM_THREADS="2")
    assert done.result == [0, 0, 1]


# --- memory ----------------------------------------------------------------------------------------------------------

PEAK = """
import gc, mmap, tracemalloc
from nlosses import _memory
mapped = []
class Counted(mmap.mmap):  # what tracemalloc does not see
    def __new__(cls, fileno, length, **given):
        mapped.append(length)
        return super().__new__(cls, fileno, length, **given)
_memory.mmap.mmap = Counted
def classes(*shape):
    return rng.random(shape, np.float32), rng.integers(0, shape[1], shape[:1] + shape[2:])
x, t = {sample}
out = np.empty_like(x)
def peak(call, anew):
    call()
    gc.collect()
    if anew:
        nl.release_memory()
    mapped.clear()
    tracemalloc.start()
    result = call()
    _, highest = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return highest + sum(mapped)
fresh, given = lambda: nl.{loss}.value_and_grad(x, t), lambda: nl.{loss}.value_and_grad(x, t, out=out)
result = [x.nbytes, peak(fresh, True), peak(fresh, False), peak(given, False)]
"""
SAMPLES = {
    "mse_loss": ("mse_loss", "rng.random((2, 10_000_000), np.float32)"),
    "kl_div": ("kl_div", "rng.random((2, 10_000_000), np.float32)"),
    "rows": ("cross_entropy", "classes(50_000, 200)"),
    "few classes": ("cross_entropy", "classes(1_000_000, 10)"),
    "image": ("cross_entropy", "classes(100, 10, 100, 100)"),
    "log-probabilities": ("nll_loss", "classes(1_000_000, 10)"),
}


@pytest.mark.parametrize(("name", "sample"), SAMPLES.values(), ids=SAMPLES)
def test_no_memory_beyond_the_gradient(package, filled, name, sample):
    size, fresh, again, given = run(package, filled.cache, PEAK.format(loss=name, sample=sample)).result
    assert size == 40_000_000
    assert size <= fresh <= size + 4 * MEGABYTE  # in whole huge pages
    assert again <= 2 * MEGABYTE  # the memory of the one before
    assert given <= 2 * MEGABYTE


# --- imports ---------------------------------------------------------------------------------------------------------


def test_import_is_light(package):
    code = """
import sys, time
import numpy
start = time.perf_counter()
import nlosses
print(time.perf_counter() - start, *(name for name in ("numba", "llvmlite", "scipy") if name in sys.modules))
"""
    seconds = []
    for _ in range(5):
        out = subprocess.run(
            [sys.executable, "-W", "error", "-c", code], env=environment(package, package), cwd=package.parent,
            capture_output=True, text=True, check=True,
        ).stdout.split()  # fmt: skip
        assert len(out) == 1, f"imported {out[1:]}"
        seconds.append(float(out[0]))
    assert min(seconds) < 0.2


def modules() -> Iterator[tuple[str, bool, ast.Module]]:
    """Name, whether it is a package, and syntax tree of every module."""
    for file in sorted(PACKAGE.rglob("*.py")):
        parts = ("nlosses", *file.relative_to(PACKAGE).with_suffix("").parts)
        is_package = parts[-1] == "__init__"
        yield ".".join(parts[:-1] if is_package else parts), is_package, ast.parse(file.read_text())


def statements(node: ast.AST, within_functions: bool) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        yield child
        if within_functions or not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from statements(child, within_functions)


def imports(name: str, is_package: bool, tree: ast.Module, within_functions: bool = False) -> set[str]:
    """Full names of all that a module imports, and of what those are in."""
    found: set[str] = set()
    for node in statements(tree, within_functions):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = name.split(".")
                above = parts[: len(parts) - node.level + is_package]
                base = ".".join(above + ([node.module] if node.module else []))
            found |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return found


def of_package(names: set[str]) -> set[str]:
    known = {name for name, _, _ in modules()}
    return {name for name in names if name in known} - {"nlosses", "nlosses.losses", "nlosses._cpu"}


def libraries(names: set[str]) -> set[str]:
    return {root for name in names if (root := name.partition(".")[0]) not in sys.stdlib_module_names} - {"nlosses"}


def test_losses_import_mathematics_only():
    for name, is_package, tree in modules():
        if name.startswith("nlosses.losses."):
            names = imports(name, is_package, tree)
            assert of_package(names) <= {"nlosses._spec", "nlosses._scalar"}, name
            assert not libraries(names), name


def test_kernels_import_no_machinery():
    for name, is_package, tree in modules():
        if name.startswith("nlosses._cpu"):
            names = imports(name, is_package, tree)
            shared = {n for n in of_package(names) if not n.startswith("nlosses._cpu.")}
            assert shared <= {"nlosses._spec", "nlosses._maps", "nlosses._scalar", "nlosses._softmax"}, name
            assert libraries(names) <= {"numba", "llvmlite", "numpy"}, name


def test_nothing_imports_gradcheck():
    for name, is_package, tree in modules():
        assert "gradcheck" not in libraries(imports(name, is_package, tree, within_functions=True)), name


def test_gradcheck_imports_nothing_of_nlosses():
    files = sorted((PACKAGE.parent / "gradcheck").rglob("*.py"))
    assert files
    for file in files:
        name, is_package = ".".join(file.relative_to(PACKAGE.parent).parts), file.stem == "__init__"
        names = imports(name, is_package, ast.parse(file.read_text()), within_functions=True)
        assert "nlosses" not in {imported.partition(".")[0] for imported in names}, name


def test_public_names_import_no_compiler():
    table = {name: imports(name, is_package, tree) for name, is_package, tree in modules()}
    reached, queue = set(), ["nlosses", "nlosses.losses"]
    while queue:
        name = queue.pop()
        if name not in reached:
            reached.add(name)
            queue += of_package(table[name])
            assert libraries(table[name]) <= {"numpy"}, name
    assert len(reached) > len(nl.LOSSES)
    assert not any(name.startswith(("nlosses._cpu", "nlosses._cuda")) for name in reached)


def test_compiler_flags_stand_in_one_file():
    flags = re.compile(r"\b(njit|jit|vectorize|guvectorize|cfunc|fastmath|error_model|forceinline|nogil|boundscheck)\b")
    allowed = {"_cpu/_jit.py": {"njit", "fastmath", "nogil"}}
    allowed |= {f"_cpu/_{name}.py": {"fastmath"} for name in ("scalar", "vector")}  # of single instructions
    for file in PACKAGE.rglob("*.py"):
        name = file.relative_to(PACKAGE).as_posix()
        if name not in ("_cpu/_flags.py", "_cuda/_device.py"):  # one for each target
            assert set(flags.findall(file.read_text())) <= allowed.get(name, set()), name


# --- python -m nlosses -----------------------------------------------------------------------------------------------

WARM = ("warm", "--loss", "mse_loss", "--dtype", "float32")


def test_report(package, tmp_path):
    done = command(package, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    for expected in (nl.__version__, "numba", "llvmlite", "scipy", "threads", str(tmp_path), "0 kernels", "CUDA"):
        assert expected in done.stdout
    for name, loss in nl.LOSSES.items():
        (line,) = [line for line in done.stdout.splitlines() if line.startswith(f"{name} ")]
        assert loss.spec.module in line
        assert loss.spec.family in line
        assert line.endswith(loss.__doc__.strip().splitlines()[0])


@pytest.fixture(scope="module")
def warmed(package, tmp_path_factory) -> Path:
    """A cache that the command has filled for `WARM`."""
    cache = tmp_path_factory.mktemp("warmed")
    done = command(package, cache, *WARM)
    assert done.returncode == 0
    assert "mse_loss float32" in done.stderr
    assert not done.stdout.startswith("0 kernels")
    return cache


def test_warm_once_and_for_all(package, warmed):
    before = contents(warmed)
    again = command(package, warmed, *WARM)
    assert (again.returncode, again.stdout.startswith("0 kernels compiled")) == (0, True)
    calls = [
        f"nl.mse_loss{method}(*np.float32([x, t])[:, :{size}], reduction='{reduction}')"
        for method in ("", ".value_and_grad") for size in (1000, MANY) for reduction in ("mean", "none")
    ]  # fmt: skip
    assert run(package, warmed, "\n".join(calls)) == (None, 0, [])
    assert contents(warmed) == before


@pytest.mark.parametrize("rich", [True, False], ids=["rich", "plain"])
def test_warm_at_a_terminal(package, warmed, rich):
    if rich:
        pytest.importorskip("rich")
    body = f"import sys; sys.modules |= {{}} if {rich} else {{'rich': None}}\nfrom nlosses.__main__ import main; "
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", f"{body}sys.exit(main({WARM}))"], env=environment(package, warmed, TERM="xterm"),
        cwd=package.parent, stdout=subprocess.DEVNULL, stderr=terminal,
    )  # fmt: skip
    os.close(terminal)
    shown = b""
    with contextlib.suppress(OSError):  # the end of a terminal
        while block := os.read(controller, 65536):
            shown += block
    os.close(controller)
    assert process.wait() == 0
    assert b"mse_loss float32" in shown
    assert b"left" in shown
    assert (b"[0/" in shown) != rich


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["wram"], "warm"),
        (["warm", "--loss", "mse"], "mse_loss"),
        (["warm", "--dtype", "float16"], "float32"),
        (["warm", "--loss"], "--loss"),
        (["--dtype", "float32"], "warm"),
    ],
)
def test_usage_errors(package, tmp_path, arguments, named):
    done = command(package, tmp_path, *arguments)
    assert done.returncode == 2
    assert named in done.stderr
    assert "Traceback" not in done.stderr


def test_interrupt_keeps_what_was_compiled(package, tmp_path):
    code = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background process ignores it
from nlosses.__main__ import main
sys.exit(main(["warm"]))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], env=environment(package, tmp_path), cwd=package.parent,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not list(tmp_path.rglob("*.nbc")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Interrupted" in errors
    assert "Traceback" not in errors
    assert list(tmp_path.rglob("*.nbc"))


def test_warm_without_a_cache_says_so(package, tmp_path):
    variables = NO_CACHE["no folder"]
    done = subprocess.run(
        [sys.executable, "-m", "nlosses", *WARM], env=environment(package, tmp_path, **variables) | variables,
        cwd=package.parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "NUMBA_CACHE_DIR" in done.stderr
    assert "Traceback" not in done.stderr
