"""Cases of the functions that come with the losses: sigmoid, softmax and their logarithms."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from . import _samples as samples
from ._device import OnDevice
from ._device import labels as run_labels


@dataclass(frozen=True)
class FunctionCase:
    """As `LossCase`, of a function of an array and, if it has classes, their axis."""

    function: Any
    shape: tuple[int, ...]
    axis: int | None
    dtype: str
    device: str = "cpu"

    def case(self, quick: bool) -> dict[str, Any]:
        options = "defaults" if self.axis is None else f"axis={self.axis}"
        labels = {"loss": self.function.__name__, "reduction": "none", "dtype": self.dtype, "device": self.device}
        labels |= {"derivative": "input", "layout": "C", "options": options}
        if self.device != "cpu":
            labels |= run_labels()
        bracket = "none" if self.axis is None else f"none, {options}"
        return {
            "name": f"{self.function.__name__}[{bracket}] {self.shape} {self.dtype} input"
            + f" {self.device}" * (self.device != "cpu"),
            "check": self.check,
            "arguments": self,
            "quick": quick,
            "labels": labels,
        }

    @property
    def check(self) -> str:
        return "check" if (self.dtype, self.device) == ("float64", "cpu") else "check_transfer"

    def __call__(self, rng: np.random.Generator) -> dict[str, Any]:
        arguments = {"x": self.sample(rng)[0], "sampler": lambda rng: self.sample(rng)[:1]}
        if self.check == "check":
            separable = () if self.axis is None else None
            return arguments | {"f": self.value, "grad": None, "vjp": self.vjp, "separable": separable}
        x, *args = self.sample(rng)
        candidate = self.both if self.device == "cpu" else replace(self, function=OnDevice(self.function)).both
        return {"reference": self.both, "candidate": candidate, "x": x, "args": tuple(args), "sampler": self.sample}

    def sample(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Input, upstream gradient and output."""
        shape = self.shape
        if self.axis is None:
            x = rng.choice(samples.REAL, shape) + rng.choice((0, 1), shape) * rng.normal(size=shape)
        else:
            classes = shape[self.axis]
            rows = samples.logits(prod(shape) // classes, classes, rng)
            x = np.moveaxis(rows.reshape(*np.delete(shape, self.axis), classes), -1, self.axis)
        x = np.ascontiguousarray(x, self.dtype)
        # What float64 is compared with is rounded too: by as much as the last digits of these make a difference.
        g = rng.integers(-8, 9, shape) / 8 if self.device == "cpu" else rng.normal(size=shape)
        return x, g.astype(self.dtype), self.value(x)

    def value(self, x: np.ndarray) -> Any:
        return self.function(x, **self._axis)

    def vjp(self, grad_output: np.ndarray, x: np.ndarray) -> Any:
        return self.function.vjp(grad_output, self.value(x), **self._axis)

    def both(self, x: np.ndarray, g: np.ndarray, y: np.ndarray) -> tuple[Any, Any]:
        return self.value(x), self.function.vjp(g, y, **self._axis)

    @property
    def _axis(self) -> dict[str, int]:
        return {} if self.axis is None else {"axis": self.axis}
