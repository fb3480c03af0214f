"""Rules that every gradient function must keep, whatever its numbers: checked before any number is.

They are the faults of compiled kernels with buffers: inputs written to, results that share memory or are overwritten by
the next call, entries never written, results that depend on earlier calls, on chance or on the number of threads.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np

from ._call import Arguments, Subject, copied, same
from ._verdict import Finding, Verdict

#: Further calls with the same arguments that must agree: a race that shows every other time escapes one time in 2**8.
REPEATS = 8
#: Memory that a gradient may come to lie in is filled with these, so that entries which are never written show: NaN, and a
#: number far out in the range of each dtype.
FILLINGS = (np.nan, 2.0**-20)
#: Results of two paths may differ by this many roundings of the largest entry.
PATHS = 64 * 2.0**-53

Setting = Callable[[], AbstractContextManager[Any]]


class Contract:
    """Findings of one subject, rule by rule."""

    def __init__(self, subject: Subject, arguments: Arguments, upstream: np.ndarray | None, tolerance: float):
        self.subject = subject
        self.arguments = arguments
        self.upstream = upstream
        self.tolerance = tolerance
        self.findings: list[Finding] = []
        self.position = subject.wrt[0]
        self.first: tuple[Any, ...] = ()

    def broken(self, code: str, message: str, hint: str = "", **where: Any) -> None:
        if not any(finding.code == code for finding in self.findings):
            self.findings.append(Finding(code, Verdict.FAIL, message, **{"argument": self.position, **where}, hint=hint))

    def gradient(self, arguments: Arguments | None = None) -> tuple[np.ndarray, ...]:
        arguments = self.arguments if arguments is None else arguments
        return tuple(np.asarray(g) for g in self.subject.gradient(self.upstream, arguments))

    def shape_and_type(self) -> bool:
        """Gradients are float64 arrays of their argument's shape; without that, nothing else can be checked."""
        for position, g in zip(self.subject.wrt, self.first, strict=True):
            self.position = position
            argument = np.asarray(self.arguments[position])
            if g.shape != argument.shape:
                self.broken("shape", f"the gradient has shape {g.shape}, argument {position} has shape {argument.shape}")
            if g.dtype != np.float64:
                self.broken("dtype", f"the gradient is {g.dtype}, argument {position} is float64")
        self.position = self.subject.wrt[0]
        return not self.findings

    def inputs_untouched(self) -> bool:
        """Neither function writes to its arguments; if one does, nothing else can be checked.

        These are the first calls with them: what a second call would write may already be there.
        """
        before = copied(self.arguments)
        upstream = None if self.upstream is None else self.upstream.copy()
        for what, call in (("f", lambda: self.subject.value(self.arguments)), ("the gradient", self.gradient)):
            result = call()
            self._written(what, before, self.arguments)
            if upstream is not None and not same(upstream, self.upstream):
                self.broken("input-modified", f"{what} writes to the upstream gradient")
                self.upstream = upstream.copy()
        self.first = copied(result)
        return not self.findings

    def claim(self, upstream: np.ndarray | None, here: Arguments) -> tuple[np.ndarray, ...]:
        """What the gradient says at a point, where it must not write to its arguments either."""
        handed = copied(here)
        gradients = tuple(np.array(g, float, order="C") for g in self.subject.gradient(upstream, handed))
        self._written("the gradient", here, handed)
        return gradients

    def _written(self, what: str, before: Arguments, after: Arguments) -> None:
        for position, (old, new) in enumerate(zip(before, after, strict=True)):
            if isinstance(old, np.ndarray) and not same(old, new):
                index = _first_difference(old, new)
                self.broken("input-modified", f"{what} writes to argument {position}, first at {index}", index=index)
                new[...] = old

    def results_are_the_callers(self, other: Arguments) -> None:
        """No memory shared with arguments, none used again by a later call, no result of an earlier call."""
        first = self.gradient()
        inputs = [(f"argument {i}", a) for i, a in enumerate(self.arguments)] + [("the upstream gradient", self.upstream)]
        for result in first:
            for name, a in inputs:
                if isinstance(a, np.ndarray) and np.may_share_memory(result, a):
                    self.broken("aliasing", f"the gradient shares memory with {name}", "return a copy")
        kept = copied(first)
        # With the upstream gradient turned, because the result need not depend on the point.
        turned = None if self.upstream is None else -self.upstream
        there = self.claim(turned, other)
        for result, copy in zip(first, kept, strict=True):
            if not same(result, copy):
                hint = "a buffer is used again: allocate a new result, or copy it"
                self.broken("overwritten", "a call at another point changes the result of the call before", hint)
        hint = "something is kept from call to call"
        self._agree("state", there, self.claim(turned, other), "the gradient elsewhere is another one in a second call", hint)
        self._agree("state", kept, self.gradient(), "the gradient at x is another one after a call elsewhere", hint)

    def repeatable(self) -> None:
        value = np.asarray(self.subject.value(self.arguments))
        for _ in range(REPEATS):
            repeated = np.asarray(self.subject.value(self.arguments))
            self._agree(
                "not-repeatable",
                (value,),
                (repeated,),
                "f gives another value when it is called again",
                "f draws random numbers, or keeps state",
            )
        self.gradient_repeatable()

    def gradient_repeatable(self) -> None:
        first = self.first
        for k in range(REPEATS):
            share = FILLINGS[k % len(FILLINGS)]
            _litter(first, share)
            again = self.gradient()
            for a, b in zip(first, again, strict=True):
                unwritten = (a != b) & ((b == _filling(b, share)) | np.isnan(b)) & ~np.isnan(a)
                if unwritten.any():
                    index = _first(unwritten)
                    self.broken(
                        "uninitialised",
                        f"entry {index} is whatever the memory held before",
                        "entries are never written",
                        index=index,
                    )
            hint = "a race between threads, state, or random numbers"
            self._agree("not-repeatable", first, again, "the gradient at x is another one when it is called again", hint)

    def settings(self, settings: Sequence[Setting]) -> None:
        first = copied(self.gradient())
        for setting in (*thread_counts(), *settings):
            with setting():
                again = copied(self.gradient())
            name = getattr(setting, "__name__", repr(setting))
            self._agree(
                "threads", first, again, f"the gradient is another one with {name}", "sums depend on how work is shared"
            )

    def writes_all_of(self, out: str) -> None:
        """The keyword `out` of the gradient: all of the buffer is written, with the same numbers."""
        expected = copied(self.gradient())
        buffers = tuple(np.full_like(g, np.nan) for g in expected)
        self.subject.gradient(self.upstream, self.arguments, **{out: buffers[0] if len(buffers) == 1 else buffers})
        for buffer, g in zip(buffers, expected, strict=True):
            if (np.isnan(buffer) & ~np.isnan(g)).any():
                index = _first(np.isnan(buffer) & ~np.isnan(g))
                self.broken("uninitialised", f"{out}{list(index)} is never written", index=index)
        self._agree("out", expected, buffers, f"the gradient is another one when it is written to {out!r}")

    def linear(self, rng: np.random.Generator) -> None:
        """A vector-Jacobian product is zero for zero, and linear in the upstream gradient."""
        assert self.upstream is not None
        u = self.upstream
        v = rng.normal(size=u.shape)
        products = [[np.asarray(g) for g in copied(self.subject.gradient(w, self.arguments))] for w in (0 * u, u, v, u + 2 * v)]
        for zero, of_u, of_v, of_sum in zip(*products, strict=True):
            if (zero != 0).any():
                index = _first(zero != 0)
                self.broken(
                    "zero",
                    f"entry {index} is {zero[index]!r} where the upstream gradient is zero",
                    "a term lacks the upstream gradient",
                    index=index,
                )
            with np.errstate(all="ignore"):
                size = np.max(np.abs(of_u) + 2 * np.abs(of_v), initial=0.0)
                bad = np.abs(of_u + 2 * of_v - of_sum) > 16 * PATHS * size
            if bad.any():
                index = _first(bad)
                self.broken("linear", f"entry {index} is not linear in the upstream gradient", index=index)

    def paths_agree(self) -> None:
        """The gradient by itself and the one that comes with the value."""
        separate = self.subject.separate
        if separate is None:
            return
        alone = separate(*self.arguments)
        alone = alone if len(self.subject.wrt) > 1 else (alone,)
        for a, b in zip(self.gradient(), map(np.asarray, alone), strict=True):
            with np.errstate(all="ignore"):
                if a.shape != b.shape or not (np.abs(a - b) <= PATHS * np.max(np.abs(a), initial=0.0)).all():
                    self.broken("paths", "the gradient alone differs from the one that comes with the value")

    def double_precision(self, here: Sequence[np.ndarray], there: Sequence[np.ndarray]) -> list[Finding]:
        """Entries that vary from point to point and are all float32 numbers were computed as such."""
        findings = []
        for position, a, b in zip(self.subject.wrt, here, there, strict=True):
            varying = (a != b) & np.isfinite(a) & np.isfinite(b)
            numbers = (a[varying], b[varying])
            # Few digits are no sign of it: slopes of piecewise linear functions have few.
            if varying.any() and all(map(is_single, numbers)) and max(np.mean(_long(n)) for n in numbers) > 0.5:
                text = "every entry of the gradient is a float32 number"
                findings.append(Finding("float32", Verdict.FAIL, text, position, hint="computed in single precision"))
        return findings

    def _agree(self, code: str, first: Sequence[np.ndarray], again: Sequence[np.ndarray], message: str, hint: str = "") -> None:
        for a, b in zip(first, again, strict=True):
            if same(a, b):
                continue
            with np.errstate(all="ignore"):
                close = a.shape == b.shape and bool((np.abs(a - b) <= self.tolerance * np.abs(a)).all())
            if not close or self.tolerance == 0:
                where = _first_difference(a, b) if a.shape == b.shape else None
                self.broken(code, message + (f", first at {where}" if where else ""), hint, index=where)


