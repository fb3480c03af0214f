"""Whether numbers are between 0 and 1, by their bits: those of all others, negative ones and NaN among them, are larger."""

from __future__ import annotations

from ._jit import inlined
from ._streams import fetch_far
from ._vector import farthest, filled_short, higher, load_part, load_short, short_lanes_of


@inlined
def bits(x, t, reach):
    """A vector whose largest lane, as `farthest` finds it, tells what `in_unit` asks."""
    zero = type(x)(0)
    return higher(x + zero, higher(t + zero, reach))  # -0 + 0 is 0


@inlined
def in_unit(most):
    T = type(most)
    return (most >= T(0)) & (most <= T(1))


@inlined
def leave_unit(x, t, first, n):
    """Whether one of n elements of two arrays, from the `first` on, is not between 0 and 1."""
    step, reach = short_lanes_of(x), filled_short(x, 0.0)
    whole = n - n % step
    for k in range(first, first + whole, step):
        fetch_far(x, k)
        fetch_far(t, k)
        reach = bits(load_short(x, k), load_short(t, k), reach)
    if whole < n:
        reach = bits(load_part(x, first + whole, n - whole), load_part(t, first + whole, n - whole), reach)
    return not in_unit(farthest(reach))
