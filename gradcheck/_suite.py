"""Cases and suites: what `python -m gradcheck` and the pytest plugin run.

A suite is an iterable of cases, or a function without arguments that returns one.  A case may be written as a plain dict
with the fields of `Case`, so that a library can offer a suite without importing gradcheck.  Installed libraries register
theirs in the entry-point group ``gradcheck.suites``.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import inspect
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from . import _checks
from ._verdict import Finding, Result, Verdict

GROUP = "gradcheck.suites"


class SuiteError(Exception):
    """A suite cannot be found, imported or understood; the message says which and why."""


@dataclass(frozen=True)
class Case:
    """One check, not yet run.

    Attributes
    ----------
    name : str
        Unique within its suite.
    arguments : mapping, or callable
        Arguments of the check by name, further ones of the function as a tuple ``args``; or a function that makes them from
        a `numpy.random.Generator`.
    check : str
        Which check: ``"check"``, ``"check_hvp"``, ``"check_hessian_diag"`` or ``"check_transfer"``.
    labels : mapping of str to str
        What filters and tables go by, such as loss, dtype, device, reduction, derivative.  Three more say how a case is run.
        With ``skip``, the reason, it is not.  With ``environment``, such as ``"A=1 B=2"``, the command line runs it in a
        process that collects the suite with these variables; one that has both, only if it is asked for by its device or
        name.  A ``note`` is told with the results of the cases that have it.
    quick : bool
        Whether a quick run has it.
    suite : str
        Name of the suite; filled in when it is collected.
    """

    name: str
    arguments: Mapping[str, Any] | Callable[[np.random.Generator], Mapping[str, Any]]
    check: str = "check"
    labels: Mapping[str, str] = field(default_factory=dict)
    quick: bool = True
    suite: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise SuiteError(f"a case's name must be a str, was {self.name!r}")
        if self.check not in _checks.CHECKS:
            raise SuiteError(f"case {self.name!r}: check must be one of {sorted(_checks.CHECKS)}, was {self.check!r}")

    def run(self, seed: int = 0) -> Result:
        """Run the check.  Whatever it raises becomes a finding, so that one broken case does not end a run."""
        rng = np.random.default_rng([seed, *self.name.encode(errors="surrogatepass")])
        try:
            arguments = self.arguments(rng) if callable(self.arguments) else self.arguments
            result = _checks.run(self.check, {"seed": seed, **arguments})
        except Exception as error:
            message = f"{type(error).__name__}: {error}"
            finding = Finding("error", Verdict.FAIL, message, hint="the check itself could not be run")
            result = Result(self.name, Verdict.FAIL, findings=(finding,), seed=seed)
        return replace(result, name=self.name, reproduce=self.command(seed))

    def command(self, seed: int = 0) -> str:
        """Line for a shell that runs just this case."""
        return f"python -m gradcheck {shlex.quote(self.suite)} --case {shlex.quote(self.name)} --seed {seed}"


def collect(targets: Iterable[str] = ()) -> list[Case]:
    """All cases of the named suites; of every installed suite if none is named.

    Parameters
    ----------
    targets : iterable of str
        Names of installed suites, ``module:attribute`` or ``path/to/file.py:attribute``.

    Raises
    ------
    SuiteError
        If one cannot be found or does not hold cases.
    """
    installed = {point.name: point for point in importlib.metadata.entry_points(group=GROUP)}
    cases: list[Case] = []
    for target in list(targets) or installed:
        suite = _load_installed(installed[target]) if target in installed else _load(target, sorted(installed))
        cases += _cases(target, suite)
    return cases


def _load_installed(point: importlib.metadata.EntryPoint) -> Any:
    try:
        return point.load()
    except Exception as error:
        raise SuiteError(f"installed suite {point.name!r} ({point.value}): {type(error).__name__}: {error}") from error


def _load(target: str, installed: list[str]) -> Any:
    where, separator, attribute = target.rpartition(":")
    if not separator:
        known = ", ".join(installed) or "none"
        raise SuiteError(f"no suite {target!r}: name an installed one ({known}), MODULE:NAME or FILE.py:NAME")
    try:
        module = _load_file(Path(where)) if where.endswith(".py") else _load_module(where)
    except Exception as error:
        raise SuiteError(f"cannot import {where!r}: {type(error).__name__}: {error}") from error
    try:
        return getattr(module, attribute)
    except AttributeError:
        raise SuiteError(f"{where!r} has no {attribute!r}") from None


def _load_module(name: str) -> ModuleType:
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # as `python -m` has it, for the console script
    return importlib.import_module(name)


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise FileNotFoundError(f"no file {str(path)!r}")
    name = f"_gradcheck_suite_{path.stem}"  # a name of its own, which cannot hide another module
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    folder = str(path.parent.resolve())
    if folder not in sys.path:
        sys.path.insert(0, folder)  # its neighbours can be imported, as from a program
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _cases(target: str, suite: Any) -> list[Case]:
    try:
        return list(_listed(target, suite))
    except SuiteError:
        raise
    except Exception as error:
        raise SuiteError(f"suite {target!r} raised {type(error).__name__}: {error}") from error


def _listed(target: str, suite: Any) -> Iterator[Case]:
    if callable(suite) and not inspect.isclass(suite):
        suite = suite()
    if not isinstance(suite, Iterable) or isinstance(suite, (str, Mapping)):
        raise SuiteError(f"suite {target!r} must be an iterable of cases or return one, was {type(suite).__name__}")
    names = {item.name for item in fields(Case)}
    seen: set[str] = set()
    for item in suite:
        if isinstance(item, Mapping):
            unknown = sorted(set(item) - names)
            if unknown or "name" not in item or "arguments" not in item:
                raise SuiteError(
                    f"suite {target!r}: a case needs name and arguments, and may have {sorted(names)}; got {sorted(item)}"
                )
            item = Case(**item)
        if not isinstance(item, Case):
            raise SuiteError(
                f"suite {target!r}: a case must be a gradcheck.Case or a dict of its fields, was {type(item).__name__}"
            )
        if item.name in seen:
            raise SuiteError(f"suite {target!r}: two cases are called {item.name!r}")
        seen.add(item.name)
        yield replace(item, suite=target)
