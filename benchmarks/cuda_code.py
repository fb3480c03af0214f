"""Machine code of the CUDA kernels, inspected without a GPU: ``python -m benchmarks.cuda_code``.

Compiles the kernels for compute capability 9.0 as they would be compiled at run time, and reads from the result: registers,
stack (which is where spilled registers and local arrays would be), 16-byte accesses, and the bytes that a thread moves for
each element.  Needs numba-cuda and cuobjdump: ``pip install -e '.[cuda]' 'cuda-toolkit[cuobjdump,nvdisasm]==13.*'``.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata, util
from pathlib import Path
from typing import Any

import numpy as np

TARGET = (9, 0)
RESULTS = Path(__file__).parent / "results"
DTYPES = {"float32": np.float32, "float64": np.float64}


@dataclass(frozen=True)
class Subject:
    """A kernel to look at, and what it is to do."""

    what: str
    dtype: str
    kernel: Any
    signature: Any
    elements: int  #: that a thread takes at a time
    loads: int  #: arrays that are read, 16 bytes at a time, element for element
    stores: int  #: and written
    vectors: bool | None  #: whether accesses of 16 bytes are planned; None where it cannot be told from their number
    exact: bool = True  #: whether every array is needed: some derivatives leave the input or the target out
    overhead: int = 130  #: float64 instructions for the sums over rows, blocks and the grid


@dataclass(frozen=True)
class Code:
    """What the machine code of a kernel has."""

    what: str
    dtype: str
    registers: int
    stack: int
    local: int
    shared: int
    load16: int
    store16: int
    spills: int
    wide: int  #: arithmetic instructions in float64
    instructions: int
    bytes_planned: float
    bytes_found: float | None


def missing() -> str | None:
    """What keeps the machine code from being looked at, if anything."""
    if util.find_spec("numba_cuda") is None:
        return "numba-cuda is not installed"
    if tuple(map(int, np.__version__.split(".")[:2])) >= (2, 5):
        return f"numba-cuda does not compile with NumPy {np.__version__}"
    from numba import config

    if config.ENABLE_CUDASIM:
        return "the simulator is on"
    return None if cuobjdump() else "cuobjdump is not installed"


def cuobjdump() -> str | None:
    """The program that reads machine code: in the path, or among the installed packages."""
    found = shutil.which("cuobjdump")
    if found:
        return found
    spec = util.find_spec("nvidia")
    for folder in spec.submodule_search_locations or () if spec else ():
        for file in Path(folder).glob("*/bin/cuobjdump*"):
            return str(file)
    return None


# --- what there is ------------------------------------------------------------------------------------------------------


def array(dtype: Any) -> Any:
    from numba import from_dtype, types

    return types.Array(from_dtype(np.dtype(dtype)), 1, "C")


def summing() -> tuple[Any, ...]:
    """What kernels take to sum over their grid."""
    return tuple(array(T) for T in (np.float64, np.uint32, np.float64, np.float64))


def elementwise() -> Iterator[Subject]:
    """Each elementwise loss: its value, value and gradient, and further derivatives, plain and with weights."""
    from numba import types

    import nlosses as nl
    from nlosses._cuda import elementwise as driver
    from nlosses._cuda._blocks import ABSENT, FULL, REPEATED

    i8, f8 = types.int64, types.float64
    for name, loss in nl.LOSSES.items():
        spec = loss.spec
        if spec.family != "elementwise":
            continue
        bounds = (spec.input.low, spec.input.high, spec.target.low, spec.target.high) if spec.checks_domains else None
        for dtype, T in DTYPES.items():
            a = array(T)
            operand = (a, i8, i8)
            results = summing()
            signature = types.void(a, a, i8, *operand, *operand, *operand, *operand, a, f8, a, a, *results)
            width = 16 // np.dtype(T).itemsize
            taken = len(spec.parameters)

            def subject(
                what: str, function: Any, first: bool, kinds: tuple[int, ...], reduced: bool, out: bool, loads: int,
                name: str = name, dtype: str = dtype, signature: Any = signature, width: int = width, bounds: Any = bounds,
                taken: int = taken,
            ) -> Subject:  # fmt: skip
                kernel = driver._kernel(
                    function, first, (taken, ABSENT, ABSENT, *kinds), width, bounds, reduced, False, False, out
                )
                return Subject(
                    f"{name}: {what}", dtype, kernel, signature, width * driver.VECTORS, loads, int(out), True, reduced,
                    80 if reduced or bounds else 0,
                )  # fmt: skip

            none = (ABSENT, ABSENT, ABSENT)
            yield subject("value", spec.math.point, True, none, True, False, 2)
            yield subject("value and gradient", spec.math.point, True, none, True, True, 2)
            if T is np.float32:
                yield subject("gradient, weights, upstream", spec.math.point, True, (FULL, FULL, ABSENT), False, True, 4)
                yield subject(
                    "value and gradient, weights repeated", spec.math.point, True, (REPEATED, ABSENT, ABSENT), True, True, 2
                )
                yield subject("gradient of the target", spec.math.target_slope, False, none, False, True, 2)
                yield subject("second derivative", spec.math.curvature, False, none, False, True, 2)


#: Classes and inner axes: one case for each driver.
LAYOUTS = (
    (10, 1), (16, 1), (32, 1), (64, 1), (100, 1), (128, 1), (256, 1), (512, 1), (1000, 1), (2048, 1), (8192, 1), (16384, 1),
    (32768, 1), (128256, 1), (1001, 1), (10, 4096), (21, 4096), (64, 4096), (150, 4096),
)  # fmt: skip


def width_of(plan: Any, classes: int, itemsize: int) -> int:
    """Elements of an access where all arrays are aligned."""
    width = 16 // itemsize
    return width if plan.staged or (plan.lanes > 1 and classes % width == 0) else 1


def classwise() -> Iterator[Subject]:
    """Cross entropy on each driver: value, value and gradient, with smoothing, with probabilities."""
    from numba import types

    import nlosses as nl
    from nlosses._cuda import classwise as driver

    i8, f8 = types.int64, types.float64
    point = nl.cross_entropy.spec.math.point
    for classes, inner in LAYOUTS:
        for dtype, T in DTYPES.items():
            a, labels = array(T), array(np.int64)
            results = summing()

            def subject(
                what: str, mode: str, labelled: bool, smooth: bool, classes: int = classes, inner: int = inner,
                dtype: str = dtype, itemsize: int = np.dtype(T).itemsize, a: Any = a, labels: Any = labels,
                results: Any = results,
            ) -> Subject:  # fmt: skip
                plan = driver.plan(classes, inner, itemsize, smooth)
                width = width_of(plan, classes, itemsize)
                slanted = width == 1 < plan.lanes and not smooth
                if slanted:
                    width = 16 // itemsize
                    plan = driver.plan(classes + width - 1, inner, itemsize, smooth)
                kernel = driver.kernel(
                    point, None, mode, plan, width, labelled, False, not labelled, smooth, False, False, labelled,
                    True, False, itemsize, slanted,
                )  # fmt: skip
                signature = types.void(a, labels if labelled else a, a, a, a, a, i8, i8, i8, f8, f8, i8, f8, a, a, *results)
                where = f"{classes} classes" + (" on inner axes" if inner > 1 else "")
                passes = 1 if plan.single or mode == "value" else 2
                return Subject(
                    f"cross_entropy, {where}: {what}", dtype, kernel, signature, plan.elements,
                    passes * (1 if labelled else 2), int(mode != "value"), None if plan.staged else width > 1, True, 512,
                )  # fmt: skip

            yield subject("value and gradient", "grad", True, False)
            if T is np.float32:
                yield subject("value", "value", True, False)
                yield subject("value and gradient, smoothing", "grad", True, True)
                yield subject("value and gradient, probabilities", "grad", False, True)


def further() -> Iterator[Subject]:
    """What is off the main roads: derivatives of classes, all options at once, log-probabilities, sums and copies."""
    from numba import types

    import nlosses as nl
    from nlosses._cuda import bfloat, copies, elementwise, gather, sums
    from nlosses._cuda import classwise as driver
    from nlosses._cuda._blocks import ABSENT, FULL, REPEATED, SINGLE

    i8, f8 = types.int64, types.float64
    results = summing()
    point = nl.cross_entropy.spec.math.point
    curvature = nl.scalar.expm1  # any function of one argument will do
    for dtype, T in DTYPES.items():
        a, itemsize = array(T), np.dtype(T).itemsize
        for classes, inner in ((10, 1), (1000, 1), (50000, 1), (10, 50), (150, 50)):
            for mode, labelled, second in (
                ("hessian", True, None), ("hessian", True, curvature), ("hvp", True, curvature), ("hvp", False, None),
                ("target_grad", False, None), ("grad", True, None),
            ):  # fmt: skip
                plan = driver.plan(classes, inner, itemsize, True)
                labels = array(np.uint64) if labelled else a
                kernel = driver.kernel(
                    point, second, mode, plan, 1, labelled, labelled, not labelled, True, True, True, labelled, True,
                    mode == "grad", itemsize,
                )  # fmt: skip
                signature = types.void(a, labels, a, a, a, a, i8, i8, i8, f8, f8, i8, f8, a, a, *results)
                where = f"{classes} classes" + (" on inner axes" if inner > 1 else "")
                what = f"all options, {where}: {mode}{', curved' if second else ''}{'' if labelled else ', probabilities'}"
                judged = None if plan.staged else False
                yield Subject(what, dtype, kernel, signature, plan.elements, 0, 0, judged, overhead=1000)
        for second in (None, curvature):
            for unsigned, flags in ((False, (False,) * 6), (True, (True,) * 6)):
                kernel = gather._gather(point, second, unsigned, *flags)
                signature = types.void(
                    a, array(np.uint64 if unsigned else np.int64), a, a, a, i8, i8, i8, i8, f8, a, a, *results
                )
                yield Subject(
                    f"nll_loss: {'all options' if unsigned else 'value'}{', curved' if second else ''}", dtype, kernel,
                    signature, 1, 0, 0, False, overhead=130 + 30 * (second is not None),
                )  # fmt: skip
        spec = nl.binary_cross_entropy_with_logits.spec
        operand = (a, i8, i8)
        signature = types.void(a, a, i8, *operand, *operand, *operand, *operand, a, f8, a, a, *results)
        for what, p, w, u, v in (("weights", REPEATED, FULL, REPEATED, FULL), ("numbers", SINGLE, SINGLE, SINGLE, ABSENT)):
            kernel = elementwise._kernel(
                spec.math.point, True, (1, p, ABSENT, w, u, v), 1, (0.0, 1.0, 0.0, 1.0), True, True, True, True
            )
            yield Subject(f"all options, elementwise: {what}", dtype, kernel, signature, 2, 0, 0, False, overhead=400)
        yield Subject("sum of weights", dtype, sums._total(), types.void(a, i8, *results), 1, 0, 0, False)
        signature = types.void(array(np.int64), i8, i8, a, i8, *results)
        yield Subject("sum of the weights of classes", dtype, sums._census(True), signature, 1, 0, 0, False)
        strided = types.Array(a.dtype, 4, "A")
        for make, first, last in ((copies.make_copy, strided, a), (copies.make_write, a, strided)):
            signature = types.void(first, i8, i8, i8, i8, last)
            yield Subject(f"{make.__name__}", dtype, copies._kernel(make, copies.THREADS), signature, 1, 0, 0, False)
        yield Subject("fill", dtype, copies._kernel(copies.make_fill, copies.THREADS), types.void(f8, i8, a), 1, 0, 0, False)
        kernel = copies._kernel(copies.make_sum_rows, copies.THREADS)
        yield Subject("sums of rows", dtype, kernel, types.void(a, i8, i8, a), 1, 0, 0, False)
    few, many = types.Array(types.uint16, 4, "A"), types.Array(types.uint32, 4, "A")
    flat_few, flat_many = (types.Array(t, 1, "C") for t in (types.uint16, types.uint32))
    for make, convert, first, last in (
        (copies.make_copy, bfloat.widened, few, flat_many), (copies.make_copy, bfloat.narrowed, many, flat_few),
        (copies.make_write, bfloat.narrowed, flat_many, few),
    ):  # fmt: skip
        kernel = copies._kernel(make, copies.THREADS, convert)
        signature = types.void(first, i8, i8, i8, i8, last)
        yield Subject(f"{make.__name__}, bfloat16 {convert.__name__}", "float32", kernel, signature, 1, 0, 0, False)
    half = types.Array(types.float16, 4, "A")
    kernel = copies._kernel(copies.make_copy, copies.THREADS)
    yield Subject(
        "make_copy from float16", "float32", kernel, types.void(half, i8, i8, i8, i8, array(np.float32)), 1, 0, 0, False
    )
    flat = types.Array(types.float16, 1, "C")
    strided = types.Array(types.float32, 4, "A")
    yield Subject("make_copy to float16", "float32", kernel, types.void(strided, i8, i8, i8, i8, flat), 1, 0, 0, False)


def functions() -> Iterator[Subject]:
    """sigmoid, softmax, their logarithms and vector-Jacobian products."""
    from numba import types

    from nlosses._cuda import classwise as rows
    from nlosses._cuda import elementwise, functions
    from nlosses._cuda._blocks import ABSENT
    from nlosses._maps import ELEMENTWISE
    from nlosses._spec import identity

    i8, f8 = types.int64, types.float64
    results = summing()
    for dtype, T in DTYPES.items():
        a, itemsize = array(T), np.dtype(T).itemsize
        operand = (a, i8, i8)
        signature = types.void(a, a, i8, *operand, *operand, *operand, *operand, a, f8, a, a, *results)
        for name, function in ELEMENTWISE.items():
            kinds = (0, ABSENT, ABSENT, ABSENT, ABSENT, ABSENT)
            kernel = elementwise._kernel(function, False, kinds, 16 // itemsize, None, False, False, False, True)
            loads, elements = 1 + name.endswith("backward"), 16 // itemsize * elementwise.VECTORS
            yield Subject(name, dtype, kernel, signature, elements, loads, 1, True, overhead=0)
        for classes, inner in ((10, 1), (1000, 1), (16384, 1), (50257, 1), (21, 4096), (150, 4096)):
            where = f"{classes} classes" + (" on inner axes" if inner > 1 else "")
            for name in ("softmax", "log_softmax"):
                plan = rows.plan(classes, inner, itemsize, False)
                width = width_of(plan, classes, itemsize)
                kernel = rows.kernel(identity, None, name, plan, width, *[False] * 9, itemsize)
                signature = types.void(a, a, a, a, a, a, i8, i8, i8, f8, f8, i8, f8, a, a, *results)
                passes = 1 if plan.single else 2
                yield Subject(
                    f"{name}, {where}", dtype, kernel, signature, plan.elements, passes, 1,
                    None if plan.staged else width > 1, overhead=512,
                )  # fmt: skip
                plan = rows.plan(classes, inner, itemsize, True)
                width = width_of(plan, classes, itemsize) if plan.lanes > 1 else 1
                kernel = functions.kernel(f"{name}_backward", plan, width)
                passes = 1 if plan.single else 2
                yield Subject(
                    f"{name}_backward, {where}", dtype, kernel, types.void(a, a, i8, i8, i8, a), plan.elements, 2 * passes, 1,
                    width > 1, overhead=512,
                )  # fmt: skip


def subjects() -> Iterator[Subject]:
    yield from elementwise()
    yield from classwise()
    yield from functions()
    yield from further()


# --- what comes out -----------------------------------------------------------------------------------------------------


def cubin(subject: Subject) -> bytes:
    """Machine code as it would be at run time: through link-time optimisation."""
    import numba.cuda.dispatcher as dispatcher
    from numba.cuda import compiler

    class Device:
        compute_capability = TARGET

    before = dispatcher.get_current_device
    dispatcher.get_current_device = Device  # numba-cuda asks the GPU that is not there, even where it is told the target
    try:
        library, _ = compiler._compile_pyfunc_with_fixup(
            subject.kernel.function, subject.signature, device=False, cc=(*TARGET, "a"), lto=True, abi="numba",
            launch_bounds=subject.kernel.bounds,
        )  # fmt: skip
    finally:
        dispatcher.get_current_device = before
    library._lto = True  # as the dispatcher sets it
    code = library.get_cubin(cc=(*TARGET, "a"))
    return code.code if hasattr(code, "code") else bytes(code)


PARAMETER = re.compile(r"Ordinal : 0x([0-9a-f]+)\s+Offset\s+: 0x([0-9a-f]+)\s+Size\s+: 0x([0-9a-f]+)")
USAGE = re.compile(r"REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)")
INSTRUCTION = re.compile(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P[0-9T]+ )?([A-Z0-9_.]+)", re.MULTILINE)
WIDE = ("DADD", "DMUL", "DFMA", "DSETP", "DMNMX")


def dumped(subject: Subject, *options: str) -> list[str]:
    """What cuobjdump tells of a kernel."""
    program = cuobjdump()
    assert program is not None
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "kernel.cubin")
        file.write_bytes(cubin(subject))
        beside = {"PATH": f"{Path(program).parent}:/usr/bin:/bin"}
        commands = [[program, option, str(file)] for option in options]
        return [subprocess.run(c, env=beside, capture_output=True, text=True, check=True).stdout for c in commands]


def parameters(subject: Subject) -> list[tuple[int, int]]:
    """Offset and size of each argument in the memory that a kernel takes them from, in order."""
    found = [tuple(int(n, 16) for n in some) for some in PARAMETER.findall(dumped(subject, "--dump-elf")[0])]
    return [(offset, size) for _, offset, size in sorted(found)]


def inspected(subject: Subject) -> Code:
    resources, code = dumped(subject, "--dump-resource-usage", "--dump-sass")
    usage = [tuple(map(int, found)) for found in USAGE.findall(resources)]
    counted = Counter(INSTRUCTION.findall(code))
    registers, stack, shared, local = (max(column) for column in zip(*usage, strict=True))
    itemsize = np.dtype(DTYPES[subject.dtype]).itemsize
    load16, store16 = (
        sum(n for op, n in counted.items() if op.startswith(f"{kind}.E") and ".128" in op) for kind in ("LDG", "STG")
    )
    found = 16 * (load16 + store16) / subject.elements if subject.vectors else None
    return Code(
        subject.what, subject.dtype, registers, stack, local, shared, load16, store16,
        sum(n for op, n in counted.items() if op.startswith(("LDL", "STL"))),
        sum(n for op, n in counted.items() if op.startswith(WIDE)), sum(counted.values()),
        itemsize * (subject.loads + subject.stores), found,
    )  # fmt: skip


COLUMNS = {
    "registers": "registers", "stack": "stack", "spills": "spills", "load16": "16-byte loads", "store16": "stores",
    "wide": "float64", "instructions": "instructions", "bytes_planned": "bytes/element planned", "bytes_found": "found",
}  # fmt: skip


def table(codes: list[Code]) -> str:
    head = ["kernel", "dtype", *COLUMNS.values()]
    rows = [head, ["---"] * len(head)]
    for code in codes:
        cells = [getattr(code, field) for field in COLUMNS]
        rows.append([code.what, code.dtype, *("" if c is None else f"{c:g}" for c in cells)])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def versions() -> dict[str, str]:
    names = ("numba", "numba-cuda", "numpy", "llvmlite", "nvidia-nvvm", "nvidia-nvjitlink", "nvidia-cuda-cuobjdump")
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cuda_code", description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="kernels whose description contains this; nothing is saved then")
    options = parser.parse_args(arguments)
    reason = missing()
    if reason:
        print(f"cuda_code: {reason}", file=sys.stderr)
        return 2
    codes = []
    for subject in subjects():
        if options.only in subject.what:
            codes.append(inspected(subject))
            print(
                f"{codes[-1].registers:4} registers, stack {codes[-1].stack}  {subject.what} {subject.dtype}", file=sys.stderr
            )
    text = table(codes)
    print(text)
    if not options.only:
        RESULTS.mkdir(exist_ok=True)
        facts = {"target": f"sm_{TARGET[0]}{TARGET[1]}a", "versions": versions(), "kernels": [asdict(c) for c in codes]}
        (RESULTS / "cuda_code.json").write_text(json.dumps(facts, indent=1) + "\n")
        lines = [f"{name} {version}" for name, version in facts["versions"].items()]
        made = f"Made by `python -m benchmarks.cuda_code` without a GPU, for {facts['target']}, with {', '.join(lines)}."
        (RESULTS / "cuda_code.md").write_text(f"# Machine code of the CUDA kernels\n\n{made}\n\n{text}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
