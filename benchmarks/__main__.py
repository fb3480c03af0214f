"""Speed of nlosses beside its peers and beside the memory of the machine.

    python -m benchmarks [--part PART] [--quick] [--case SUBSTRING] [--json FILE] [--plots DIR] [--compare OLD.json]

Parts: `losses`, every loss of the registry with every size, precision, option and reduction; `scaling`, time against size,
number of classes and number of threads; `process`, import, first gradients and peak memory in fresh processes.  `headline` is
the short comparison of the README, a few of the losses.

All contenders run in this process, in turns: each round gives every contender a share of the time, and its time is the median
of its rounds' minima.  Where a peer has rounds as fast as some of nlosses there are up to four times as many.  Before anything
is timed, every value and gradient must agree with SciPy's in double precision.  Inputs are prepared outside of the timing,
nothing is compiled inside, and all have the same number of threads.  The limit is a loop that reads what the loss must read,
writes what it must write, and computes nothing.  Where arrays exceed the cache, nlosses and the limit are measured five times
in the course of a run, and the share of the limit is the median of that.

Times of different runs are not comparable, quotients of one run are; `--compare` looks for those that have got worse.  Exit
status: 0, 1 something is worse, 2 usage, 130 interrupted; what was measured until then is printed and saved.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from . import _compare, _machine, _tables, _terminal, _timing

PARTS = ("losses", "scaling", "process")
BYTES = 100  # of memory per element that a case needs, its right result in double precision and all peers included
USAGE = 2  # exit status, as argparse has it
NAMES = ("torch", "jax", "scikit-learn", "numpy")


def parsed(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser("python -m benchmarks", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--part", action="append", choices=("headline", *PARTS), help="only this one; may be repeated")
    parser.add_argument("--quick", action="store_true", help="a few cases of each part, fewer and shorter rounds")
    parser.add_argument("--case", default="", metavar="SUBSTRING", help="only cases whose names contain it; no fresh processes")
    parser.add_argument("--peers", default=",".join(NAMES), metavar="NAMES", help="default: %(default)s; '' for none")
    parser.add_argument("--json", type=Path, metavar="FILE", help="save the results")
    parser.add_argument("--plots", type=Path, metavar="DIR", help="draw the results, as PNG and SVG")
    parser.add_argument("--compare", type=Path, metavar="FILE", help="results of an earlier run to compare with")
    parser.add_argument("--band", type=float, default=0.25, help="noise of a quotient (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=_machine.cores(), help="default: %(default)s")
    parser.add_argument("--rounds", type=int, help="default: 9, and 3 with --quick")
    parser.add_argument("--seed", type=int, default=0, help="of the data")
    args = parser.parse_args(argv)
    args.part = args.part or list(PARTS[:2] if args.case else PARTS)  # whole processes have no cases
    args.peers = [name for name in args.peers.split(",") if name]
    if unknown := set(args.peers) - set(NAMES):
        parser.error(f"unknown peers: {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    if args.threads < 1 or (args.rounds or 1) < 1:
        parser.error("--threads and --rounds must be at least 1")
    args.old = json.loads(args.compare.read_text()) if args.compare else None
    args.rounds, args.share = args.rounds or (3 if args.quick else 9), 0.01 if args.quick else 0.06
    _terminal.require(parser.prog, "rich", *(["matplotlib"] if args.plots else []))
    return args


def work(args: argparse.Namespace, results: dict[str, Any]) -> int:
    """Measure all parts; the results grow as it goes on."""
    from . import _cases, _limit, _process, _session

    tables = {"headline": _cases.headline, "losses": _cases.losses, "scaling": _cases.scaling}
    chosen = {part: [c for c in tables[part](args.quick) if args.case in c.name] for part in args.part if part in tables}
    if not any(chosen.values()) and "process" not in args.part:
        print(f"No case contains {args.case!r}.", file=sys.stderr)
        return USAGE
    session = _session.assembled(args.peers if any(chosen.values()) else [], args.threads, args.rounds, args.share, args.seed)
    results["left_out"] = session.left_out
    for line in session.left_out:
        print(line)
    results["rates"] = _limit.rates(args.share)
    print("memory:   " + ", ".join(f"{name} {rate / 1e9:.1f} GB/s" for name, rate in results["rates"].items()))
    sys.stdout.flush()
    with _terminal.progress() as progress:
        for part, cases in chosen.items():
            one_by_one(session, cases, results, results["parts"].setdefault(part, []), progress)
        if "scaling" in chosen:
            task = progress.add_task("threads", total=None)
            for case in _cases.threads(args.quick):
                if args.case in case.name:
                    results["threads"] += session.against_threads(case, lambda: None)
            progress.remove_task(task)
        if not args.quick:
            again(session, [case for cases in chosen.values() for case in cases], progress)
        if "process" in args.part:
            _process.measure(results["process"], session.left_out, args.peers, args.quick, progress)
    return 0


def one_by_one(session: Any, cases: list[Any], results: dict[str, Any], names: list[str], progress: Any) -> None:
    """Measure the cases of a part, and note their names; those that an earlier part had are not measured again."""
    task = progress.add_task("", total=len(cases) * session.rounds)
    for k, case in enumerate(cases):
        progress.update(task, description=case.name, completed=k * session.rounds)
        if case.size * BYTES > _machine.free_memory():
            session.left_out.append(f"{case.name} left out on this machine: too little memory")
            continue
        known = case.name in session.measured
        record = session.record(case, lambda: progress.advance(task))
        results["cases"] += [] if known else [record]
        names.append(case.name)
    progress.remove_task(task)


def again(session: Any, cases: list[Any], progress: Any) -> None:
    """Visit those cases again whose arrays exceed the cache, each after all others."""
    from ._session import VISITS

    large = {name for name, record in session.measured.items() if _tables.OWN_CACHED in record["seconds"]}
    beyond = {case.name: case for case in cases if case.name in large}
    task = progress.add_task("", total=(VISITS - 1) * len(beyond) * session.rounds)
    for name, case in list(beyond.items()) * (VISITS - 1):
        progress.update(task, description=f"again {name}")
        session.visit(case, lambda: progress.advance(task))
    progress.remove_task(task)


def report(args: argparse.Namespace, results: dict[str, Any]) -> None:
    """Print, save and draw what there is."""
    from . import _process

    for part, names in results["parts"].items():
        by_name = {record["name"]: record for record in results["cases"]}
        records = [by_name[name] for name in names]
        if records:
            (_tables.per_element if part == "scaling" else _tables.cases)(records)
    _tables.limits(results["cases"])
    _tables.threads(results["threads"])
    _process.show(results["process"])
    for line in results["left_out"]:
        if " left out on " in line:  # the others were printed before the start
            print(line)
    if args.json is not None:
        args.json.write_text(json.dumps(results, indent=1) + "\n")
    if args.plots is not None:
        from . import _plots

        for file in _plots.draw(results, args.plots):
            print(file)


def main(argv: list[str] | None = None) -> int:
    """Run the program; the exit status."""
    args = parsed(argv)
    _machine.set_threads(args.threads)  # before anything that reads them is imported
    rounds = f"{args.rounds} rounds in turns, {_timing.MORE * args.rounds} where it is not plain who is faster"
    method = f"{rounds}, median of their minima; seed {args.seed}" + ", --quick" * args.quick
    facts = _machine.facts(args.threads) | {"method": method}
    for name, text in facts.items():
        print(f"{name + ':':10}{text}")
    sys.stdout.flush()
    results: dict[str, Any] = {"facts": facts, "left_out": [], "parts": {}, "cases": [], "threads": [], "process": {}}
    status = _terminal.guarded(lambda: work(args, results), lambda: report(args, results))
    if status == USAGE:
        return status
    if args.old is not None and _compare.show(args.old, results, args.band):
        status = status or 1
    return status


if __name__ == "__main__":
    sys.exit(main())
