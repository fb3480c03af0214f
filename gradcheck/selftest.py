"""``gradcheck selftest``: plants faults into right gradients and shows which of them are found.

A checker that passes everything is worse than none.  So every operator of `_mutants` is planted into the losses of `_zoo`
and into those of suites, and must be found wherever it makes a difference that the check can resolve; and no right
gradient may fail.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, NoReturn

from ._matrix import COUNTED, Outcome, State, Subject, explore
from ._mutants import KINDS, OPERATORS
from ._suite import Case, SuiteError, collect
from ._verdict import Result, Verdict
from ._zoo import ZOO
from ._zoo_cases import slips, zoo
from .cli.arguments import at_least, check_file
from .cli.report import Exit, UsageError
from .cli.select import matcher
from .cli.signals import Signals

#: Share of the faults that must be found.
DEMAND = 0.99
#: How many times each right gradient is drawn and checked.
DRAWS = {False: 1, True: 5}
WIDTH = 120
SYMBOLS = {
    State.FALSE_ALARM: "!", State.MISSED: "-", State.CAUGHT: "+", State.BELOW: "~", State.HARMLESS: "o", State.EQUAL: "=",
}  # fmt: skip
LEGEND = "+ found   - missed   = no difference   ~ below the resolution   o right, too   ! right, but said to be wrong"
#: Names that are listed with a reason.
LISTED = 3


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the self-test; the exit status."""
    try:
        options = parser().parse_args(arguments)
        if options.json is not None:
            check_file("--json", options.json)
        return Selftest(options).run()
    except (UsageError, SuiteError) as error:
        print(f"gradcheck selftest: {error}", file=sys.stderr)
        return Exit.USAGE


def parser() -> Parser:
    """Parser of the command line."""
    result = Parser(
        "gradcheck selftest", description=(__doc__ or "").partition("\n")[2].strip(), allow_abbrev=False,
        epilog=f"exit status: 0 if {DEMAND:.0%} of the faults are found and no right gradient fails, 1 if not, 2 wrong usage, "
        "130 interrupted",
    )  # fmt: skip
    add = result.add_argument
    add("targets", nargs="*", metavar="TARGET", help="suites besides the zoo; every installed one if none is named")
    add("--zoo-only", action="store_true", help="no suites")
    size = result.add_mutually_exclusive_group()
    size.add_argument(
        "--quick", dest="full", action="store_false",
        help="each fault once in each loss (default)",
    )  # fmt: skip
    size.add_argument("--full", action="store_true", help="each fault in every case of the zoo, and every quick one of suites")
    add("-k", dest="keyword", default="", metavar="EXPR", help="faults and losses that EXPR fits, as of gradcheck run")
    add("--seed", type=at_least(0), default=0, metavar="N", help="seed of all random choices (default: 0)")
    add("--json", type=Path, metavar="FILE", help="write all of it for programs")
    result.set_defaults(full=False)
    return result


