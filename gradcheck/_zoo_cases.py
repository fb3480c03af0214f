"""Cases of the self-test: every way in which a gradient can be handed over, for every loss of the zoo."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from ._suite import Case
from ._zoo import ZOO, Array, Specimen

SHAPE = (4, 3)
#: More entries than are looked at one by one.
LARGE = (80, 5)


def zoo() -> dict[str, list[Case]]:
    """Cases by the name of the loss."""
    return {specimen.name: list(cases(specimen)) for specimen in ZOO}


def slips(specimen: Specimen) -> dict[str, list[Case]]:
    """The cases of first derivatives with wrong slopes, by what is wrong: the gradient to plant into the right case."""
    return {
        name: [case for case in cases(replace(specimen, slopes=slopes)) if case.check != "check_hvp"]
        for name, slopes in specimen.slips.items()
    }


def cases(specimen: Specimen) -> Iterator[Case]:
    """Every form of one loss; those that take longest are not quick."""
    s = specimen
    mean = {"f": s.mean, "grad": s.mean_gradient}
    each = {"f": s.terms, "grad": None, "vjp": s.vjp}
    yield _case(s, "mean", "check", mean)
    yield _case(s, "each", "check", {**each, "separable": (1,) if s.rowwise else ()})
    yield _case(s, "float32", "check_transfer", {"reference": s.mean_gradient, "candidate": s.mean_gradient}, dtype=np.float32)
    yield _case(s, "fused", "check", {"f": s.fused, "grad": s.mean_gradient, "value_and_grad": True}, quick=False)
    yield _case(s, "together", "check", each, quick=False)
    yield _case(s, "large", "check", mean, shape=LARGE, quick=False)
    if s.kinks is not None:
        yield _case(s, "at kinks", "check", mean, kinked=True)
    if s.product is not None:

        def hvp(x: Array, v: Array, t: Array) -> Array:
            assert s.product is not None
            return s.product(v, x, t)

        yield _case(s, "hvp", "check_hvp", {"grad": s.slopes, "hvp": hvp})
        yield _case(s, "curvature", "check_hessian_diag", {"grad": s.slopes, "hessian_diag": s.hessian_diag})


def _case(
    s: Specimen, form: str, check: str, functions: dict[str, Any], *, shape: tuple[int, ...] = SHAPE, quick: bool = True,
    kinked: bool = False, dtype: Any = np.float64,
) -> Case:  # fmt: skip
    def draw(rng: np.random.Generator) -> tuple[Array, Array]:
        return s.draw_x(rng, shape).astype(dtype), s.draw_t(rng, shape).astype(dtype)

    def arguments(rng: np.random.Generator) -> dict[str, Any]:
        x, t = draw(rng)
        if kinked:
            assert s.kinks is not None
            x = np.where(rng.random(shape) < 0.4, s.kinks(x, t), x)
        more = {"domain": s.domain} if check != "check_transfer" else {}
        return {**functions, "x": x, "args": (t,), "sampler": draw, **more}

    return Case(f"{s.name}, {form}", arguments, check, {"loss": s.name, "form": form}, quick, "zoo")
