"""Tables of what was measured, and the quotients in them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import exp, log
from statistics import median
from typing import Any

from . import _terminal

OWN, OWN_NEW, OWN_OUT, OWN_IN = "nlosses", "nlosses, new memory", "nlosses, out=", "nlosses, out=input"
OWN_CACHED = "nlosses, in the cache"  # the first positions of a large case, and so often that it makes as many elements
LIMIT = "limit, kept"  # in memory that is kept; earlier runs had a "limit" in new memory
PEERS = ("torch eager", "torch.compile", "jax", "scikit-learn", "numpy")
OWN_ALL = (OWN, OWN_OUT, OWN_IN)  # the table of new memory is that of scaling
CONTENDERS = (*OWN_ALL, OWN_NEW, *PEERS, LIMIT)
#: In the tables, which are wide.
HEADS = {
    OWN_NEW: "new memory", OWN_OUT: "out=", OWN_IN: "out=input", LIMIT: "limit",
    "torch eager": "torch", "torch.compile": "compile", "scikit-learn": "sklearn",
}  # fmt: skip
#: Quotients of a case: what is divided by what, and from which bytes on: a call costs as much as to move some 100 kB.
RATIOS = tuple((peer, OWN, 0) for peer in PEERS)
SHARES = ((LIMIT, OWN, 1_000_000), (LIMIT, OWN_OUT, 1_000_000))
#: Shares of the limit that a loss of each family should reach where its arrays exceed the cache.
AIM = {"elementwise": 0.9, "classwise": 0.8}

#: Of one case: name, loss, shape, dtype, option, reduction, bytes, seconds, spread, and of some the seconds found `again`.
Record = dict[str, Any]


def duration(t: float | None) -> str:
    """A time in the unit that fits."""
    if t is None:
        return "-"
    scale, unit = next((s, u) for s, u in ((1e6, "us"), (1e3, "ms"), (1, "s")) if t * s < 1000 or s == 1)
    return f"{t * scale:.3g} {unit}" if t * scale < 999.5 else f"{t * scale:.0f} {unit}"


def ratio(record: Record, above: str, below: str, least: int = 0) -> float | None:
    """Quotient of two times of one case, if both are there and the case moves enough bytes: the median of all visits."""
    visits = [s for s in (record["seconds"], *record.get("again", ())) if above in s and below in s]
    return median(s[above] / s[below] for s in visits) if visits and record["bytes"] >= least else None


def mean(ratios: Iterable[float | None]) -> float | None:
    """Geometric mean of the ratios that exist."""
    logs = [log(r) for r in ratios if r is not None]
    return exp(sum(logs) / len(logs)) if logs else None


def written(r: float | None, share: bool = False) -> str:
    return "-" if r is None else f"{100 * r:.0f} %" if share else f"{r:.3g} x" if r >= 10 else f"{r:.2f} x"


def table(title: str, first: str, columns: Iterable[str]) -> Any:
    """An empty table whose columns but the first hold numbers."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    made = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    made.add_column(first, no_wrap=True)
    for name in columns:
        made.add_column(HEADS.get(name, name), justify="right")
    return made


def label(record: Record) -> str:
    """Name of a case among those of its loss."""
    shape = " x ".join(f"{n:,}" for n in record["shape"])
    reduction = "" if record["reduction"] == "mean" else record["reduction"]
    return " ".join(word for word in (shape, record["dtype"], record["option"], reduction) if word)


