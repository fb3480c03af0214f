"""The only place where Numba compiles, with what `_flags` has: disk cache, registration of plain functions.

Kernels are closures over plain, importable Python functions and a digest of the sources.  Numba's disk cache keys a kernel
by its closure cells, so a second process finds it, and an edit of any source file makes a new key.  (A closure over a
compiled function would never be found again, and an edit in another file would go unnoticed.)  Each kernel has a name and
hence an index file of its own: two processes that fill an empty cache at once can only write the same content twice.
"""

from __future__ import annotations

import hashlib
import os
import threading
import types as python
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from numba import njit, types
from numba.core import errors
from numba.extending import overload, register_jitable

from .. import _scalar, _softmax
from . import _scalar as _primitives  # importing it attaches the vectorisable exp, log, ...
from ._flags import FLAGS, INLINED

PACKAGE = Path(__file__).parent.parent
#: Whether each call of a kernel compares the types of its arguments with those that it was compiled for, as the tests do.
#: It takes a third of a microsecond, and those who call kernels pass no others.
CHECKED = False


def reachable(function: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    """`function` and every plain Python function that it refers to by a global name, once each; not those of libraries
    that Numba knows by itself.
    """
    seen, queue = set(), [function]
    while queue:
        f = queue.pop()
        if f in seen or f.__module__.partition(".")[0] in ("numba", "numpy"):
            continue
        seen.add(f)
        yield f
        if f not in _scalar.PRIMITIVES:
            queue += [g for n in names(f) if isinstance(g := f.__globals__.get(n), python.FunctionType)]
            cells = [c.cell_contents for c in f.__closure__ or ()]
            queue += [g for g in cells if isinstance(g, python.FunctionType)]


def names(function: Callable[..., Any]) -> list[str]:
    """The global names and attributes that a plain Python function refers to."""
    return [n for code in _codes(function.__code__) for n in code.co_names]


def _codes(code: python.CodeType) -> Iterator[python.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, python.CodeType):
            yield from _codes(constant)


_registered: set[Callable[..., Any]] = {*_scalar.PRIMITIVES, _primitives.exp_kept}
_one_at_a_time = threading.RLock()


def _after_fork() -> None:
    global _one_at_a_time
    _one_at_a_time = threading.RLock()  # another thread of the parent may have held it


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def jitable(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let compiled code call `function`, and all that it calls, as they stand; a decorator."""
    return _register(function, FLAGS)


def inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """Like `jitable`, for scalar functions that stand in vector loops, and for whatever adds with `add`.

    A function that is not inlined may exist in several copies, each optimised in other surroundings, and which of them a
    process takes depends on whether it compiled the kernel or found it in the cache: sums would differ in the last bit.
    """
    return _register(function, INLINED)


def _register(function: Callable[..., Any], options: dict[str, Any]) -> Callable[..., Any]:
    for f in reachable(function):
        if f not in _registered:
            _registered.add(f)
            register_jitable(**options)(f)
    return function


for _function in _scalar.COMPOSITIONS:
    inlined(_function)
for _function in vars(_softmax).values():
    if isinstance(_function, python.FunctionType):
        inlined(_function)


def summable(function: Callable[..., Any]) -> Callable[..., Any]:
    """Like `jitable`, but the additions of this one function may be reordered, so that a running sum vectorises."""
    _registered.add(function)
    return register_jitable(**{**FLAGS, "fastmath": {"reassoc", "contract", "nsz"}})(function)


def optional(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let compiled code call `function` of something that may be absent: None gives None; a decorator.

    Decided by type while compiling: Numba removes a branch on an argument that is None, but not on one that is something,
    and would then go on with a value that may be None.
    """

    def choose(first, *rest):
        return (lambda first, *rest: None) if isinstance(first, types.NoneType) else function

    _registered.add(function)
    overload(function, jit_options=INLINED, strict=False)(choose)
    return function


def overloaded(choose: Callable[..., Any]) -> Callable[..., Any]:
    """A function for compiled code alone, which `choose` finds from the types of its arguments; a decorator."""
    _registered.add(choose)
    overload(choose, jit_options=INLINED, strict=False)(choose)
    return choose


def unfit(what: str, function: Callable[..., Any], further: tuple[str, ...] = ()) -> TypeError:
    """The error of a function that ought to take vectors."""
    names = ("exp_nonpositive", "exp_moderate", "exp_number", *further, "log1p_unit")
    return TypeError(
        f"{what} {function.__qualname__} cannot be compiled for vectors: besides arithmetic, comparisons and abs() it may call "
        f"{', '.join(names[:-1])} and {names[-1]} of nlosses.scalar, and its where for what a condition decides"
    )


@lru_cache(maxsize=1)
def package_digest() -> str:
    digest = hashlib.sha256()
    for file in sorted(PACKAGE.rglob("*.py")):
        digest.update(str(file.relative_to(PACKAGE)).encode() + file.read_bytes())
    return digest.hexdigest()


@cache
def stamp(*functions: Callable[..., Any]) -> str:
    """Digest of the package and, for functions from elsewhere, of the code that they reach."""
    digest = hashlib.sha256(package_digest().encode())
    for function in functions:
        for f in reachable(function):
            if not f.__module__.startswith(__name__.split(".")[0] + "."):
                for code in _codes(f.__code__):
                    constants = [c for c in code.co_consts if not isinstance(c, python.CodeType)]
                    digest.update(repr((code.co_code, constants, code.co_names)).encode())
                    scalars = {n: f.__globals__[n] for n in code.co_names if _is_number(f.__globals__.get(n))}
                    digest.update(repr(scalars).encode())
    return digest.hexdigest()


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def build(
    make: Callable[..., Callable[..., Any]], name: str, cells: dict[str, Any], signature: tuple[types.Type, ...]
) -> Callable[..., Any]:
    """Compile, or load from the disk cache, the kernel that ``make(**cells, stamp=...)`` returns, for one signature."""
    dispatcher = _compiled(make, name, cells, signature, False)
    if CHECKED:
        dispatcher.disable_compile()  # an unexpected type is an error, not a second compilation
        return dispatcher
    return dispatcher.get_overload(signature)


def address_of(make: Callable[..., Callable[..., Any]], name: str, signature: tuple[types.Type, ...]) -> int:
    """The same of a kernel that runs on several threads; its address, by which other compiled code calls it."""
    compiled = _compiled(make, name, {}, signature, True).overloads[signature]
    _kept.append(compiled)
    return compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)


_kept: list[Any] = []  # what there are addresses of


def _compiled(make: Any, name: str, cells: dict[str, Any], signature: tuple[types.Type, ...], parallel: bool) -> Any:
    with _one_at_a_time:  # of two threads, none may meet functions that the other is still registering
        functions = tuple(c for c in cells.values() if isinstance(c, python.FunctionType))
        for function in functions:
            inlined(function)
        kernel = make(**cells, stamp=stamp(*functions))
        kernel.__name__ = kernel.__qualname__ = name
        options: Any = dict(FLAGS, nogil=True, parallel={"prange": True} if parallel else False)
        try:
            dispatcher = njit(kernel, cache=True, **options)
            dispatcher.compile(signature)
            return dispatcher
        except errors.NumbaError:
            raise  # a fault of the kernel itself
        except Exception as error:  # a broken or forbidden cache must not break a computation
            reason = str(error)
        with suppress(Exception):  # files that a crash or a full disk has cut short are written anew
            dispatcher = njit(kernel, cache=True, **options)
            dispatcher._cache.flush()
            dispatcher.compile(signature)
            return dispatcher
        dispatcher = njit(kernel, **options)
        dispatcher.compile(signature)
        _warn_uncached(reason)  # now that the fault is known to be the cache's
        return dispatcher


_warned = False


def _warn_uncached(reason: str) -> None:
    """Say so once, for each kernel has a reason of its own, with its name in it."""
    global _warned
    if not _warned:
        _warned = True
        message = f"nlosses could not use Numba's disk cache, so kernels are compiled anew in each process ({reason})"
        warnings.warn(message, RuntimeWarning, stacklevel=2)


def name_of(function: Callable[..., Any]) -> str:
    """Readable part of a kernel's name: module and function."""
    return f"{function.__module__.rpartition('.')[2]}_{function.__name__}"


def array(dtype: Any, ndim: int = 1, writable: bool = False) -> types.Type:
    """C-contiguous array type; a read-only type accepts writable arrays too, so that one kernel serves both."""
    from numba import from_dtype

    return types.Array(from_dtype(dtype), ndim, "C", readonly=not writable)
