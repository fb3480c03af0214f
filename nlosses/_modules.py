"""The classes BCELoss, CrossEntropyLoss, ..., made from the registry."""

from __future__ import annotations

from inspect import Parameter, Signature
from typing import Any, ClassVar

from . import _validate
from ._loss import Loss


class Module:
    """A loss with its options fixed.

    Calling it gives the value; `grad`, `value_and_grad`, `hessian_diag` and `hvp` are those of the function, of which all
    keyword arguments that are not options apply.
    """

    loss: ClassVar[Loss[Any]]
    #: Names and defaults of the options, in positional order.
    defaults: ClassVar[dict[str, Any]]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        spec = self.loss.spec
        given = _validate.gathered(type(self).__name__, self.defaults, args, kwargs)
        everything = _validate.checked(spec, {**spec.options, **given})
        for name in self.defaults:
            if name not in _validate.LEGACY:
                setattr(self, name, everything[name])

    @property
    def _options(self) -> dict[str, Any]:
        return dict(vars(self))

    def __call__(self, input: Any, target: Any) -> Any:
        return self.loss(input, target, **self._options)

    def value_and_grad(self, input: Any, target: Any, **kwargs: Any) -> tuple[Any, Any]:
        """As `Loss.value_and_grad`."""
        return self.loss.value_and_grad(input, target, **self._options, **kwargs)

    def grad(self, input: Any, target: Any, **kwargs: Any) -> Any:
        """As `Loss.grad`."""
        return self.loss.grad(input, target, **self._options, **kwargs)

    def hessian_diag(self, input: Any, target: Any, **kwargs: Any) -> Any:
        """As `Loss.hessian_diag`."""
        return self.loss.hessian_diag(input, target, **self._options, **kwargs)

    def hvp(self, input: Any, target: Any, vector: Any, **kwargs: Any) -> Any:
        """As `Loss.hvp`."""
        return self.loss.hvp(input, target, vector, **self._options, **kwargs)

    def __repr__(self) -> str:
        shown = [
            f"{name}={_validate.shown(value, 40)}"
            for name, value in vars(self).items()
            if value is not self.defaults[name] and not (isinstance(value, str | float | int) and value == self.defaults[name])
        ]
        return f"{type(self).__name__}({', '.join(shown)})"


def module(loss: Loss[Any]) -> type[Module]:
    """The class of a loss, with torch's constructor: the function's options in torch's order."""
    spec = loss.spec
    assert spec.module is not None
    defaults = {name: value for name, value in spec.options.items() if name not in spec.module_omits}
    kind = Parameter.POSITIONAL_OR_KEYWORD
    signature = Signature([Parameter(name, kind, default=value) for name, value in defaults.items()])
    options = ", ".join(f"`{name}`" for name in defaults)
    doc = f"`{spec.name}` as an object.\n\nIts options are {options}: see that function."
    names = {"loss": loss, "defaults": defaults, "__doc__": doc, "__signature__": signature, "__module__": __package__}
    return type(spec.module, (Module,), names)
