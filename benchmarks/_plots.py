"""Plots of a run: time against size, share of the limit, scaling, fresh processes.

Each is a PNG and an SVG, labelled with machine, date and versions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from textwrap import fill
from typing import Any

import matplotlib as mpl

from ._report import STYLE
from ._tables import CONTENDERS, LIMIT, OWN, OWN_IN, OWN_NEW, OWN_OUT, SHARES, Record, label, ratio

mpl.use("agg")
#: Okabe and Ito's; what belongs together has one color.
COLORS = {
    OWN: "#d55e00", OWN_OUT: "#d55e00", OWN_IN: "#8c3e00", OWN_NEW: "#f0b48c", "torch eager": "#0072b2",
    "torch.compile": "#56b4e9", "jax": "#009e73", "scikit-learn": "#cc79a7", "numpy": "#e69f00", LIMIT: "#555555",
}  # fmt: skip
KEPT = (OWN_OUT, OWN_IN, LIMIT)  # results in memory of the caller's
PANEL, FOOTER = (4.2, 3.6), 0.55  # inches
COLUMNS = 4


def draw(results: dict[str, Any], folder: Path) -> list[Path]:
    """Draw what the results have; the files."""
    from matplotlib import pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    files = []
    with plt.rc_context(STYLE | {"svg.hashsalt": "nlosses"}):
        for name, figure in _figures(results):
            origin = " | ".join(results["facts"][fact] for fact in ("machine", "date", "versions"))
            origin += f" | threads: {results['facts']['threads']}, load: {results['facts']['load']}"
            text = fill(origin, int(15 * figure.get_figwidth()))
            figure.text(0.01, 0.005, text, fontsize=7, color="#555555", va="bottom")
            figure.get_layout_engine().set(rect=(0, FOOTER / figure.get_figheight(), 1, 1 - FOOTER / figure.get_figheight()))
            for kind in ("png", "svg"):
                files.append(folder / f"speed-{name}.{kind}")
                figure.savefig(files[-1], dpi=140, metadata={"Date": None} if kind == "svg" else None)
            plt.close(figure)
    return files


def _figures(results: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    scaling = set(results["parts"].get("scaling", ()))
    of_losses = {name for part in ("headline", "losses") for name in results["parts"].get(part, ())}
    plain = [r for r in results["cases"] if r["name"] in of_losses and not r["option"] and r["reduction"] == "mean"]
    for dtype in dict.fromkeys(r["dtype"] for r in plain):
        yield f"time-{dtype}", _times([r for r in plain if r["dtype"] == dtype])
    if large := [r for r in results["cases"] if any(ratio(r, *q) is not None for q in SHARES)]:
        yield "limit", _shares(large)
    scaled = [r for r in results["cases"] if r["name"] in scaling]
    if scaled or results["threads"]:
        yield "scaling", _scaling(scaled, results["threads"])
    if first := results["process"].get("first"):
        yield "process", _process(first)


def _panels(count: int, **size: Any) -> tuple[Any, list[Any]]:
    """A figure with so many axes in rows."""
    from matplotlib import pyplot as plt

    columns = min(count, COLUMNS)
    rows = -(-count // columns)
    figsize = size.get("figsize", (max(6.0, PANEL[0] * columns), PANEL[1] * rows + FOOTER))
    figure, axes = plt.subplots(rows, columns, figsize=figsize, layout="constrained", squeeze=False)
    for ax in axes.flat[count:]:
        ax.set_axis_off()
    return figure, list(axes.flat[:count])


def _lines(ax: Any, records: Sequence[Record], x: str, per: str | None = None, joined: bool = True) -> None:
    """A line of each contender on logarithmic axes, dashed where results go to kept memory."""
    records = sorted(records, key=lambda r: r[x])
    for name in CONTENDERS:
        points = [(r[x], r["seconds"][name] / (r[per] if per else 1)) for r in records if name in r["seconds"]]
        if points:
            color, line = ("white", "--") if name in KEPT else (COLORS[name], "-")
            style = {"color": COLORS[name], "mfc": color, "ls": line if joined else ""}
            ax.plot(*zip(*points, strict=True), marker="o", ms=3.5, lw=1.2, label=name, **style)
    ax.set(xscale="log" if joined else "linear", yscale="log")
    ax.grid(alpha=0.25)


def _legend(figure: Any, axes: Sequence[Any]) -> None:
    """One for all panels, at the top."""
    found = {text: line for ax in axes for line, text in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(found.values(), found.keys(), loc="outside upper center", ncols=len(found), fontsize=8)


def _times(records: Sequence[Record]) -> Any:
    """Time of value and gradient against size, a panel a loss."""
    losses = list(dict.fromkeys(r["loss"] for r in records))
    figure, axes = _panels(len(losses))
    for ax, loss in zip(axes, losses, strict=True):
        chosen = [r for r in records if r["loss"] == loss]
        ax.set_title(f"{loss}, {chosen[0]['dtype']}", fontsize=9)
        ax.set_ylabel("seconds, value and gradient")
        if len(chosen[0]["shape"]) == 1:
            _lines(ax, chosen, "elements")
            ax.set_xlabel("elements of the input")
        else:  # shapes are not one series
            _lines(ax, [{**r, "place": place} for place, r in enumerate(chosen)], "place", joined=False)
            shapes = ["\n".join(f"{n:,}" for n in r["shape"]) for r in chosen]
            ax.set_xlabel("shape of the input")
            ax.set_xticks(range(len(chosen)), shapes, fontsize=7)
    _legend(figure, axes)
    return figure


def _shares(records: Sequence[Record]) -> Any:
    """Time of the loop that only moves the bytes as a share of the loss', a row a case."""
    figure, (ax,) = _panels(1, figsize=(9, 1.2 + 0.17 * len(records) + FOOTER))
    rows = range(len(records))[::-1]
    for (limit, own, least), filled in zip(SHARES, (True, False), strict=True):
        points = [(ratio(r, limit, own, least), row) for r, row in zip(records, rows, strict=True)]
        known = [(100 * share, row) for share, row in points if share is not None]
        style = {"color": COLORS[OWN], "mfc": COLORS[OWN] if filled else "white", "ls": "", "marker": "o", "ms": 4}
        ax.plot(*zip(*known, strict=True), label=f"{own} / {limit}", **style)
    ax.set_yticks(rows, [f"{r['loss']}  {label(r)}" for r in records], fontsize=6.5)
    ax.axvline(100, color=COLORS[LIMIT], lw=1)
    ax.set(xlabel="share of the speed of a loop that only moves the bytes, %", ylim=(-1, len(records)))
    ax.set_xlim(left=0)
    ax.grid(alpha=0.25)
    _legend(figure, [ax])
    return figure


