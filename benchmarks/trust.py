"""How far a gradient checker can be trusted: gradcheck beside torch.autograd.gradcheck and scipy.optimize.check_grad.

    python -m benchmarks.trust [--quick] [--json FILE] [--seed N]

Four questions, each on the same functions for all checkers.  Which planted bugs are caught?  Which correct gradients are
rejected, among random losses, shapes, scales from 1e-12 to 1e12, exact ties, saturation, offsets and edges of domains?  What is
the smallest relative error, of one entry and of the whole gradient, that is found among n entries?  What does it cost?  And of
gradcheck alone: how often is the true derivative outside of the interval?

A bug counts where it changes the gradient, at the point given, by more than rounding: 1e-12 of its largest entry.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from . import _terminal

#: Sizes of the search for the smallest error, and the largest that a checker of all entries is given.
SIZES = (10, 100, 1_000, 10_000, 100_000, 1_000_000)
EXHAUSTIVE = 10_000
#: Draws that must all be found.
DRAWS = 3
ERRORS = tuple(10.0**-k for k in range(13))
#: Shape of the gradients that bugs are planted in, and the difference, relative to the largest entry, from which they count.
BUG_SHAPE = (16, 6)
ROUNDING = 1e-12

Array = np.ndarray


def logistic(n: int, rng: np.random.Generator) -> tuple[Callable[[Array], Any], Callable[[Array], Array], Array]:
    """Mean logistic loss of n logits, its gradient, and where to check it."""
    import nlosses as nl

    t = (rng.random(n) < 0.5).astype(float)
    loss = nl.binary_cross_entropy_with_logits
    return lambda x: loss(x, t), lambda x: loss.grad(x, t), rng.normal(size=n, scale=2)


def smallest_error(checker: Any, n: int, single: bool, seed: int) -> float | None:
    """Smallest relative error of one entry, or of all, that is found in every draw; None if not even 100 %."""

    def found(error: float) -> bool:
        for draw in range(DRAWS):
            rng = np.random.default_rng([seed, n, draw])
            f, grad, x = logistic(n, rng)
            place = int(rng.integers(n)) if single else slice(None)

            def wrong(y: Array, grad: Any = grad, place: Any = place) -> Array:
                g = grad(y)
                g[place] *= 1 + error
                return g

            if checker.accepts(f, wrong, x) is not False:
                return False
        return True

    low, high = -1, len(ERRORS)  # found at low, missed at high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if found(ERRORS[middle]) else (low, middle)
    return ERRORS[low] if low >= 0 else None


def calibration(entries: int, seed: int) -> dict[str, Any]:
    """How often a true derivative, by long double arithmetic, is outside of its interval at first look."""
    from gradcheck._numbers import layout
    from gradcheck._oracle import measure, noise
    from gradcheck._points import steps
    from gradcheck._probe import Separable
    from gradcheck._zoo import ZOO

    if np.finfo(np.longdouble).nmant < 63:
        return {"left out": "long double is no longer than double on this machine"}
    rng = np.random.default_rng(seed)
    seen = outside = 0
    shares: list[Array] = []
    while seen < entries:
        for specimen in ZOO:
            x, t = specimen.draw_x(rng, (200, 6)), specimen.draw_t(rng, (200, 6))
            true = specimen.slopes(x.astype(np.longdouble), t.astype(np.longdouble)).reshape(-1)
            step, _ = steps(x, specimen.domain)
            column, output = layout(x.shape, (1,) if specimen.rowwise else ())
            probe = Separable(
                lambda y, s=specimen, t=t: s.terms(y, t), x, true.astype(float).reshape(x.shape), step, column, output
            )
            found = measure(probe, np.arange(x.size), noise(probe, step, rng))
            known = np.isfinite(found.value)
            error = np.abs(found.value / step - true).astype(float)[known]
            interval = (found.interval / step)[known]
            seen += int(known.sum())
            outside += int((error > interval).sum())
            shares.append((error / np.maximum(interval, 1e-300))[(interval > 0) & (error <= interval)])
    return {"entries": seen, "outside": outside, "median share of the interval": float(np.median(np.concatenate(shares)))}


def bugs(checkers: list[Any], seed: int, tick: Callable[[], None]) -> dict[str, Any]:
    """Bugs that make a difference at the point, and how many of them each checker finds, by kind of bug."""
    from gradcheck._mutants import KINDS
    from gradcheck._zoo import ZOO

    kinds = {kind: {"planted": 0, "caught": dict.fromkeys((c.name for c in checkers), 0)} for kind in KINDS}
    missed: dict[str, list[str]] = {checker.name: [] for checker in checkers}
    for specimen in ZOO:
        for operator in operators():
            found = _verdicts(checkers, specimen, operator, seed)
            tick()
            if found is None:
                continue
            kinds[operator.kind]["planted"] += 1
            for name, rejected in found.items():
                kinds[operator.kind]["caught"][name] += rejected
                if not rejected:
                    missed[name].append(f"{operator.name} in {specimen.name}")
    return {"kinds": {kind: of_kind for kind, of_kind in kinds.items() if of_kind["planted"]}, "missed": missed}


def operators() -> list[Any]:
    """Those that a check of a first derivative ought to find."""
    from gradcheck._mutants import OPERATORS

    return [operator for operator in OPERATORS.values() if "check" in operator.checks and not operator.harmless]


def _verdicts(checkers: list[Any], specimen: Any, operator: Any, seed: int) -> dict[str, bool] | None:
    """Which checkers reject a bug; None if it has no meaning here, or makes no difference at the point."""
    from gradcheck._plant import NotHere, plant

    rng = np.random.default_rng([seed, *specimen.name.encode()])
    x, t = specimen.draw_x(rng, BUG_SHAPE), specimen.draw_t(rng, BUG_SHAPE)
    found: dict[str, bool] = {}
    differs = False
    for checker in checkers:
        target = t.copy()
        arguments = {"f": specimen.mean, "grad": specimen.mean_gradient, "x": x.copy(), "args": (target,)}
        _, mutant = plant("check", arguments, operator.apply, seed)
        mutant.points = {x.tobytes()}

        try:
            found[checker.name] = checker.accepts(specimen.mean, mutant, x, target) is False
        except NotHere:
            return None
        except Exception:
            found[checker.name] = True  # it did not pass
        if mutant.meaningless:
            return None
        differs |= mutant.difference.entry > ROUNDING
    return found if differs else None


def correct(checkers: list[Any], count: int, seed: int, tick: Callable[[], None]) -> dict[str, Any]:
    """Correct gradients that are rejected, or of which nothing is said."""
    from ._correct import correct_gradients

    rejected = {checker.name: 0 for checker in checkers}
    unsaid = {checker.name: 0 for checker in checkers}
    for case in correct_gradients(count, seed):
        for checker in checkers:
            verdict = checker.accepts(case.f, case.grad, case.x)
            rejected[checker.name] += verdict is False
            unsaid[checker.name] += verdict is None
        tick()
    return {"correct": count, "rejected": rejected, "inconclusive": unsaid}


def cost(checkers: list[Any], seed: int) -> dict[str, Any]:
    """Calls of f and milliseconds of one check of a correct gradient of 96 entries: the best of five."""
    result = {}
    f, grad, x = logistic(96, np.random.default_rng(seed))
    for checker in checkers:
        times = []
        for _ in range(5):
            fresh = checker.fresh()
            fresh.accepts(f, grad, x)
            times.append(fresh.seconds)
        result[checker.name] = {"evaluations": fresh.evaluations, "milliseconds": 1e3 * min(times)}
    return result


def show(found: dict[str, Any]) -> None:
    """Print what has been found so far."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    console = _terminal.console()
    names = found.get("checkers", [])
    table = Table(box=SIMPLE_HEAD)
    table.add_column("")
    for name in names:
        table.add_column(name, justify="right")

    def row(title: str, value: Callable[..., str]) -> None:
        table.add_row(title, *(value(name) for name in names))

    for kind, b in found.get("bugs", {}).get("kinds", {}).items():
        row(f"planted bugs caught: {kind}, {b['planted']}", lambda n, b=b: f"{100 * b['caught'][n] / b['planted']:.0f} %")
    if "bugs" in found:
        every = list(found["bugs"]["kinds"].values())
        planted = sum(b["planted"] for b in every)
        row(f"all planted bugs, {planted}", lambda n: f"{100 * sum(b['caught'][n] for b in every) / planted:.1f} %")
    if "correct" in found:
        c = found["correct"]
        row(f"correct gradients rejected, of {c['correct']}", lambda n: f"{c['rejected'][n]}")
        row("correct gradients without a verdict", lambda n: f"{c['inconclusive'][n]}")
    for what, title in (("single", "smallest error of one entry"), ("uniform", "smallest error of all entries")):
        for n, errors in found.get(what, {}).items():
            row(f"{title}, n = {int(n):,}", lambda name, e=errors: _error(e, name))
    if "cost" in found:
        row("calls of f, n = 96", lambda n: f"{found['cost'][n]['evaluations']}")
        row("milliseconds, n = 96", lambda n: f"{found['cost'][n]['milliseconds']:.1f}")
    console.print(table)
    if "calibration" in found:
        console.print(
            "truth outside of gradcheck's interval: " + ", ".join(f"{k} {v}" for k, v in found["calibration"].items())
        )