def cases(records: Sequence[Record]) -> None:
    """A table of each loss, and the geometric means of each precision."""
    console = _terminal.console()
    present = {name for record in records for name in record["seconds"]}
    quotients = [q for q in RATIOS + SHARES if set(q[:2]) <= present]
    heads = [name if own == OWN else f"{HEADS[name]}, {HEADS[own]}" for name, own, _ in quotients]
    peers = sum(name in PEERS for name, _, _ in quotients)

    def cells(records: Sequence[Record]) -> list[str]:
        found = [mean(ratio(record, *q) for record in records) for q in quotients]
        return [written(r, share=k >= peers) for k, r in enumerate(found)]

    for loss in dict.fromkeys(record["loss"] for record in records):
        made = table(loss, "case", (*OWN_ALL, *heads))
        for record in (record for record in records if record["loss"] == loss):
            own = (duration(record["seconds"].get(name)) for name in OWN_ALL)
            made.add_row(label(record), *own, *cells([record]))
        console.print(made)

    made = table("Geometric means", "cases", ("", *heads))
    dtypes = sorted({record["dtype"] for record in records})
    for loss in (*dict.fromkeys(record["loss"] for record in records), ""):
        for dtype in dtypes:
            chosen = [record for record in records if record["dtype"] == dtype and loss in ("", record["loss"])]
            if chosen:
                made.add_row(f"{loss or 'all'} {dtype}", str(len(chosen)), *cells(chosen), end_section=dtype == dtypes[-1])
    console.print(made)
    console.print(
        f"Of a peer: how many times as long as {OWN} it takes, both with fresh gradients, for which each gets its memory in\n"
        f"its own way: {OWN} takes that of the last large one, which is gone.  Of the limit: the time of a loop that only\n"
        "moves the bytes, as a share of the loss' time; of cases that move a megabyte or more."
    )


def short_of_aim(records: Iterable[Record]) -> list[tuple[Record, list[float]]]:
    """Cases beyond the cache with a share of the limit below the aim, with both shares, and that of its own time which `OWN`
    takes where all is in the cache: near 1 it is arithmetic that takes the time, and no memory.
    """
    found = []
    for record in records:
        shares = [ratio(record, LIMIT, OWN), ratio(record, LIMIT, OWN_OUT), ratio(record, OWN_CACHED, OWN)]
        if OWN_CACHED in record["seconds"] and min(shares[:2]) < AIM[record["family"]]:
            found.append((record, shares))
    return found


def limits(records: Sequence[Record]) -> None:
    """A table of what falls short of the limit."""
    if found := short_of_aim(records):
        made = table("Short of the limit, where arrays exceed the cache", "case", ("limit", "limit, out=", "in the cache"))
        for record, shares in found:
            made.add_row(f"{record['loss']} {label(record)}", *(written(share, share=True) for share in shares))
        _terminal.console().print(made)
        _terminal.console().print(
            f"In the cache: the time that so many elements take there, as a share of that of {OWN}.  All three are medians of\n"
            "visits to a case in the course of a run."
        )


def per_element(records: Sequence[Record]) -> None:
    """Cost of an element, against size and number of classes."""
    for loss in dict.fromkeys(record["loss"] for record in records):
        chosen = [record for record in records if record["loss"] == loss]
        names = [name for name in CONTENDERS if any(name in record["seconds"] for record in chosen)]
        made = table(f"{loss}: nanoseconds per element of the input", "shape", names)
        for record in chosen:
            of = {name: f"{1e9 * t / record['elements']:.3g}" for name, t in record["seconds"].items()}
            made.add_row(label(record), *(of.get(name, "-") for name in names))
        _terminal.console().print(made)


def threads(found: Sequence[dict[str, Any]]) -> None:
    """Time with each number of threads, and how many times as fast as with one."""
    for name in dict.fromkeys(row["name"] for row in found):
        rows = [row for row in found if row["name"] == name]
        names = [n for n in CONTENDERS if n in rows[0]["seconds"]]
        made = table(f"{name}: time (speed relative to one thread)", "threads", names)
        for row in rows:
            pairs = ((row["seconds"][n], rows[0]["seconds"][n]) for n in names)
            made.add_row(str(row["threads"]), *(f"{duration(t)} ({one / t:.2f} x)" for t, one in pairs))
        _terminal.console().print(made)