def is_single(numbers: np.ndarray) -> bool:
    """Whether all of these float64 numbers are float32 numbers."""
    with np.errstate(all="ignore"):
        return bool((numbers.astype(np.float32) == numbers).all())


def _long(numbers: np.ndarray) -> np.ndarray:
    """Which numbers have more than 16 binary digits."""
    mantissa, _ = np.frexp(numbers)
    return mantissa * 2.0**16 != np.rint(mantissa * 2.0**16)


def thread_counts() -> Iterator[Setting]:
    """One thread and all of them, for the threads of Numba where that is loaded."""
    numba = sys.modules.get("numba")
    if numba is None:
        return

    def threads(n: int) -> Setting:
        @contextmanager
        def limited() -> Iterator[None]:
            before = numba.get_num_threads()
            numba.set_num_threads(n)
            try:
                yield
            finally:
                numba.set_num_threads(before)

        limited.__name__ = "1 thread" if n == 1 else f"{n} threads"
        return limited

    yield threads(1)
    yield threads(numba.config.NUMBA_NUM_THREADS)


def _filling(like: np.ndarray, share: float) -> float:
    return share * float(np.finfo(like.dtype).max) if like.dtype.kind == "f" else 0.0


def _litter(like: Sequence[np.ndarray], share: float) -> None:
    """Leave freed blocks behind, of the sizes of these arrays and full of a filling, for the allocator to hand out again."""
    blocks = [np.full_like(a, _filling(a, share), order="C") for a in like for _ in range(4)]
    del blocks


def _first_difference(a: np.ndarray, b: np.ndarray) -> tuple[int, ...]:
    different = ~((a == b) | ((a != a) & (b != b)))
    return _first(different) if different.any() else ()


def _first(where: np.ndarray) -> tuple[int, ...]:
    return tuple(int(i) for i in np.argwhere(where)[0])
