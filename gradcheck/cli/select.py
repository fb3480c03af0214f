"""Which of the collected cases are run."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from dataclasses import replace

from .._suite import Case
from .report import UsageError

#: Labels that have an option of their own.
FILTERS = ("loss", "dtype", "device", "reduction", "derivative")

#: Labels that say how a case is run, rather than what it is.
UNMATCHED = ("skip", "environment", "note")

#: Whether the texts of a case fit.
Matcher = Callable[[Iterable[str]], bool]


def select(
    cases: list[Case], keyword: str, filters: dict[str, tuple[str, ...]], names: tuple[str, ...], full: bool
) -> list[Case]:
    """The cases that fit everything that was asked for, in the order of the collection.

    A case that is asked for by its name is one of them even if a quick run would leave it out.  Asked for by its name or its
    device, it is run in another environment if it can be run in that one only.
    """
    for label, wanted in filters.items():
        known = sorted({str(case.labels[label]) for case in cases if label in case.labels})
        for value in wanted:
            if value not in known:
                raise UsageError(f"--{label}: no case has {value!r}; known: {', '.join(known) or 'none'}")
    known = [case.name for case in cases]
    for name in names:
        if name not in known:
            close = ", ".join(map(repr, difflib.get_close_matches(name, known))) or "see --list --full"
            raise UsageError(f"--case: there is no case {name!r}; close: {close}")
    fits = matcher(keyword)
    explicit = bool(names) or "device" in filters
    return [
        _runnable(case) if explicit else case
        for case in cases
        if (full or case.quick or names)
        and (not names or case.name in names)
        and all(str(case.labels.get(label, "")) in wanted for label, wanted in filters.items())
        and fits([case.name, *(str(value) for label, value in case.labels.items() if label not in UNMATCHED)])
    ]


def _runnable(case: Case) -> Case:
    if "environment" not in case.labels:
        return case
    return replace(case, labels={label: value for label, value in case.labels.items() if label != "skip"})


def matcher(expression: str) -> Matcher:
    """Parse words joined by ``and``, ``or``, ``not`` and parentheses; a word fits a text that contains it, in any case.

    It is the language of pytest's ``-k``, read by hand: what users type is never evaluated.
    """
    tokens = re.findall(r"[()]|[^\s()]+", expression)
    if not tokens:
        return lambda texts: True
    try:
        result, rest = _or(tokens)
    except RecursionError:
        raise UsageError("-k: the expression is nested too deeply") from None
    if rest:
        raise UsageError(f"-k: expected 'and', 'or' or the end before {rest[0]!r} in {expression!r}")
    return result


def _or(tokens: list[str]) -> tuple[Matcher, list[str]]:
    parts, tokens = _chain(tokens, "or", _and)
    return lambda texts: any(part(texts) for part in parts), tokens


def _and(tokens: list[str]) -> tuple[Matcher, list[str]]:
    parts, tokens = _chain(tokens, "and", _not)
    return lambda texts: all(part(texts) for part in parts), tokens


def _chain(
    tokens: list[str], operator: str, parse: Callable[[list[str]], tuple[Matcher, list[str]]]
) -> tuple[list[Matcher], list[str]]:
    part, tokens = parse(tokens)
    parts = [part]
    while tokens[:1] == [operator]:
        part, tokens = parse(tokens[1:])
        parts.append(part)
    return parts, tokens


def _not(tokens: list[str]) -> tuple[Matcher, list[str]]:
    head, tokens = (tokens[0], tokens[1:]) if tokens else ("the end", [])
    if head == "not":
        negated, tokens = _not(tokens)
        return lambda texts: not negated(texts), tokens
    if head == "(":
        inner, tokens = _or(tokens)
        if tokens[:1] != [")"]:
            raise UsageError("-k: a parenthesis is not closed")
        return inner, tokens[1:]
    if head in ("and", "or", ")", "the end"):
        raise UsageError(f"-k: expected a word, 'not' or '(' and found {head!r}")
    word = head.lower()
    return lambda texts: any(word in text.lower() for text in texts), tokens
