"""The figures of speed in README.md, from the runs that are kept in results/speed.json and results/cuda.json.

``python -m benchmarks.readme`` prints what stands between the marks in README.md, and with ``--write`` puts it there.
"""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from . import _cases
from ._cuda_row import Row
from ._tables import (
    OWN,
    OWN_CACHED,
    OWN_IN,
    OWN_NEW,
    OWN_OUT,
    PEERS,
    SHARES,
    Record,
    duration,
    label,
    mean,
    ratio,
    short_of_aim,
    written,
)

README = Path(__file__).parents[1] / "README.md"
RESULTS = Path(__file__).parent / "results"
RUN, GPU_RUN = RESULTS / "speed.json", RESULTS / "cuda.json"
BEGIN, END = "<!-- speed: python -m benchmarks.readme -->\n", "<!-- end of speed -->\n"
GPU_BEGIN, GPU_END = "<!-- gpu: python -m benchmarks.readme -->\n", "<!-- end of gpu -->\n"
ELEMENTWISE = _cases.SCALED["elementwise"]
NAMES = {"jax": "JAX", "numpy": "NumPy"}


def block(results: dict[str, Any]) -> str:
    """What stands between the marks."""
    by_name = {record["name"]: record for record in results["cases"]}
    parts = [
        _origin(results["facts"]),
        _headline([by_name[case.name] for case in _cases.headline()]),
        _all([by_name[name] for name in results["parts"]["losses"]]),
        _arrays(by_name),
        _short(results["cases"]),
        _scaling([by_name[name] for name in results["parts"]["scaling"]], results["threads"]),
        _processes(results["process"]["first"]),
    ]
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def _origin(facts: dict[str, str]) -> Iterator[str]:
    load = facts["load"].partition(",")[0]
    yield f"One run ([all of its figures](benchmarks/results/speed.json)) of {facts['date']}: {facts['machine']}, of which"
    yield f"{facts['threads']} used, cache of {facts['cache']}, load when it began {load}; {facts['versions']}."


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    for row in (heads, ["---"] * len(heads), *rows):
        yield f"| {' | '.join(row)} |"


def _named(names: Sequence[str]) -> list[str]:
    return [NAMES.get(name, name) for name in names]


def _headline(records: Sequence[Record]) -> Iterator[str]:
    yield "In float32, how many times as long others take, and the speed as a share of the limit:"
    yield ""
    rows, loss = [], ""
    for record in records:
        shape = " x ".join(f"{n:,}" for n in record["shape"])
        name = shape if record["loss"] == loss else f"`{record['loss']}` {shape}"
        loss = record["loss"]
        peers = [_cell(ratio(record, peer, OWN)) for peer in PEERS]
        shares = [_cell(ratio(record, *share), share=True) for share in SHARES]
        rows.append((name, duration(record["seconds"][OWN]), *peers, *shares))
        if OWN_NEW in record["seconds"]:
            anew = (_cell(ratio(record, peer, OWN_NEW)) for peer in PEERS)
            rows.append((f"{shape}, in new memory", duration(record["seconds"][OWN_NEW]), *anew, "", ""))
    rows.append(("geometric mean", "", *(_cell(mean(ratio(r, peer, OWN) for r in records)) for peer in PEERS), "", ""))
    yield from _table(("case", OWN, *_named(PEERS), "of the limit", "with `out=`"), rows)


def _all(records: Sequence[Record]) -> Iterator[str]:
    yield "All losses, sizes, options and reductions:"
    yield ""
    rows = []
    for dtype in _cases.DTYPES:
        chosen = [record for record in records if record["dtype"] == dtype]
        found = [[q for r in chosen if (q := ratio(r, peer, OWN)) is not None] for peer in PEERS]
        rows.append((f"{dtype}, {len(chosen)} cases: geometric mean", *(_cell(mean(quotients)) for quotients in found)))
        anew = [[ratio(r, peer, OWN_NEW if OWN_NEW in r["seconds"] else OWN) for r in chosen] for peer in PEERS]
        rows.append(("with large gradients in new memory", *(_cell(mean(quotients)) for quotients in anew)))
        rows.append(("the least", *(_cell(min(quotients, default=None)) for quotients in found)))
        faster = (str(sum(q < 1 for q in quotients)) if quotients else "" for quotients in found)
        rows.append(("cases where the other is faster", *faster))
    yield from _table(("", *_named(PEERS)), rows)


def _arrays(by_name: dict[str, Record]) -> Iterator[str]:
    yield f"`{ELEMENTWISE}` with a fresh gradient in new memory of the system, in that of an earlier one, with `out=`, and"
    yield "with `out=` that is the input; in brackets, how many times as fast as the first:"
    yield ""
    rows = []
    for n in (10, 10_000_000):
        seconds = by_name[_cases.Case(ELEMENTWISE, (n,)).name]["seconds"]
        first, *rest = [name for name in (OWN_NEW, OWN, OWN_OUT, OWN_IN) if name in seconds]
        times = [duration(seconds[first]), *(f"{duration(seconds[k])} ({seconds[first] / seconds[k]:.2f} x)" for k in rest)]
        rows.append((f"{n:,}", *[""] * (4 - len(times)), *times))
    yield from _table(("elements", "new memory", "of an earlier one", "`out=`", "`out=input`"), rows)


