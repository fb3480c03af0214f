"""Faults that code of gradients really has, as operators on right gradients.

An operator takes the call of a gradient and returns what faulty code would return in its place.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from ._plant import Array, Call, NotHere

KINDS = ("gross value", "subtle value", "single entry", "structural", "state", "contract", "parameter")
#: Checks that call a gradient more than once at a point.  The transfer to another precision does not.
REPEATING = frozenset({"check", "check_hvp", "check_hessian_diag"})
EVERY = REPEATING | {"check_transfer"}


@dataclass(frozen=True)
class Operator:
    """One kind of fault.

    Attributes
    ----------
    name, kind, text : str
        What the matrix calls it, its class, one of `KINDS`, and what is wrong.
    apply : callable
        Takes a `Call` and returns the wrong gradient; raises `NotHere` where that has no meaning.
    codes : tuple of str
        Findings of which one must be among those of a mutant; empty where numbers alone are wrong.
    checks : set of str
        Checks whose business it is.
    harmless : bool
        The result is right, too: it may fail only where a convention is declared.
    """

    name: str
    kind: str
    text: str
    apply: Callable[[Call], Array]
    codes: tuple[str, ...] = ()
    checks: frozenset[str] = EVERY
    harmless: bool = False


OPERATORS: dict[str, Operator] = {}


def operator(kind: str, name: str = "", **more: Any) -> Callable[[Callable[[Call], Array]], Callable[[Call], Array]]:
    """Register a function as an operator; its name and its docstring are those of the fault."""

    def register(apply: Callable[[Call], Array]) -> Callable[[Call], Array]:
        called = name or apply.__name__.replace("_", " ")
        OPERATORS[called] = Operator(called, kind, (apply.__doc__ or "").strip(), apply, **more)
        return apply

    return register


def _factor(kind: str, name: str, text: str, factor: float) -> None:
    def apply(call: Call) -> Array:
        g = call.g
        return np.asarray(g * g.dtype.type(factor))

    OPERATORS[name] = Operator(name, kind, text, apply)


_factor("gross value", "sign", "The sign is wrong.", -1.0)
_factor("gross value", "times 2", "A factor 1/2 is missing.", 2.0)
_factor("gross value", "half", "A factor 2 is missing.", 0.5)
_factor("gross value", "zero", "The gradient is never computed.", 0.0)
for size, digits in ((1e-3, "1e-3"), (1e-6, "1e-6"), (1e-9, "1e-9")):
    _factor("subtle value", f"times 1 + {digits}", "A constant has too few digits.", 1 + size)


@operator("gross value")
def mean_not_divided(call: Call) -> Array:
    """The mean's denominator is missing."""
    return _scaled(call.g, call.g.size)


@operator("gross value")
def n_minus_1(call: Call) -> Array:
    """The mean is divided by n - 1."""
    n = call.g.size
    return _scaled(call.g, n / (n - 1) if n > 1 else 1)


@operator("gross value")
def times_rows(call: Call) -> Array:
    """A sum over rows where the mean is meant."""
    if call.g.ndim < 2:
        raise NotHere
    return _scaled(call.g, len(call.g))


