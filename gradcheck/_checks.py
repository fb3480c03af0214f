"""The checks that a case can name."""

from __future__ import annotations

from collections.abc import Callable

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