def _short(records: Sequence[Record]) -> Iterator[str]:
    beyond = [r for r in records if OWN_CACHED in r["seconds"]]
    found = short_of_aim(records)
    yield f"In {len(found)} of {len(beyond)} cases whose arrays exceed the cache, a fresh gradient or one with `out=` has less"
    yield "than 90 % (elementwise) or 80 % (classwise) of the limit's speed.  The last column is the time that as many elements"
    yield "take in the cache, as a share of that beyond it: near 100 % arithmetic is what takes the time.  All are medians of"
    yield f"{1 + min((len(r.get('again', ())) for r in beyond), default=0)} visits in the course of the run."
    yield ""
    rows = [(f"`{r['loss']}` {label(r)}", *(_cell(share, share=True) for share in shares)) for r, shares in found]
    yield from _table(("case", "of the limit", "with `out=`", "in the cache"), rows)


def _scaling(records: Sequence[Record], threads: Sequence[dict[str, Any]]) -> Iterator[str]:
    yield "Nanoseconds an element with `out=`, against the number of elements and of classes:"
    for loss, axis, first in ((ELEMENTWISE, "elements", 10_000), (_cases.SCALED["classwise"], "classes", 2)):
        chosen = [r for r in records if r["loss"] == loss and r["shape"][-1] >= first]
        costs = [f"{1e9 * r['seconds'][OWN_OUT] / r['elements']:.2g}" for r in chosen]
        yield ""
        yield from _table((axis, *(f"{r['shape'][-1]:,}" for r in chosen)), [(f"`{loss}`", *costs)])
    yield ""
    yield "Speed relative to one thread:"
    yield ""
    rows = []
    for name in dict.fromkeys(row["name"] for row in threads):
        times = [row["seconds"][OWN_OUT] for row in threads if row["name"] == name]
        rows.append((f"`{name}`", *(f"{times[0] / t:.2f} x" for t in times)))
    yield from _table(("threads", *(str(n) for n in dict.fromkeys(row["threads"] for row in threads))), rows)


def _processes(first: dict[str, dict[str, list[float]]]) -> Iterator[str]:
    yield "A fresh process, cross entropy of 32 x 10; cold is without compiled code on the disk, warm with it:"
    yield ""
    figures = ("import", "cold", "warm")
    rows = [
        (NAMES.get(name, name), *(duration(median(found[figure]) if found[figure] else None) for figure in figures))
        for name, found in first.items()
    ]
    yield from _table(("", "import", "first gradient, cold", "warm"), rows)


def _cell(quotient: float | None, share: bool = False) -> str:
    return "" if quotient is None else written(quotient, share)


# --- on the GPU ---------------------------------------------------------------------------------------------------------------


def gpu_block(results: dict[str, Any]) -> str:
    """The range over all cases, those that every peer was tried on, and the host's part of a small call."""
    from .cuda import comparison

    rows = [Row(**row) for row in results["rows"]]
    bad = sum(row.good is False for row in rows)
    seconds = {(row.case, row.contender): row.seconds for row in rows if row.seconds}
    speed = [row for row in rows if row.part == "speed"]
    peers = list(dict.fromkeys(row.contender for row in speed if row.contender != OWN))
    ranges = []
    for peer in peers:
        quotients = [t / seconds[case, OWN] for (case, contender), t in seconds.items() if contender == peer]
        ranges.append(f"{peer} takes {min(quotients):.3g} to {max(quotients):.3g} times as long ({len(quotients)} cases)")
    everywhere = [row for row in speed if all((row.case, peer) in seconds for peer in peers)]
    host = {row.case: row.outcome for row in rows if row.part == "launch"}
    small = "mse_loss.value_and_grad of 1024, fetched, torch's tensors"
    ceiling = next(row.outcome for row in rows if row.part == "ceiling")
    checks = f"{bad} checks failed" if bad else "all checks passed"
    text = (
        f"{results['device']}, {results['date']}; {checks}.  Value and gradient with `out=`, timed as whole calls until the "
        f"value is on the host: {'; '.join(ranges)}.  `mse_loss` of 1,024 elements of torch's takes {host[small]}, torch "
        f"itself {host['the same by torch itself']}.  A copy moves {ceiling}."
    )
    return f"{textwrap.fill(text, 126, break_long_words=False)}\n\n{comparison(everywhere)}\n"


def _put(page: str, begin: str, text: str, end: str) -> str:
    if page.count(begin) != 1 or page.count(end) != 1 or page.index(end) < page.index(begin):
        raise ValueError(f"{README} must have a line {begin.strip()} and after it a line {end.strip()}")
    before, _, rest = page.partition(begin)
    return before + begin + text + end + rest.partition(end)[2]


def main(argv: list[str] | None = None) -> int:
    """Run the program; the exit status."""
    parser = argparse.ArgumentParser("python -m benchmarks.readme", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="into README.md")
    args = parser.parse_args(argv)
    texts = ((BEGIN, block(json.loads(RUN.read_text())), END), (GPU_BEGIN, gpu_block(json.loads(GPU_RUN.read_text())), GPU_END))
    if not args.write:
        print("\n".join(text for _, text, _ in texts), end="")
        return 0
    page = README.read_text()
    try:
        for begin, text, end in texts:
            page = _put(page, begin, text, end)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    README.write_text(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