@operator("gross value")
def half_zeroed(call: Call) -> Array:
    """A loop ends at half of its length."""
    g = call.g
    g.reshape(-1)[g.size // 2 :] = 0
    return g


@operator("gross value")
def constant_added(call: Call) -> Array:
    """Every entry has a term too many."""
    g = call.g
    return np.asarray(g + g.dtype.type(_largest(g) / 8))


@operator("gross value")
def clamp_missing(call: Call) -> Array:
    """A clamp of the gradient is forgotten, so that its largest entries are larger."""
    g = call.g
    return np.where(np.abs(g) > 0.75 * _largest(g), g * g.dtype.type(1.5), g)


@operator("gross value")
def clamped(call: Call) -> Array:
    """The gradient is clamped where the loss is not."""
    g = call.g
    limit = g.dtype.type(0.75 * _largest(g))
    return np.clip(g, -limit, limit)


@operator("subtle value", "lower precision")
def lower_precision(call: Call) -> Array:
    """It is computed in half the precision: float32 for float64."""
    g = call.g
    return _quietly(g, np.float32 if g.dtype == np.float64 else np.float16)


def _entry(name: str, text: str, change: Callable[[Any], Any]) -> None:
    def apply(call: Call) -> Array:
        g = call.g
        g.reshape(-1)[call.entry] = change(g.reshape(-1)[call.entry])
        return g

    OPERATORS[name] = Operator(name, "single entry", text, apply)


_entry("one entry times 2", "One entry is added twice.", lambda g: 2 * g)
_entry("one entry zero", "One entry is left out.", lambda g: 0 * g)
_entry("one entry negated", "One entry has the wrong sign.", lambda g: -g)
_entry("one entry + 1 %", "One entry is a little wrong.", lambda g: g + g / 100)
_entry("one entry NaN", "One entry is not a number.", lambda g: np.nan)


@operator("structural")
def shifted(call: Call) -> Array:
    """Indices are off by one."""
    return np.roll(call.g, 1, axis=-1) if call.g.ndim else call.g


@operator("structural")
def reversed_order(call: Call) -> Array:
    """A loop writes backwards."""
    return np.flip(call.g, axis=-1).copy() if call.g.ndim else call.g


@operator("structural")
def transposed(call: Call) -> Array:
    """Rows are written where columns belong."""
    if call.g.ndim < 2:
        raise NotHere
    return np.ascontiguousarray(call.g.T).reshape(call.g.shape)


@operator("structural")
def last_row_unwritten(call: Call) -> Array:
    """A loop ends one row early, in an array of zeros."""
    g = call.g
    g[-1:] = 0
    return g


@operator("structural")
def mask_ignored(call: Call) -> Array:
    """Entries that a mask sets to zero have what their neighbours have."""
    g = call.g
    return np.where(g == 0, np.roll(g, 1), g)


@operator("structural", harmless=True, checks=REPEATING)
def other_side_of_kinks(call: Call) -> Array:
    """At a kink the slope of one side is taken: right, unless a convention is declared."""
    x = call.argument(call.x)
    y = np.nextafter(x, np.inf)
    if call.domain is not None:
        y = np.where(y > call.domain[1], x, y)
    moved, g = call.at(call.x, y), call.g
    return np.where(np.isfinite(moved), moved, g)


@operator("structural", "upstream ignored", codes=("linear",))
def upstream_ignored(call: Call) -> Array:
    """The gradient is not multiplied by the upstream gradient."""
    return call.at(call.upstream, np.ones_like(call.argument(call.upstream)))


@operator("structural", "upstream squared", codes=("linear",))
def upstream_squared(call: Call) -> Array:
    """The gradient is multiplied by the upstream gradient twice."""
    return call.at(call.upstream, call.argument(call.upstream) ** 2)


@operator("state", codes=("overwritten",))
def shared_buffer(call: Call) -> Array:
    """Every call writes to the same buffer and returns it."""
    g = call.g
    buffer = call.memory.setdefault((g.shape, g.dtype), np.zeros_like(g))
    if call.memory.setdefault("calls", 0) and buffer.tobytes() != g.tobytes():
        call.harm.entry = np.inf
    call.memory["calls"] += 1
    buffer[...] = g
    return buffer


@operator("state")
def first_result_cached(call: Call) -> Array:
    """The first result is kept and returned for other arguments, too."""
    g = call.g
    return call.memory.setdefault((g.shape, g.dtype), g.copy()).copy()


@operator("state", codes=("not-repeatable",))
def never_zeroed(call: Call) -> Array:
    """The result is added to that of the call before."""
    g = call.g
    call.memory["sum"] = total = g + call.memory.get("sum", 0)
    return total.copy()


@operator("state", codes=("not-repeatable",))
def lost_update(call: Call) -> Array:
    """Two threads add to one entry, and every other time an addend gets lost."""
    g, entry = call.g, call.entry
    if call.rng.random() < 0.5:
        g.reshape(-1)[entry] *= 0.75
    return g


@operator("state", codes=("not-repeatable",), checks=REPEATING)
def random_1e_9(call: Call) -> Array:
    """The order of a sum is that of threads, so that digits differ from call to call."""
    return np.asarray(call.g * (1 + 1e-9 * call.rng.uniform(-1, 1)))


@operator("state", codes=("uninitialised",))
def entry_uninitialised(call: Call) -> Array:
    """One entry of an array from np.empty is never written."""
    result = np.empty(np.shape(call.argument(call.x)), call.argument(call.x).dtype)
    g = call.g
    if result.shape != g.shape:
        raise NotHere
    garbage = result.reshape(-1)[call.entry]
    result[...] = g
    result.reshape(-1)[call.entry] = garbage
    return result


@operator("state", codes=("not-repeatable", "state"))
def last_entry_stale(call: Call) -> Array:
    """The last entry is that of the call before."""
    g = call.g
    before = call.memory.get("last", 0)
    call.memory["last"] = g.reshape(-1)[-1]
    g.reshape(-1)[-1] = before
    return g


@operator("state", codes=("threads",), checks=REPEATING)
def sum_by_threads(call: Call) -> Array:
    """The last digit depends on the number of threads."""
    now = threads_now()
    g = call.g
    return np.nextafter(g, np.inf) if call.memory.setdefault("threads", now) != now else g


@operator("contract", codes=("input-modified",))
def input_modified(call: Call) -> Array:
    """The point is used as scratch space, in a way that a second call does not change again."""
    return _scratched(call, call.x)


@operator("contract", codes=("input-modified",))
def target_modified(call: Call) -> Array:
    """The second argument is used as scratch space."""
    return _scratched(call, call.x + 1)


@operator("contract", codes=("aliasing",))
def result_is_the_input(call: Call) -> Array:
    """What is returned is a view of the point."""
    x = call.argument(call.x)
    if x.shape != call.g.shape:
        raise NotHere
    call.harm.entry = np.inf
    return x[...]


@operator("contract", codes=("dtype",))
def wrong_dtype(call: Call) -> Array:
    """The result has another precision than the point."""
    return call.g.astype(np.float32 if call.g.dtype == np.float64 else np.float64)


@operator("contract", codes=("shape",))
def wrong_shape(call: Call) -> Array:
    """The result has an axis too many."""
    return call.g[None]


_WORKERS = [2]


@contextmanager
def one_worker() -> Iterator[None]:
    """A setting for `check`: another number of threads, as far as `sum_by_threads` knows."""
    before, _WORKERS[0] = _WORKERS[0], 1
    try:
        yield
    finally:
        _WORKERS[0] = before


def threads_now() -> tuple[int, ...]:
    """Number of threads: of this module, and of Numba where that is loaded."""
    numba = sys.modules.get("numba")
    return (_WORKERS[0],) if numba is None else (_WORKERS[0], numba.get_num_threads())


def _scaled(g: Array, factor: float) -> Array:
    return np.asarray(g * g.dtype.type(factor))


def _largest(g: Array) -> float:
    return float(np.max(np.abs(g[np.isfinite(g)]), initial=0.0))


def _quietly(g: Array, dtype: Any) -> Array:
    with np.errstate(all="ignore"):
        return g.astype(dtype).astype(g.dtype)


def _scratched(call: Call, place: int) -> Array:
    a = call.argument(place)
    if not (a.size and a.flags.writeable):
        raise NotHere
    g = call.g
    last = (-1,) * a.ndim
    if a[last] != 1:
        call.harm.entry = np.inf
    a[last] = 1
    return g
