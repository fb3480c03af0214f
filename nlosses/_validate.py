"""Every error message that a user can see.  A message names the argument, what it was, and what it should be."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from ._spec import LEGACY, Interval, Spec


class AnyArray(Protocol):
    """An array of the host or of a device."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype: ...


def shown(value: Any, limit: int = 80) -> str:
    """A short representation for messages."""
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def described(value: Any) -> str:
    """What an argument is, in a few words: type, and for arrays shape and dtype."""
    if isinstance(getattr(value, "dtype", None), np.dtype) and not isinstance(value, np.generic):
        return f"an array of shape {value.shape} and dtype {value.dtype}"
    return f"{shown(value)} ({type(value).__name__})"


def not_real(name: str, array: AnyArray) -> TypeError:
    return TypeError(f"{name} must hold real numbers, got dtype {array.dtype}")


def elsewhere(name: str) -> TypeError:
    return TypeError(
        f"{name} is on a CUDA device, where other arguments are in host memory or what was called works on NumPy arrays "
        "alone; all arrays must be on one side, and nothing is copied from one to the other by itself"
    )


def scattered(owner: str, where: Mapping[str, int | None]) -> TypeError:
    places = [f"{name} {'in host memory' if k is None else f'on CUDA device {k}'}" for name, k in where.items()]
    return TypeError(f"{owner}: all arrays must be in one place, and none is copied by itself, got {', '.join(places)}")


# --- options -------------------------------------------------------------------------------------------------------