class Selftest:
    """One run: what it tests, and what it has found so far."""

    def __init__(self, options: argparse.Namespace):
        self.options = options
        self.outcomes: list[Outcome] = []
        self.right: list[tuple[Case, Result]] = []
        self.interrupted = 0
        self.started = perf_counter()
        self.subjects: dict[str, list[Subject]] = {}
        found = [(name, case) for name, cases in zoo().items() for case in cases if options.full or case.quick]
        if not options.zoo_only:
            for case in collect(options.targets):
                if case.quick and "skip" not in case.labels:
                    found.append((str(case.labels.get("loss", case.suite)), case))
        for name, case in found:
            self.subjects.setdefault(name, []).append(Subject(case, name, options.seed))

    def run(self) -> int:
        fits = matcher(self.options.keyword)
        full, seed = self.options.full, self.options.seed
        with Signals() as signals:
            try:
                self._right(fits)
                wrong = {specimen.name: slips(specimen) for specimen in ZOO}
                for outcome in explore(self.subjects, wrong, fits, full=full, seed=seed):
                    signals.check()
                    self.outcomes.append(outcome)
            except KeyboardInterrupt:
                self.interrupted = signals.received or Exit.INTERRUPTED
        if not self.outcomes and not self.interrupted:
            raise UsageError(f"-k: no fault and no loss fits {self.options.keyword!r}")
        if self.options.json is not None:
            self.options.json.write_text(json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n", encoding="utf-8")
        print("\n".join(self.lines()))
        return self.status

    def _right(self, fits: Any) -> None:
        """Gradients without faults."""
        for name, subjects in self.subjects.items():
            if not any(fits([operator, name]) for operator in OPERATORS):
                continue
            seen: set[str] = set()
            for subject in subjects:
                if subject.case.suite != "zoo" and not self.options.full and subject.case.check in seen:
                    continue  # gradcheck run has all of a suite
                seen.add(subject.case.check)
                self.right.append((subject.case, subject.truth))
                for k in range(1, DRAWS[self.options.full] if subject.case.suite == "zoo" else 1):
                    self.right.append((subject.case, subject.case.run(self.options.seed + k)))

    @property
    def caught(self) -> int:
        return sum(outcome.state is State.CAUGHT for outcome in self.outcomes)

    @property
    def counted(self) -> int:
        return sum(outcome.state in COUNTED for outcome in self.outcomes)

    @property
    def false_alarms(self) -> list[str]:
        alarms = [f"{o.case}, {o.operator}: {o.reason}" for o in self.outcomes if o.state is State.FALSE_ALARM]
        return alarms + [f"{case.name}: {r.findings[0]}" for case, r in self.right if r.verdict is Verdict.FAIL]

    @property
    def status(self) -> int:
        if self.interrupted:
            return self.interrupted
        enough = self.caught >= DEMAND * self.counted
        return Exit.PASSED if enough and not self.false_alarms else Exit.FAILED

    def lines(self) -> Iterator[str]:
        """The report for people."""
        yield from matrix(self.outcomes)
        yield ""
        yield LEGEND
        kinds = (self._share(kind) for kind in KINDS)
        yield "found by class: " + ", ".join(kind for kind in kinds if kind)
        yield from self._unseen()
        verdicts = Counter(result.verdict for _, result in self.right)
        yield ""
        yield f"right gradients: {len(self.right)} checked, " + ", ".join(f"{verdicts[v]} {v.name}" for v in Verdict)
        yield from (f"  FALSE ALARM {alarm}" for alarm in self.false_alarms)
        share = f"{self.caught / self.counted:.2%}" if self.counted else "none"
        meaning = {Exit.PASSED: "PASSED", Exit.FAILED: "FAILED"}.get(Exit(self.status), "INTERRUPTED")
        yield (
            f"{meaning}: {self.caught} of {self.counted} faults found ({share}), {len(self.false_alarms)} false alarms, "
            f"in {perf_counter() - self.started:.1f} s (seed {self.options.seed}, exit {int(self.status)})"
        )

    def _share(self, kind: str) -> str:
        caught, counted = self.by_kind().get(kind, (0, 0))
        return f"{kind} {caught}/{counted}" if counted else ""

    def by_kind(self) -> dict[str, tuple[int, int]]:
        """Found and counted faults of each class."""
        states = {kind: [o.state for o in self.outcomes if o.kind == kind] for kind in KINDS}
        return {kind: (s.count(State.CAUGHT), sum(state in COUNTED for state in s)) for kind, s in states.items() if s}

    def _unseen(self) -> Iterator[str]:
        """What was not found, and why."""
        groups: dict[tuple[str, str, str], list[str]] = {}
        for o in self.outcomes:
            if o.state not in (State.CAUGHT, State.FALSE_ALARM):
                own = o.state in (State.MISSED, State.BELOW)
                groups.setdefault((o.state.name, o.operator, o.reason if own else ""), []).append(o.case)
        if groups:
            yield ""
            yield "not found:"
        reasons = {
            State.EQUAL.name: "equals the truth, but for roundings, at every point",
            State.HARMLESS.name: "right, too: another subgradient at a kink",
        }
        for (state, operator, reason), cases in sorted(groups.items(), key=lambda item: item[0][0] != "MISSED"):
            names = "; ".join(cases[:LISTED]) + (f" and {len(cases) - LISTED} more" if len(cases) > LISTED else "")
            head = "MISSED " if state == State.MISSED.name else ""
            yield f"  {head}{operator}: {reason or reasons[state]} ({names})"

    def to_dict(self) -> dict[str, Any]:
        """The report for programs."""
        return {
            "schema": 1,
            "seed": self.options.seed,
            "full": self.options.full,
            "status": int(self.status),
            "seconds": perf_counter() - self.started,
            "found": self.caught,
            "counted": self.counted,
            "classes": {kind: list(counts) for kind, counts in self.by_kind().items()},
            "false_alarms": self.false_alarms,
            "faults": [
                {
                    "operator": o.operator, "class": o.kind, "loss": o.loss, "case": o.case, "state": o.state.value,
                    "reason": o.reason, "difference": o.entry if math.isfinite(o.entry) else None,
                    "verdict": o.result.verdict.value, "codes": sorted({f.code for f in o.result.findings}),
                    "hint": o.result.findings[0].hint if o.result.findings else "",
                }
                for o in self.outcomes
            ],
            "right": [{"case": case.name, "seed": r.seed, "verdict": r.verdict.value} for case, r in self.right],
        }  # fmt: skip


def matrix(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Faults by losses, a sign for each pair; names of losses are written downwards."""
    losses = list(dict.fromkeys(o.loss for o in outcomes))
    names = {kind: list(dict.fromkeys(o.operator for o in outcomes if o.kind == kind)) for kind in KINDS}
    cells: dict[tuple[str, str, str], list[State]] = {}
    for o in outcomes:
        cells.setdefault((o.kind, o.operator, o.loss), []).append(o.state)
    wanted = {name: expected(name) for kind in KINDS for name in names[kind]}
    left = max(map(len, wanted), default=0)
    middle = max(map(len, wanted.values()), default=0)
    columns = WIDTH - left - middle - len("  1234/1234") - 4
    for start in range(0, len(losses), columns):
        block = losses[start : start + columns]
        height = max(map(len, block))
        for row in range(height):
            text = "".join(name.rjust(height)[row] for name in block)
            head = ("fault".ljust(left), "expected".ljust(middle)) if row == height - 1 else (" " * left, " " * middle)
            yield f"{head[0]}  {head[1]}  {text}{'  found' if row == height - 1 else ''}".rstrip()
        for kind in KINDS:
            if names[kind]:
                yield kind
            for name in names[kind]:
                states = [cells.get((kind, name, loss), []) for loss in block]
                every = [state for cell in states for state in cell]
                text = "".join(next((sign for state, sign in SYMBOLS.items() if state in cell), " ") for cell in states)
                found = f"{every.count(State.CAUGHT)}/{sum(state in COUNTED for state in every)}"
                yield f"{name:<{left}}  {wanted[name]:<{middle}}  {text}  {found}"


def expected(name: str) -> str:
    operator = OPERATORS.get(name)
    if operator is None:
        return "FAIL"
    if operator.harmless:
        return "PASS"
    return f"FAIL {operator.codes[0]}" if operator.codes else "FAIL"


if __name__ == "__main__":
    raise SystemExit(main())
