"""Sums of rows that lie one after the other, of all rows of a vector of positions at once, in registers.

A vector holds one row, or several short ones, each in a group of as many lanes.  Of two such vectors the halves of all groups
are added, which makes one with twice as many groups, half as wide; and so on until each lane is the sum of one row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import types
from numba.extending import intrinsic

from ._blocks import rounder_of
from ._jit import inlined, overloaded
from ._vector import SHORT, choice, load_part, load_short, permuted, short_lanes_of, shuffled

#: Rows have more classes than this: of so few tiles are as quick.
LEAST = 4


def _halved(groups: int) -> Any:
    """Of two vectors with so many groups of lanes: one that has the groups of both, half as wide, with sums of their halves."""

    @intrinsic
    def halved(typing_context: Any, a: Any, b: Any) -> Any:
        width = a.lanes // groups

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            x, y = args
            lower = [g * width + k for g in range(2 * groups) for k in range(width // 2)]
            upper = [k + width // 2 for k in lower]
            return builder.fadd(shuffled(builder, x, y, lower), shuffled(builder, x, y, upper))

        return a(a, b), generate

    return halved


@inlined
def _row(tile, at, classes, places):
    """A vector that has the sum of a row."""
    step = short_lanes_of(tile)
    whole = (classes - 1) // step * step
    total = load_part(tile, at + whole, classes - whole)
    for j in range(0, whole, step):
        total = total + load_short(tile, at + j)
    return total


@inlined
def _pack(tile, at, classes, places):
    """A vector that has the elements of some rows, each of them in a group of lanes."""
    lanes, taken = places
    return choice(taken, permuted(load_short(tile, at), lanes), 0.0)


def _tree(groups: int, vectors: int) -> Callable[..., Any]:
    """The sums of the rows of so many vectors, each of which has so many groups: a vector with a group for each row."""
    if vectors == 1:
        return _row if groups == 1 else _pack
    half, rows = _tree(groups, vectors // 2), groups * vectors // 2
    halved = _halved(rows)

    def tree(tile, at, classes, places):
        return halved(half(tile, at, classes, places), half(tile, at + rows * classes, classes, places))

    return inlined(tree)


def _trees(lanes: int, groups: int = 1) -> Callable[..., Any]:
    """The sums of as many rows as a vector has lanes, in so many groups or, of fewer classes, more."""
    tree, width = _tree(groups, lanes // groups), lanes // groups
    if width // 2 <= LEAST:
        return tree
    narrower = _trees(lanes, 2 * groups)

    def trees(tile, at, classes, places):
        if classes > width // 2:
            return tree(tile, at, classes, places)
        return narrower(tile, at, classes, places)

    return inlined(trees)


_TREES = {types.float32: _trees(SHORT // 4), types.float64: _trees(SHORT // 8)}


@overloaded
def row_sums(tile, at, classes, places):
    """The sum of each of as many rows as a vector has lanes, the first of which begins at element `at`.

    For the `places` see `lay_out`.
    """
    return _TREES[tile.dtype]


@inlined
def lay_out(classes, source, taken):
    """Tell for each lane of a vector of several rows where from their begin on its element stands, in the low bits, and with a
    1 whether it has one.
    """
    T = source.dtype.type
    lanes = short_lanes_of(source)
    width = 2 * LEAST
    while width < classes:
        width *= 2
    for k in range(lanes):
        source[k] = T(k // width * classes + k % width) + rounder_of(source)
        taken[k] = T(k % width < classes)