def _scaling(records: Sequence[Record], threads: Sequence[dict[str, Any]]) -> Any:
    """Cost of an element against size and classes, and speed against threads."""
    series = [[r for r in records if len(r["shape"]) == n] for n in (1, 2)]
    by_threads = list(dict.fromkeys(row["name"] for row in threads))
    figure, axes = _panels(sum(map(bool, series)) + len(by_threads))
    rest = iter(axes)
    for found, what in zip(series, ("elements", "classes"), strict=True):
        if found:
            ax = next(rest)
            _lines(ax, [{**r, "classes": r["shape"][-1]} for r in found], what, "elements")
            ax.set_title(f"{found[0]['loss']}, {found[0]['dtype']}", fontsize=9)
            constant = "" if what == "elements" else f" ({found[0]['elements']:,} elements)"
            ax.set(xlabel=what + constant, ylabel="seconds per element")
    for name, ax in zip(by_threads, rest, strict=True):
        rows = [row for row in threads if row["name"] == name]
        _lines(ax, rows, "threads")
        ax.set_title(name, fontsize=9)
        ax.set_xticks(counts := [row["threads"] for row in rows], [str(n) for n in counts], minor=False)
        ax.set(xlabel="threads", ylabel="seconds, value and gradient")
    _legend(figure, axes)
    return figure


def _process(first: dict[str, dict[str, list[float]]]) -> Any:
    """Bars of import and first gradients; every single process is a dot."""
    figure, (ax,) = _panels(1, figsize=(8, 4 + FOOTER))
    kinds = (("import", "import"), ("cold", "first gradient, cold"), ("warm", "first gradient, warm"))
    width = 0.8 / len(first)
    for k, (name, figures) in enumerate(first.items()):
        for place, (figure_name, _) in enumerate(kinds):
            times = figures[figure_name]
            if times:
                at = place + (k - (len(first) - 1) / 2) * width
                ax.bar(at, median(times), 0.9 * width, color=COLORS[name], label=name if place == 0 else None)
                ax.plot([at] * len(times), times, "k.", ms=3)
    ax.set_xticks(range(len(kinds)), [text for _, text in kinds])
    ax.set(yscale="log", ylabel="seconds", title="Fresh processes: cross entropy of 32 x 10")
    ax.grid(axis="y", alpha=0.25)
    _legend(figure, [ax])
    return figure
