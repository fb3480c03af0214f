"""The public object: a loss that is called like a function and has its derivatives as methods."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, ParamSpec

from numpy import ndarray

from . import _spec, _validate
from ._arrays import on_device
from ._spec import Scalar, Spec

P = ParamSpec("P")


class Loss(Generic[P]):
    """A loss function with exact gradients and curvature.

    Calling it gives the value, with the arguments and the meaning of the function of the same name in
    ``torch.nn.functional``.  All methods take the same arguments and, by keyword only:

    argnums : 0, 1 or a tuple
        What to differentiate with respect to: 0 is the input, 1 the target; a tuple gives a tuple of gradients.
    grad_output : scalar or array of the loss's shape, optional
        Upstream gradient: the result is the vector-Jacobian product with it.  Ones where absent.
    out : ndarray, optional
        Where to write the result: an array of its shape and dtype, which may be the input itself; with a tuple of
        `argnums`, a tuple.  A call that raises an error has changed no argument, but may have written to an `out` that shares
        memory with none; on a CUDA device, to any.

    Gradients have the shape and dtype of what they are taken of.
    """

    def __init__(self, spec: Spec[P]) -> None:
        self.spec = spec
        self.__name__ = self.__qualname__ = spec.name
        self.__doc__ = spec.declaration.__doc__
        self.__module__ = spec.declaration.__module__
        self.__wrapped__ = spec.declaration
        self.__signature__ = spec.signature
        self._defaults = spec.options
        self._reduction = spec.options["reduction"]
        self._problem_class: Any = None
        self._quick: Any = None

    def __repr__(self) -> str:
        return f"<loss {self.__name__}{self.__signature__}>"

    def __reduce__(self) -> str | tuple[Any, ...]:
        return (_found, (self.__module__, self.__name__))

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        input, target, *rest = self._two(args, kwargs)
        return self._problem(input, target, rest, kwargs).value()

    def value_and_grad(
        self,
        input: Any,
        target: Any,
        *args: Any,
        argnums: int | tuple[int, ...] = 0,
        grad_output: Any = None,
        out: Any = None,
        **kwargs: Any,
    ) -> tuple[Any, Any]:
        """The loss and its gradient, in one pass: ``(value, grad)``."""
        if self._quick and not args and grad_output is None and argnums.__class__ is int and argnums == 0:
            if type(input) is ndarray and type(target) is ndarray and (not kwargs or self._plain(kwargs)):
                results = self._quick(
                    input, target, out, kwargs.get("reduction", self._reduction) if kwargs else self._reduction
                )
                if results is not None:
                    return results
        problem = self._problem(input, target, args, kwargs)
        if argnums.__class__ is int and argnums == 0:
            return problem.value_and_grad(grad_output, out)
        before = None if 0 in _validate.argnums(self.__name__, argnums) else problem.value()
        value, grads = self._gradients(problem, argnums, grad_output, out)
        return value if before is None else before, grads

    def grad(
        self,
        input: Any,
        target: Any,
        *args: Any,
        argnums: int | tuple[int, ...] = 0,
        grad_output: Any = None,
        out: Any = None,
        **kwargs: Any,
    ) -> Any:
        """The gradient alone."""
        problem = self._problem(input, target, args, kwargs)
        return self._gradients(problem, argnums, grad_output, out, with_value=False)[1]

    def hessian_diag(self, input: Any, target: Any, *args: Any, grad_output: Any = None, out: Any = None, **kwargs: Any) -> Any:
        """Diagonal of the Hessian with respect to the input, of the input's shape.

        For 'none' it is the diagonal of the Hessian of ``sum(grad_output * loss)``.
        """
        return self._problem(input, target, args, kwargs).hessian_diag(grad_output, out)

    def hvp(
        self, input: Any, target: Any, vector: Any, *args: Any, grad_output: Any = None, out: Any = None, **kwargs: Any
    ) -> Any:
        """Product of the Hessian with respect to the input with `vector`, which has the input's shape.

        For 'none' it is the Hessian of ``sum(grad_output * loss)``.
        """
        return self._problem(input, target, args, kwargs).hvp(vector, grad_output, out)

    # --- machinery ---------------------------------------------------------------------------------------------------

    def _plain(self, kwargs: dict[str, Any]) -> bool:
        """Whether options are as they are declared, but for the name of a reduction."""
        defaults = self._defaults
        return all(
            value.__class__ is str if name == "reduction" else name in defaults and defaults[name] is value
            for name, value in kwargs.items()
        )

    def _two(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """Input and target, which may have been given by name, before the other positional arguments."""
        if len(args) >= 2:
            return args
        names = tuple(self.__signature__.parameters)[:2]
        missing = [name for name in names[len(args) :] if name not in kwargs]
        if missing:
            raise TypeError(f"{self.__name__} needs {' and '.join(missing)}")
        return (*args, *(kwargs.pop(name) for name in names[len(args) :]))

    def _problem(self, input: Any, target: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        if type(input) is not ndarray or type(target) is not ndarray:
            if on_device(input) or on_device(target):
                from importlib import import_module

                options = _validate.bind(self.spec, self._defaults, args, kwargs)
                return import_module(f"._cuda.{self.spec.family}_calls", __package__).Problem(self.spec, input, target, options)
        if self._problem_class is None:  # the first call loads Numba; importing the package does not
            from importlib import import_module

            module = import_module(f"._{self.spec.family}", __package__)
            self._problem_class, self._quick = module.Problem, module.quick(self.spec)
        options = _validate.bind(self.spec, self._defaults, args, kwargs) if args or kwargs else self._defaults
        return self._problem_class(self.spec, input, target, options)

    def _gradients(self, problem: Any, argnums: Any, grad_output: Any, out: Any, with_value: bool = True) -> tuple[Any, Any]:
        """The gradients that `argnums` asks for, and the value if it is wanted and came along with that of the input."""
        wrt, outs = self._several(argnums, out)
        if len(wrt) > 1:  # one alone raises what it has to before it changes an argument
            for k, o in zip(wrt, outs, strict=True):
                problem.check(k, o)
        value, grads = None, []
        for k, o in zip(wrt, outs, strict=True):
            direct = o if len(wrt) == 1 else None  # one result must not overwrite what the next is computed from
            if k == 0 and with_value:
                value, g = problem.value_and_grad(grad_output, direct)
            else:
                g = problem.grad(k, grad_output, direct)
            grads.append(g)
        if len(wrt) > 1 and out is not None:
            for o, g in zip(outs, grads, strict=True):
                o[...] = g
            grads = list(outs)
        return value, tuple(grads) if isinstance(argnums, tuple) else grads[0]

    def _several(self, argnums: Any, out: Any) -> tuple[tuple[int, ...], tuple[Any, ...]]:
        wrt = _validate.argnums(self.__name__, argnums)
        if not isinstance(argnums, tuple):
            return wrt, (out,)
        if out is None:
            return wrt, (None,) * len(wrt)
        if not isinstance(out, tuple) or len(out) != len(wrt):
            raise TypeError(
                f"{self.__name__}: out must be a tuple of {len(wrt)} arrays, as argnums is, got {_validate.described(out)}"
            )
        return wrt, out


def _found(module: str, name: str) -> Any:
    """Unpickle a loss: the library's own by its public name, a user's from the module that defines it."""
    from importlib import import_module

    own = __package__ or ""
    return getattr(import_module(own if module.startswith(f"{own}.") else module), name)


def elementwise(
    point: Scalar,
    *,
    target_slope: Scalar | None = None,
    curvature: Scalar | None = None,
    summand: Scalar | None = None,
    binary: Scalar | None = None,
    vectors: bool = False,
    **facts: Any,
) -> Callable[[Callable[P, Any]], Loss[P]]:
    """Make a loss of one input element and one target element.

    The decorated function gives the name, the documentation and the signature ``(input, target, ...)``, which must have
    `reduction` and may have `weight`; its body is never run.

    Parameters
    ----------
    point : function
        ``point(x, t, *parameters) -> (value, slope)``: plain Python on scalars; ``slope`` is d value / dx.  The names of
        its further arguments are options of the signature; arrays given for them are broadcast to the input's shape.
        `nlosses.scalar` has the functions that run fast in it.  Constants are best written in the precision of x:
        ``T = type(x); T(0.5)``.
    target_slope : function, optional
        d value / dt, of the same arguments.
    curvature : function, optional
        d2 value / dx2, of the same arguments; for `Loss.hessian_diag` and `Loss.hvp`.
    summand : function, optional
        ``summand(x, t) -> (v, e, slope)`` of a loss whose value, where no parameters are given, is ``v + log1p(e)`` with
        0 <= e <= 1.  Sums and means without weights then take one logarithm for dozens of elements.  It need be right for
        ``abs(x) <= nlosses.scalar.MODERATE`` alone; all else calls `point`.  It is compiled for vectors: besides arithmetic,
        comparisons and ``abs`` it may call `nlosses.scalar.exp_nonpositive`, `exp_moderate`, `exp_number` and `log1p_unit`,
        and `nlosses.scalar.where` for what depends on a condition.  One that calls `exp`, `log`, `log_half` or `log1m_half`
        serves where the machine has AVX-512; elsewhere all calls `point`.
    binary : function, optional
        ``binary(x, t) -> (e, slope)`` of a loss whose value is ``log1p(e)`` with any e >= 0 where t is 0 or 1, under the same
        rules: it takes the place of a `summand`, which must be given too, for hundreds of such targets in a row.  An infinite
        e has these elements done by `summand` or `point`.
    vectors : bool, optional
        Whether `point` may be compiled for vectors too, under the same rules, which makes these functions quicker where the
        machine has AVX-512; besides those it may call `exp`, `log`, `log_half` and `log1m_half` of `nlosses.scalar` then.
    **facts
        Further fields of the declaration, as the library's own losses use them: ``input=`` and ``target=`` (an
        `Interval` each, which is checked), ``shapes=``, ``kinks=``, ``reference=``, ``facts=``.

    Returns
    -------
    decorator
        Of a function, gives a `Loss`.

    Examples
    --------
    >>> import math
    >>> import nlosses as nl
    >>> def point(x, t):
    ...     r = x - t
    ...     return math.sqrt(1 + r * r) - 1, r / math.sqrt(1 + r * r)
    >>> @nl.elementwise(point)
    ... def pseudo_huber(input, target, reduction="mean"):
    ...     "Smooth absolute error."
    >>> value, grad = pseudo_huber.value_and_grad([0.0, 0.75], [0.0, 0.0], reduction="sum")
    >>> float(value), grad.tolist()
    (0.25, [0.0, 0.6])
    """
    declare = _spec.elementwise(
        point, target_slope=target_slope, curvature=curvature, summand=summand, binary=binary, vectors=vectors, **facts
    )
    return lambda declaration: Loss(declare(declaration))


def classwise(point: Scalar, *, curvature: Scalar | None = None, **facts: Any) -> Callable[[Callable[P, Any]], Loss[P]]:
    """Make a loss of a row of classes, as a function of the row's surprisal ``u = -log softmax(input)[target]``.

    With `weight` and `label_smoothing` in the signature, u is their weighted sum ``sum_j q_j (-log p_j)``, where q is what
    `cross_entropy` documents.

    Parameters
    ----------
    point : function
        ``point(u) -> (value, d value / du)``: plain Python on a scalar.
    curvature : function, optional
        d2 value / du2.  Without it the loss is taken as linear in u, as cross entropy is.
    **facts
        Further fields of the declaration: ``log_probabilities=True`` where the input already holds log-probabilities,
        ``class_probabilities=True`` where a target of the input's shape holds class probabilities, ``reference=``,
        ``facts=``.

    Returns
    -------
    decorator
        Of a function, gives a `Loss`.
    """
    declare = _spec.classwise(point, curvature=curvature, **facts)
    return lambda declaration: Loss(declare(declaration))