def bind(spec: Spec[Any], defaults: Mapping[str, Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Options of one call, from what stands behind input and target."""
    return checked(spec, {**defaults, **gathered(spec.name, defaults, args, kwargs)})


def gathered(owner: str, defaults: Mapping[str, Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Options that were given, by name."""
    names = tuple(defaults)
    if len(args) > len(names):
        raise TypeError(f"{owner} takes at most {len(names)} options ({', '.join(names)}), got {len(args)}")
    options = dict(zip(names, args, strict=False))
    for name, value in kwargs.items():
        if name not in defaults:
            raise TypeError(f"{owner} has no argument {name!r}; its options are {', '.join(names)}")
        if name in options:
            raise TypeError(f"{owner} got {name!r} by position and by name")
        options[name] = value
    return options


def checked(spec: Spec[Any], options: dict[str, Any]) -> dict[str, Any]:
    """`options` with valid reduction and switches; the deprecated ones resolved."""
    if any(options.get(name) is not None for name in LEGACY):
        options["reduction"] = legacy_reduction(*(options.get(name) for name in LEGACY))
    reduction = options["reduction"]
    if not isinstance(reduction, str) or reduction not in spec.reductions:
        raise ValueError(
            f"{spec.name}: reduction must be one of {', '.join(map(repr, spec.reductions))}, got {shown(reduction)}"
        )
    for name in spec.variants:
        if not isinstance(options[name], bool | np.bool_):
            raise TypeError(f"{spec.name}: {name} must be True or False, got {described(options[name])}")
    if "label_smoothing" in options:
        smoothing = number(spec.name, "label_smoothing", options["label_smoothing"])
        if not 0.0 <= smoothing <= 1.0:
            raise ValueError(f"{spec.name}: label_smoothing must lie in [0, 1], got {shown(smoothing)}")
        options["label_smoothing"] = smoothing
    if "ignore_index" in options:
        ignored = options["ignore_index"]
        if isinstance(ignored, bool) or not isinstance(ignored, int | np.integer):
            raise TypeError(f"{spec.name}: ignore_index must be an integer, got {described(ignored)}")
        if not -(2**63) <= ignored < 2**63:
            raise ValueError(f"{spec.name}: ignore_index must be an integer of 64 bits, as class indices are, got {ignored}")
        options["ignore_index"] = int(ignored)
    return options


def legacy_reduction(size_average: Any, reduce: Any) -> str:
    """The reduction that torch's deprecated pair of switches means."""
    size_average = True if size_average is None else size_average
    reduce = True if reduce is None else reduce
    reduction = "none" if not reduce else "mean" if size_average else "sum"
    warnings.warn(
        f"size_average and reduce are deprecated, use reduction={reduction!r} instead", DeprecationWarning, stacklevel=6
    )
    return reduction


def number(owner: str, name: str, value: Any) -> float:
    if isinstance(value, bool | str | bytes) or value is None or np.ndim(value) != 0:
        raise TypeError(f"{owner}: {name} must be a real number, got {described(value)}")
    try:
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{owner}: {name} must be a real number, got {described(value)}") from None


def argnums(owner: str, value: Any) -> tuple[int, ...]:
    """`argnums` as a tuple."""
    several = value if isinstance(value, tuple) else (value,)
    if not several or any(isinstance(k, bool) or k not in (0, 1) for k in several) or len(set(several)) < len(several):
        raise ValueError(
            f"{owner}: argnums must be 0 (input), 1 (target) or a tuple of them without repetition, got {shown(value)}"
        )
    return tuple(int(k) for k in several)


# --- shapes --------------------------------------------------------------------------------------------------------


def elementwise_shapes(spec: Spec[Any], x: AnyArray, t: AnyArray) -> tuple[int, ...]:
    """Shape of the unreduced loss."""
    if x.shape == t.shape:
        return x.shape
    if spec.shapes == "same":
        raise ValueError(f"{spec.name}: target must have the shape of input, {x.shape}, got {t.shape}")
    try:
        shape = np.broadcast_shapes(x.shape, t.shape)
    except ValueError:
        raise ValueError(f"{spec.name}: target must broadcast with input of shape {x.shape}, got {t.shape}") from None
    if spec.shapes == "warn":
        warnings.warn(
            f"{spec.name}: target has shape {t.shape} and input {x.shape}; both are broadcast to {shape}, which is "
            "seldom meant",
            UserWarning,
            stacklevel=5,
        )
    return shape


def matching_weight(owner: str, weight: AnyArray, shape: tuple[int, ...]) -> None:
    if weight.shape != shape:
        raise ValueError(f"{owner}: weight must have the shape of input, {shape}, got {weight.shape}")


def broadcasts(name: str, shape: tuple[int, ...], to: tuple[int, ...]) -> None:
    fits = len(shape) <= len(to) and all(n in (1, full) for n, full in zip(shape[::-1], to[::-1], strict=False))
    if not fits:
        raise ValueError(f"{name} must broadcast to shape {to}, got shape {shape}")


def grad_output(owner: str, array: AnyArray, shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        what = "a scalar, as the loss is" if shape == () else f"an array of the loss's shape {shape}"
        raise ValueError(f"{owner}: grad_output must be {what}, got shape {array.shape}")


def vector(owner: str, array: AnyArray, shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise ValueError(f"{owner}: vector must have the shape of input, {shape}, got {array.shape}")


def out(owner: str, array: Any, shape: tuple[int, ...], dtype: np.dtype, name: str = "out") -> None:
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{owner}: {name} must be a NumPy array, got {described(array)}")
    if array.shape != shape:
        raise ValueError(f"{owner}: {name} must have shape {shape}, got {array.shape}")
    if array.dtype != dtype:
        raise TypeError(f"{owner}: {name} must have dtype {dtype}, got {array.dtype}")
    if not array.flags.writeable:
        raise ValueError(f"{owner}: {name} must be writable, got a read-only array")


# --- contents ------------------------------------------------------------------------------------------------------


def outside(owner: str, name: str, array: np.ndarray, interval: Interval) -> ValueError:
    """The error for the first element of `array` that is not in `interval`."""
    bad = np.argwhere(~((array >= interval.low) & (array <= interval.high)))
    where = tuple(int(k) for k in bad[0])
    index = f"{name}[{', '.join(map(str, where))}]" if where else name
    return ValueError(f"{owner}: {name} must lie in {interval}, got {index} = {array[where]!s}")


# --- classes -------------------------------------------------------------------------------------------------------


def class_shapes(spec: Spec[Any], x: AnyArray, t: AnyArray, labelled: bool) -> None:
    """Check the shapes of logits and target."""
    shape = x.shape
    axes = len(shape)
    if axes == 0:
        raise ValueError(f"{spec.name}: input must have shape (C,), (N, C) or (N, C, d1, ...), got a scalar")
    if shape[0 if axes == 1 else 1] == 0:
        raise ValueError(f"{spec.name}: input must have at least one class, got shape {shape}")
    wanted = (shape[0], *shape[2:]) if axes > 1 else ()
    if labelled and t.shape != wanted and not (axes == 1 and t.shape == (1,)):
        also = f", or class probabilities of shape {shape}" if spec.class_probabilities else ""
        raise ValueError(
            f"{spec.name}: target must hold class indices of shape {wanted} for an input of shape {shape}{also}, "
            f"got shape {t.shape}"
        )


def integer_target(spec: Spec[Any], x: AnyArray, t: AnyArray) -> None:
    if t.dtype.kind not in "iub":
        also = f" (class probabilities must have the input's shape {x.shape})" if spec.class_probabilities else ""
        raise TypeError(f"{spec.name}: target must hold integer class indices, got {described(t)}{also}")


def ignored_probabilities(owner: str, ignore_index: int) -> ValueError:
    return ValueError(
        f"{owner}: ignore_index applies to class indices, not to class probabilities; it must be left out, got {ignore_index}"
    )


def class_weight(owner: str, weight: AnyArray, classes: int) -> None:
    if weight.shape != (classes,):
        raise ValueError(f"{owner}: weight must have shape ({classes},), one a class, got {weight.shape}")


def bad_index(owner: str, target: np.ndarray, classes: int, ignore_index: int) -> IndexError:
    """The error for the first class index of `target` that is out of range."""
    exact = target.astype(object)  # unsigned integers too, without wrapping
    bad = ((exact < 0) | (exact >= classes)) & (exact != ignore_index)
    where = tuple(int(k) for k in np.argwhere(bad)[0])
    index = f"target[{', '.join(map(str, where))}]" if where else "target"
    return IndexError(
        f"{owner}: target must hold class indices in [0, {classes}) or ignore_index={ignore_index}, "
        f"got {index} = {int(target[where])}"
    )


def no_target_gradient(owner: str) -> TypeError:
    return TypeError(f"{owner}: argnums must be 0 where target holds class indices, which have no gradient")


def missing(owner: str, what: str, part: str) -> NotImplementedError:
    return NotImplementedError(f"{owner} has no {what}: it was declared without {part}")


# --- functions -----------------------------------------------------------------------------------------------------


def same_shape(owner: str, grad_output: AnyArray, output: AnyArray) -> None:
    if grad_output.shape != output.shape:
        raise ValueError(f"{owner}: grad_output must have the shape of output, {output.shape}, got {grad_output.shape}")


def axis(owner: str, value: Any, shape: tuple[int, ...]) -> int:
    """`value` as an axis counted from the front, which has elements."""
    ndim = len(shape)
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{owner}: axis must be an integer, got {described(value)}")
    if not -ndim <= value < ndim:
        raise ValueError(f"{owner}: axis must be in [{-ndim}, {ndim}) for an input of {ndim} dimensions, got {value}")
    if shape[value] == 0:
        raise ValueError(f"{owner}: input must not be empty along axis, got no element along axis {value} of shape {shape}")
    return int(value) % ndim
