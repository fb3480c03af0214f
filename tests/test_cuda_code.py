"""Machine code of the CUDA kernels, where numba-cuda and cuobjdump are installed; and what holds of the sources alone."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import nlosses as nl
from benchmarks import cuda_code

PACKAGE = Path(nl.__file__).parent
CUDA = sorted((PACKAGE / "_cuda").glob("*.py"))

needs_toolchain = pytest.mark.skipif(bool(cuda_code.missing()), reason=f"no machine code to look at: {cuda_code.missing()}")


@cache
def subjects():
    return list(cuda_code.subjects()) if cuda_code.missing() is None else [None]


@pytest.mark.cuda
@needs_toolchain
@pytest.mark.parametrize("subject", subjects(), ids=lambda s: s and f"{s.what}, {s.dtype}")
def test_machine_code(subject):
    code = cuda_code.inspected(subject)
    assert (code.stack, code.local, code.spills) == (0, 0, 0)
    assert code.registers * subject.kernel.bounds[0] <= 65536
    if subject.vectors:
        if subject.exact:
            assert code.bytes_found == code.bytes_planned
        else:
            assert code.bytes_found <= code.bytes_planned
    elif subject.vectors is not None:
        assert (code.load16, code.store16) == (0, 0)
    if subject.dtype == "float32":  # float64 is for sums: a few a row or block, and two an element at the most
        assert code.wide <= subject.overhead + 4 * subject.elements


@pytest.mark.cuda
@needs_toolchain
@pytest.mark.parametrize(
    "what", ["mse_loss: value", "cross_entropy, 10 classes: value", "nll_loss: value", "make_copy", "fill"]
)
def test_arguments_are_packed_as_kernels_take_them(what):
    """Launches give them as words of eight bytes, an array as its fields."""
    import numpy as np
    from numba import types

    from nlosses._cuda import _device

    def kind(t):
        if isinstance(t, types.Array):
            return np.dtype(t.dtype.name), t.ndim
        return {types.float64: float, types.int64: int}[t]

    subject = next(s for s in subjects() if s.what == what)
    kinds = [kind(t) for t in subject.signature.args]
    assert tuple(map(_device._numba_type, kinds)) == subject.signature.args
    words = len("".join(map(_device._letters, kinds)))
    assert cuda_code.parameters(subject) == [(8 * k, 8) for k in range(words)]


@pytest.mark.cuda
@needs_toolchain
def test_a_users_losses_compile():
    import numpy as np
    from numba import types
    from test_extension import focal_curvature, focal_point, huber_curvature, huber_point

    from nlosses._cuda import classwise, elementwise
    from nlosses._cuda._blocks import ABSENT, SINGLE

    for T in (np.float32, np.float64):
        a, i8, f8 = cuda_code.array(T), types.int64, types.float64
        results = cuda_code.summing()
        operand = (a, i8, i8)
        signature = types.void(a, a, i8, *operand, *operand, *operand, *operand, a, f8, a, a, *results)
        for function, first in ((huber_point, True), (huber_curvature, False)):
            kinds = (1, SINGLE, ABSENT, ABSENT, ABSENT, ABSENT)
            kernel = elementwise._kernel(function, first, kinds, 2, None, first, False, False, True)
            assert cuda_code.cubin(cuda_code.Subject("huber", "", kernel, signature, 1, 0, 0, False))
        labels = cuda_code.array(np.int32)
        signature = types.void(a, labels, a, a, a, a, i8, i8, i8, f8, f8, i8, f8, a, a, *results)
        for mode in ("grad", "hvp"):
            plan = classwise.plan(100, 1, np.dtype(T).itemsize, False)
            flags = (True, False, False, False, False, False, True, True, False)
            kernel = classwise.kernel(focal_point, focal_curvature, mode, plan, 2, *flags, np.dtype(T).itemsize)
            assert cuda_code.cubin(cuda_code.Subject("focal", "", kernel, signature, 1, 0, 0, False))


# --- the sources ------------------------------------------------------------------------------------------------------------


def functions(file):
    return {n.name: n for n in ast.walk(ast.parse(file.read_text())) if isinstance(n, ast.FunctionDef)}


def shape_of(function):
    """The statements of a function, without its name and documentation."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return "\n".join(ast.dump(statement) for statement in body)


def test_no_formula_is_written_twice():
    """Losses, scalar functions and the mathematics of a row have one definition, which the kernels of the GPU call."""
    mathematics = [PACKAGE / "_scalar.py", PACKAGE / "_softmax.py", PACKAGE / "_maps.py", *(PACKAGE / "losses").glob("*.py")]
    names, bodies = set(), set()
    for file in mathematics:
        for name, function in functions(file).items():
            names.add(name)
            bodies.add(shape_of(function) or name)
    for file in CUDA:
        tree = ast.parse(file.read_text())
        for name, function in functions(file).items():
            assert name not in names - {"slope", "make"} or name.startswith("_"), (file.name, name)
            assert shape_of(function) not in bodies, (file.name, name)
        attributes = [n for n in ast.walk(tree) if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name)]
        called = {n.attr for n in attributes if n.value.id in ("math", "np")}
        transcendental = called & {"exp", "log", "log1p", "expm1", "tanh", "exp2", "log2", "sqrt", "cosh", "sinh"}
        assert not transcendental or file.name == "_scalar.py", (file.name, transcendental)


def test_the_row_mathematics_is_called():
    kernels = [ast.parse((PACKAGE / "_cuda" / name).read_text()) for name in ("classwise.py", "_positions.py")]
    used = {n.id for tree in kernels for n in ast.walk(tree) if isinstance(n, ast.Name)}
    assert set(functions(PACKAGE / "_softmax.py")) <= used


def test_one_door_to_the_toolchain():
    for file in CUDA:
        imported = set()
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported |= {f"{node.module}.{alias.name}" for alias in node.names}
        doors = {name for name in imported if name.startswith(("numba.cuda", "numba_cuda", "llvmlite", "cuda"))}
        assert not doors or file.name in ("_device.py", "_simulator.py"), (file.name, doors)


def test_nothing_of_cuda_is_loaded_for_numpy_arrays():
    code = """
import sys
import numpy as np
import nlosses as nl
nl.mse_loss.value_and_grad(np.ones(3), [0, 0, 0])
nl.cross_entropy(np.ones((2, 3)), [0, 1])
print([name for name in sys.modules if name.startswith(("nlosses._cuda", "numba_cuda", "numba.cuda.cudadrv.driver"))])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent, check=True)
    assert done.stdout.strip() == "[]"


def test_without_numba_cuda_the_error_says_what_to_install():
    code = """
import sys
from importlib import metadata
import numpy as np
import nlosses as nl
class Array:
    __cuda_array_interface__ = {"shape": (3,), "typestr": "<f8", "data": (256, False), "version": 3}
real = metadata.version
def version(name):
    if name == "numba-cuda":
        if not installed:
            raise metadata.PackageNotFoundError
        return "0.30.4"
    return real(name)
metadata.version = version
for installed, np.__version__ in ((False, "2.4.0"), (True, "2.5.0")):
    try:
        nl.mse_loss(Array(), Array())
    except ImportError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent, check=True)
    first, second = done.stdout.splitlines()
    assert "need numba-cuda" in first
    assert "pip install 'nlosses[cuda]'" in first
    assert "numba-cuda 0.30.4 cannot compile with NumPy 2.5.0" in second
