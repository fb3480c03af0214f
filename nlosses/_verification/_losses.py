"""Cases of losses: arguments of a check, made from the declaration of the loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._loss import Loss
from .._spec import Interval, Spec
from . import _samples as samples
from ._device import OnDevice, labels

#: Upstream gradient of summed losses, a power of two so that it costs no rounding.
UPSTREAM = 2.0
#: Inputs with more elements are checked at one point only.
LARGE = 1000


def _strided(a: np.ndarray) -> np.ndarray:
    wide = np.zeros((*a.shape[:-1], 2 * a.shape[-1]), a.dtype)
    wide[..., ::2] = a
    return wide[..., ::2]


def _read_only(a: np.ndarray) -> np.ndarray:
    a = a.copy()
    a.flags.writeable = False
    return a


LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "C": np.asarray,
    "strided": _strided,
    "Fortran": np.asfortranarray,
    "reversed": lambda a: a[::-1].copy()[::-1],
    "read-only": _read_only,
}


@dataclass(frozen=True)
class LossCase:
    """What distinguishes a case; called with a generator it makes the arguments of its check."""

    loss: Loss[Any]
    reduction: str
    labelled: bool
    dtype: str
    derivative: str
    shape: tuple[int, ...] = ()
    options: tuple[str, ...] = ()
    layout: str = "C"
    several_threads: bool = False
    device: str = "cpu"

    def case(self, quick: bool) -> dict[str, Any]:
        probabilities = self.loss.spec.class_probabilities and not self.labelled
        options = "+".join(["probabilities"] * probabilities + list(self.options))
        bracket = ", ".join([self.reduction, *([options] if options else [])])
        name = f"{self.loss.__name__}[{bracket}] {self.shape} {self.dtype} {self.derivative}"
        return {
            "name": " ".join(
                [name, *[self.layout] * (self.layout != "C"), *["threads"] * self.several_threads,
                 *[self.device] * (self.device != "cpu")]
            ),
            "check": self.check,
            "arguments": self,
            "quick": quick,
            "labels": {
                "loss": self.loss.__name__, "reduction": self.reduction, "dtype": self.dtype, "device": self.device,
                "derivative": self.derivative, "layout": self.layout, "options": options or "defaults",
                **(labels() if self.device != "cpu" else {}),
            },
        }  # fmt: skip

    @property
    def traits(self) -> tuple[Any, ...]:
        """What quick cases are to have each of, the most important first."""
        options = self.labelled, self.options
        return (self.derivative, options), (self.dtype, options), self.layout, self.shape

    @property
    def check(self) -> str:
        if self.dtype != "float64" or self.device != "cpu":
            return "check_transfer"
        return {"hvp": "check_hvp", "hessian_diag": "check_hessian_diag"}.get(self.derivative, "check")

    @property
    def array_valued(self) -> bool:
        return self.reduction == "none" and (self.loss.spec.family == "elementwise" or len(self.shape) > 1)

    @property
    def separable(self) -> tuple[int, ...]:
        """Axes of the input over which one row mixes."""
        return () if self.loss.spec.family == "elementwise" else (min(1, len(self.shape) - 1),)

    def __call__(self, rng: np.random.Generator) -> dict[str, Any]:
        calls = Calls(self, samples.option_values(self.loss.spec, self.options, self.shape, rng))
        sampler = self._sampler(calls)
        x, *args = sampler(rng)
        arguments: dict[str, Any] = {"x": x, "args": tuple(args), "sampler": sampler, "points": 2 if x.size <= LARGE else 1}
        if self.check == "check_transfer":
            candidate = calls if self.device == "cpu" else Calls(self, calls.options, OnDevice(self.loss))
            functions = {"reference": calls.transferred(self.derivative), "candidate": candidate.transferred(self.derivative)}
            return arguments | functions
        interval = self._domain(calls)
        if interval.bounded:
            arguments["domain"] = interval.low, interval.high
        if self.derivative in ("hvp", "hessian_diag"):
            functions = calls.second_order(self.loss.spec)
            arguments |= {"grad": functions["grad"], self.derivative: functions[self.derivative]}
            return arguments | ({"separable": self.separable} if self.derivative == "hessian_diag" else {})
        return arguments | self._first_order(calls)

    def _first_order(self, calls: Calls) -> dict[str, Any]:
        arguments: dict[str, Any] = {"f": calls.value, "grad": calls.grad, "out": "out"}
        if self.array_valued:
            arguments |= {"grad": None, "vjp": calls.vjp, "separable": self.separable}
        elif self.reduction in ("mean", "none") and self.derivative == "input":
            arguments |= {"f": calls.value_and_grad, "value_and_grad": True}
        if self.loss.spec.kinks:
            arguments["kinks"] = calls.at_kinks
        if self.several_threads:
            arguments["settings"] = (one_thread,)
        return arguments

    def _sampler(self, calls: Calls) -> Callable[[np.random.Generator], tuple[np.ndarray, ...]]:
        spec, transferred = self.loss.spec, self.check == "check_transfer"
        if spec.family == "elementwise":
            pair = samples.elementwise(spec, calls.math, self.shape, self.derivative, ends=transferred)
        else:
            pair = samples.classwise(spec, self.shape, self.labelled, calls.options.get("ignore_index"))

        def sample(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
            x, t = pair(rng)
            arrays = [t, x] if self.derivative == "target" else [x, t]
            if transferred and self.derivative == "hvp":
                arrays.insert(1, rng.normal(size=x.shape))
            if self.array_valued and (transferred or self.derivative.startswith("h")):
                positions = x.shape if spec.family == "elementwise" else x.shape[:1] + x.shape[2:]
                arrays.append(rng.integers(-8, 9, positions) / 8)
            return tuple(np.asarray(a, self.dtype if a.dtype.kind == "f" else a.dtype) for a in arrays)

        return sample

    def _domain(self, calls: Calls) -> Interval:
        spec = self.loss.spec
        if spec.family == "classwise":
            return Interval()
        return samples.domain(spec, calls.math, int(self.derivative == "target"))


class Calls:
    """The methods of a loss with everything fixed but arrays; what is differentiated comes first."""

    def __init__(self, case: LossCase, options: dict[str, Any], loss: Any = None) -> None:
        spec = case.loss.spec
        self.loss, self.options = loss or case.loss, options
        self.fixed = {**options, "reduction": case.reduction}
        self.lay = LAYOUTS[case.layout]
        self.swapped = case.derivative == "target"
        # A comparison of precisions moves arguments by half a unit in the last place, also at the ends of a domain.
        self.ends = [(d.low, d.high) for d in (spec.input, spec.target)] if case.check == "check_transfer" else None
        self.upstream = UPSTREAM if case.reduction in ("sum", "batchmean") else 1.0
        self.math = next((math for name, math in spec.variants.items() if name in options), spec.math)

    def value(self, x: np.ndarray, t: np.ndarray) -> Any:
        return self.upstream * self.loss(*self._pair(x, t), **self.fixed)

    def value_and_grad(self, x: np.ndarray, t: np.ndarray, g: Any = None, out: Any = None) -> tuple[Any, Any]:
        return self.loss.value_and_grad(*self._pair(x, t), grad_output=self._upstream(g), out=out, **self.fixed)

    def grad(self, x: np.ndarray, t: np.ndarray, g: Any = None, out: Any = None) -> Any:
        upstream = self._upstream(g)
        return self.loss.grad(*self._pair(x, t), argnums=int(self.swapped), grad_output=upstream, out=out, **self.fixed)

    def value_then_grad(self, x: np.ndarray, t: np.ndarray) -> tuple[Any, Any]:
        return self.value(x, t), self.grad(x, t)

    def vjp(self, grad_output: np.ndarray, x: np.ndarray, t: np.ndarray, out: Any = None) -> Any:
        return self.grad(x, t, grad_output, out)

    def hvp(self, x: np.ndarray, v: np.ndarray, t: np.ndarray, g: Any = None) -> Any:
        return self.loss.hvp(*self._pair(x, t), self.lay(v), grad_output=self._upstream(g), **self.fixed)

    def hessian_diag(self, x: np.ndarray, t: np.ndarray, g: Any = None) -> Any:
        return self.loss.hessian_diag(*self._pair(x, t), grad_output=self._upstream(g), **self.fixed)

    def second_order(self, spec: Spec[Any]) -> dict[str, Callable[..., Any]]:
        """Gradient and Hessian; those of |x|**2 / 2 are added to a loss that has none, for there is nothing to see in zeros."""
        if not samples.straight(spec, self.math):
            return {"grad": self.grad, "hvp": self.hvp, "hessian_diag": self.hessian_diag}
        return {
            "grad": lambda x, *args: x + self.grad(x, *args),
            "hvp": lambda x, v, *args: v + self.hvp(x, v, *args),
            "hessian_diag": lambda x, *args: 1 + self.hessian_diag(x, *args),
        }

    def transferred(self, derivative: str) -> Callable[..., Any]:
        """What is compared between precisions; of summed losses the value comes without the gradient once."""
        functions: dict[str, Callable[..., Any]] = {
            "input": self.value_and_grad if self.upstream == 1.0 else self.value_then_grad,
            "target": self.grad,
            "hvp": self.hvp,
            "hessian_diag": self.hessian_diag,
        }
        return functions[derivative]

    def at_kinks(self, x: np.ndarray, t: np.ndarray) -> np.ndarray:
        """The documented subgradient 0, which no weight changes, at kinks; NaN elsewhere."""
        spec = self.loss.spec
        x, t = (t, x) if self.swapped else (x, t)
        slope = self.math.target_slope if self.swapped else self.math.point
        wanted = np.full(x.shape, np.nan)
        for place in np.argwhere((x[..., None] == samples.kinks(spec, t)).any(axis=-1)):
            pair = float(x[tuple(place)]), float(t[tuple(place)])
            if samples.evaluated(spec, slope, *pair)[-1:] == (0.0,):
                wanted[tuple(place)] = 0.0
        return wanted

    def _pair(self, x: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        x, t = (t, x) if self.swapped else (x, t)
        if self.ends and t.dtype.kind == "f":
            x, t = np.clip(x, *self.ends[0]), np.clip(t, *self.ends[1])
        return self.lay(x), self.lay(t)

    def _upstream(self, g: Any) -> Any:
        return (None if self.upstream == 1.0 else self.upstream) if g is None else self.lay(g)


@contextmanager
def one_thread() -> Iterator[None]:
    """Numba's kernels run on one thread."""
    import numba

    before = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        yield
    finally:
        numba.set_num_threads(before)
