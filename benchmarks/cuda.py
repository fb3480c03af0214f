"""All that needs a GPU, in one command of under ten minutes: ``python -m benchmarks.cuda``.

Correctness on the device, the same bits twice, bad class indices, arrays of other libraries, the gradient checker, speed
against torch where that is installed and against a copy, the host's part of a call, and a memory checker.  One JSON and one
readable table go to ``benchmarks/results``, after each part.  Without a GPU it ends with status 2 and a line that says so;
`benchmarks.cuda_code` looks at the kernels without one.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from importlib import metadata, util
from pathlib import Path
from typing import Any

import nlosses as nl

from . import _cuda_correct, _cuda_speed, cuda_code
from ._cuda_row import Row, failed

RESULTS = Path(__file__).parent / "results"

PARTS: dict[str, Callable[[bool], Iterator[Row]]] = {
    "correct": lambda compiled: _cuda_correct.correctness(),
    "bad index": lambda compiled: _cuda_correct.bad_targets(),
    "library": lambda compiled: _cuda_correct.libraries(),
    "speed": _cuda_speed.speed,
    "launch": lambda compiled: _cuda_speed.launches(),
    "verified": lambda compiled: _cuda_correct.verification(),
    "memory": lambda compiled: _cuda_correct.memory_checker(),
}


def missing() -> str | None:
    """What keeps this from running, if anything."""
    if util.find_spec("numba_cuda") is None:
        return "numba-cuda is not installed: pip install -e '.[cuda]'"
    from numba import config, cuda

    if config.ENABLE_CUDASIM:
        return "the simulator is on, which times nothing: unset NUMBA_ENABLE_CUDASIM"
    return None if cuda.is_available() else "no CUDA device or no driver was found"


def facts() -> dict[str, Any]:
    from numba import cuda

    device = cuda.get_current_device()
    versions = cuda_code.versions()
    for name in ("torch", "cupy-cuda13x", "jax", "cuda-bindings"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            pass
    return {
        "device": device.name.decode() if isinstance(device.name, bytes) else device.name,
        "compute_capability": list(device.compute_capability), "date": time.strftime("%Y-%m-%d"),
        "python": platform.python_version(), "versions": versions, "nlosses": nl.__version__,
    }  # fmt: skip


# --- what is written ----------------------------------------------------------------------------------------------------------


def document(known: dict[str, Any], rows: list[Row]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in known["versions"].items())
    paragraphs = [
        "# On the GPU",
        f"Made by `python -m benchmarks.cuda` on {known['date']}: {known['device']}, Python {known['python']}, {versions}.",
    ]
    for part, heading, made in (
        ("correct", "Beside the CPU in float64", summary), ("bad index", "Class indices out of range", summary),
        ("library", "Arrays of other libraries", plain), ("verified", "The gradient checker", plain),
        ("ceiling", "The ceiling", plain), ("speed", "Value and gradient, `out=` given", comparison),
        ("launch", "The host's part of a small call", plain), ("memory", "Memory checker", plain),
    ):  # fmt: skip
        some = [row for row in rows if row.part == part]
        if some:
            paragraphs += [f"## {heading}", made(some)]
    return "\n\n".join(paragraphs) + "\n"


def markdown(head: list[str], body: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *body))


def plain(rows: list[Row]) -> str:
    return markdown(
        ["case", "outcome"], [[row.case, row.outcome + ("" if row.good in (None, True) else " **NO**")] for row in rows]
    )


def summary(rows: list[Row]) -> str:
    """Only what is not as it should be, one by one."""
    bad = [row for row in rows if row.good is False]
    text = f"{len(rows) - len(bad)} of {len(rows)} cases are as they should be."
    return text if not bad else f"{text}\n\n{plain(bad)}"


def comparison(rows: list[Row]) -> str:
    """One line for each case: the time, what a copy of as many bytes would take of it, and how much longer the peers take."""
    peers = list(dict.fromkeys(row.contender for row in rows if row.contender != "nlosses"))
    body = []
    for case in dict.fromkeys(row.case for row in rows):
        of = {row.contender: row for row in rows if row.case == case}
        if "nlosses" not in of or of["nlosses"].seconds is None:
            continue
        own = of["nlosses"]
        cells = [case, f"{own.seconds * 1e3:.3f} ms", f"{own.of_copy:.2f}"]
        for peer in peers:
            row = of.get(peer)
            cells.append("" if row is None else f"{row.seconds / own.seconds:.2f} x" if row.seconds else row.outcome)
        body.append(cells)
    return markdown(["case", "nlosses", "of the copy rate", *peers], body)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cuda", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for cuda.json and cuda.md")
    parser.add_argument("--part", action="append", choices=PARTS, help="only this part; may be repeated")
    parser.add_argument("--no-compile", action="store_true", help="leave out torch.compile, which takes minutes")
    options = parser.parse_args(arguments)
    reason = missing()
    if reason:
        print(f"benchmarks.cuda needs a GPU: {reason}", file=sys.stderr)
        return 2
    rows: list[Row] = []
    start = time.perf_counter()
    known = facts()
    options.out.mkdir(parents=True, exist_ok=True)

    def told(row: Row) -> None:
        rows.append(row)
        mark = "" if row.good in (None, True) else "  <--"
        line = (f"{time.perf_counter() - start:6.1f} s", row.part, row.case, row.contender, row.outcome, mark)
        print(*line, sep="  ", file=sys.stderr, flush=True)

    for part in options.part or list(PARTS):
        try:
            for row in PARTS[part](not options.no_compile):
                told(row)
        except Exception as error:
            told(failed(part, "all of it", error))
        (options.out / "cuda.json").write_text(json.dumps({**known, "rows": [asdict(r) for r in rows]}, indent=1) + "\n")
        (options.out / "cuda.md").write_text(document(known, rows))
    print(document(known, rows))
    return 1 if any(row.good is False for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