def _error(errors: dict[str, float | None], name: str) -> str:
    if name not in errors:
        return "-"
    error = errors[name]
    return "none found" if error is None else "100 %" if error == 1 else f"{error:.0e}"


def main(argv: list[str] | None = None) -> int:
    """Run the program; the exit status."""
    parser = argparse.ArgumentParser("python -m benchmarks.trust", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer correct gradients, sizes to 10,000")
    parser.add_argument("--json", type=Path, metavar="FILE", help="save the results")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    _terminal.require(parser.prog, "rich")
    from gradcheck._zoo import ZOO

    from ._checkers import checkers

    every = checkers()
    found: dict[str, Any] = {"checkers": [checker.name for checker in every], "seed": args.seed}
    if len(every) < 4:
        print("torch is not installed: left out (pip install nlosses[peers])")
    count = 200 if args.quick else 1200
    sizes = SIZES[:4] if args.quick else SIZES

    def work() -> int:
        with _terminal.progress() as progress:
            total = len(ZOO) * len(operators()) + count + 2 * len(sizes) * len(every) + 2
            task = progress.add_task("planted bugs", total=total)

            def tick() -> None:
                progress.advance(task)

            found["bugs"] = bugs(every, args.seed, tick)
            progress.update(task, description="correct gradients", completed=len(ZOO) * len(operators()))
            found["correct"] = correct(every, count, args.seed, tick)
            for what in ("single", "uniform"):
                for n in sizes:
                    progress.update(task, description=f"smallest error, n = {n:,}")
                    able = [checker for checker in every if n <= EXHAUSTIVE or checker.name in ("gradcheck", "torch fast")]
                    errors = {checker.name: smallest_error(checker, n, what == "single", args.seed) for checker in able}
                    found.setdefault(what, {})[n] = errors
                    progress.advance(task, len(every))
            found["cost"] = cost(every, args.seed)
            tick()
            progress.update(task, description="calibration")
            found["calibration"] = calibration(20_000 if args.quick else 150_000, args.seed)
        return 0

    status = _terminal.guarded(work, lambda: show(found))
    if args.json is not None:
        args.json.write_text(json.dumps(found, indent=1) + "\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
