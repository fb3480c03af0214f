"""Two runs beside each other: which quotients have got worse by more than noise."""

from __future__ import annotations

from collections.abc import Iterator
from math import hypot
from typing import Any, NamedTuple

from . import _machine, _tables, _terminal
from ._tables import OWN, OWN_OUT, RATIOS, SHARES, Record, mean, ratio


class Worse(NamedTuple):
    """A quotient nlosses / other of one case, then and now."""

    case: str
    other: str
    before: float
    now: float
    band: float  # what now / before - 1 may be

    @property
    def regressed(self) -> bool:
        return self.now / self.before > 1 + self.band


def quotients(old: dict[str, Any], new: dict[str, Any], band: float) -> Iterator[Worse]:
    """All that both runs have, with the band that each is allowed: the stated one, or how far its rounds lay apart."""
    before = {record["name"]: record for record in old["cases"]}
    for record in new["cases"]:
        if record["name"] not in before:
            continue
        then: Record = before[record["name"]]
        for other, own, least in RATIOS + SHARES:
            was, now = ratio(then, own, other, least), ratio(record, own, other, least)
            if was is not None and now is not None:
                noise = hypot(*(r["spread"].get(name, 0.0) for r in (then, record) for name in (own, other)))
                yield Worse(record["name"], ("out= / " if own == OWN_OUT else "") + other, was, now, max(band, noise))


def show(old: dict[str, Any], new: dict[str, Any], band: float) -> bool:
    """Print what has got worse; whether anything has."""
    console = _terminal.console()
    found = list(quotients(old, new, band))
    worse = sorted((q for q in found if q.regressed), key=lambda q: q.before / q.now)
    date = old["facts"]["date"]
    console.print(f"Compared with the run of {date}: {len(found)} quotients nlosses / other, band {100 * band:.0f} %")
    for fact in ("machine", "threads", "versions"):
        if old["facts"][fact] != new["facts"][fact]:
            console.print(f"  {fact} differ: then {old['facts'][fact]}; now {new['facts'][fact]}")
    if any(_machine.BUSY in run["facts"]["load"] for run in (old, new)):
        console.print("  the machine was busy: what follows may be due to that")
    if found:
        for other in dict.fromkeys(q.other for q in found):
            change = mean(q.now / q.before for q in found if q.other == other)
            console.print(f"  {OWN} / {other}: {100 * ((change or 1) - 1):+.1f} % on average")
    if worse:
        made = _tables.table("Worse than before", "case", ("against", "then", "now", "change", "allowed"))
        for q in worse:
            change = q.now / q.before - 1
            made.add_row(q.case, q.other, f"{q.before:.3f}", f"{q.now:.3f}", f"{100 * change:+.0f} %", f"{100 * q.band:.0f} %")
        console.print(made)
    else:
        console.print("Nothing is worse than before.")
    return bool(worse)
