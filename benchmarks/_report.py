"""Table, checks and plot of `benchmarks.real_data`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from . import _terminal

COLORS = {"L-BFGS-B": "#0072b2", "momentum SGD": "#d55e00", "teacher": "#333333"}  # Okabe and Ito's
STYLE: Any = {
    "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 12, "axes.titleweight": "bold",
    "font.size": 10.5, "legend.frameon": False,
}  # fmt: skip


class Curve(NamedTuple):
    """A line of a panel; lines with one label are draws of the same experiment."""

    label: str
    passes: list[int]
    losses: list[float]


@dataclass
class Report:
    """Everything that has been found so far."""

    tolerance: float = 1e-6  # relative difference of the objective from scikit-learn's
    rows: list[tuple[str, str, str, str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    panels: dict[str, list[Curve]] = field(default_factory=dict)
    optima: dict[str, float] = field(default_factory=dict)  # scikit-learn's objective, by panel

    def check(self, holds: bool, text: str) -> None:
        """Note a statement that holds or fails."""
        (self.notes if holds else self.failures).append(text)

    def row(self, model: str, trainer: str, objective: float, accuracy: float, seconds: float) -> None:
        """Add a row to the table."""
        self.rows.append((model, trainer, f"{objective:.8f}", f"{100 * accuracy:.2f} %", f"{seconds:.2f}"))

    def show(self) -> None:
        """Print the table, what holds and what fails."""
        from rich.box import SIMPLE_HEAD
        from rich.table import Table

        console = _terminal.console()
        title = "Training objective (mean loss + penalty), accuracy on held-out data"
        table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
        table.add_column("model")
        table.add_column("trainer")
        for name in ("objective", "accuracy", "seconds"):
            table.add_column(name, justify="right")
        for k, row in enumerate(self.rows):
            table.add_row(*row, end_section=k + 1 < len(self.rows) and self.rows[k + 1][0] != row[0])
        console.print(table)
        for word, color, texts in (("holds", "green", self.notes), ("FAILS", "red", self.failures)):
            for text in texts:
                console.print(f"[{color}]{word}[/]  {text}")

    def plot(self, file: Path) -> None:
        """Draw a panel a task."""
        import matplotlib

        matplotlib.use("agg")
        from matplotlib import pyplot as plt

        n = len(self.panels)
        with plt.rc_context(STYLE):
            figure, axes = plt.subplots(1, n, figsize=(5.1 * n, 4.9), layout="constrained", squeeze=False)
            figure.get_layout_engine().set(wspace=0.04)
            for ax, title in zip(axes[0], self.panels, strict=True):
                self._panel(ax, title)
            file.parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(file, dpi=160)
            plt.close(figure)

    def _panel(self, ax: Any, title: str) -> None:
        """Both axes are logarithmic, because losses and passes span orders of magnitude."""
        from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

        curves, optimum = self.panels[title], self.optima.get(title)
        labels = [label for label, _, _ in curves]
        for k, (label, passes, losses) in enumerate(curves):
            drawn = losses if optimum is None else np.abs(np.divide(losses, optimum) - 1)
            several = labels.count(label) > 1
            ax.plot(
                np.add(passes, 1), drawn, label=None if label in labels[:k] else label,
                color=COLORS[label.rpartition(", ")[2]], ls=(0, (4, 2)) if label.startswith("alone") else "-",
                lw=1.0 if several else 2.0, alpha=0.75 if several else 1.0,
            )  # fmt: skip
        ax.set(xscale="log", yscale="log", xlabel="passes over the training data, plus 1")
        ax.set_title(title, pad=12)
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        if optimum is None:
            ax.set_ylabel("mean loss on held-out data")
            ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            ax.yaxis.set_minor_formatter(NullFormatter())
        else:
            ax.set_ylabel("relative distance of the training loss\nfrom scikit-learn's optimum")
            ax.axhline(self.tolerance, color="black", ls=":", lw=1.5, label="tolerance for L-BFGS-B", zorder=0)
            ax.text(0.98, 0.97, f"optimum: {optimum:.6f}", ha="right", va="top", transform=ax.transAxes)
        ax.grid(alpha=0.25)
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2)
