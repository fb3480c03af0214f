"""The checks that a case can name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from ._check import check
from ._second import check_hessian_diag, check_hvp
from ._transfer import check_transfer
from ._verdict import Result

CHECKS: dict[str, Callable[..., Result]] = {
    "check": check,
    "check_hvp": check_hvp,
    "check_hessian_diag": check_hessian_diag,
    "check_transfer": check_transfer,
}


def run(name: str, arguments: Mapping[str, Any]) -> Result:
    """Call a check with its arguments by name; those of the function are a tuple ``args``."""
    function = CHECKS[name]
    named = dict(arguments)
    parameters = inspect.signature(function).parameters.values()
    leading = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    optional = {"grad"} if name == "check" else set()  # value_and_grad or vjp may stand for it
    missing = [p.name for p in leading if p.default is p.empty and p.name not in named and p.name not in optional]
    if missing:
        raise TypeError(f"{name} needs {', '.join(missing)}; the case has {', '.join(sorted(named))}")
    return function(*(named.pop(p.name, None) for p in leading), *named.pop("args", ()), **named)
