"""Rows of few classes as vectors of one class each, and back, in registers: shuffles of two vectors at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numba.core import cgutils
from numba.extending import intrinsic

from ._vector import shuffled


def _gathered(builder: Any, parts: Sequence[Any], places: Sequence[tuple[int, int]]) -> Any:
    """A vector whose lanes are at these places, each of them a part and a lane in it."""
    result = parts[0]
    for i, part in enumerate(parts[1:], 1):
        lanes = [
            own if i == 1 and where == 0 else len(places) + own if where == i else p for p, (where, own) in enumerate(places)
        ]
        result = shuffled(builder, result, part, lanes)
    return result


def columns_of(builder: Any, rows: list[Any]) -> list[Any]:
    """As many vectors as the rows have classes, one for each class, from those in which the rows lie one after the other."""
    classes, lanes = len(rows), rows[0].type.count
    if classes == 1:
        return rows
    if classes % 2 == 0:
        pairs = list(zip(rows[::2], rows[1::2], strict=True))
        halves = [[shuffled(builder, a, b, range(odd, 2 * lanes, 2)) for a, b in pairs] for odd in (0, 1)]
        found = [columns_of(builder, half) for half in halves]
        return [column for pair in zip(*found, strict=True) for column in pair]
    return [_gathered(builder, rows, [divmod(p * classes + c, lanes) for p in range(lanes)]) for c in range(classes)]


def rows_of(builder: Any, columns: list[Any]) -> list[Any]:
    """The inverse of `columns_of`."""
    classes, lanes = len(columns), columns[0].type.count
    if classes == 1:
        return columns
    if classes % 2 == 0:
        pairs = zip(rows_of(builder, columns[::2]), rows_of(builder, columns[1::2]), strict=True)
        orders = [[k // 2 + k % 2 * lanes for k in range(first, first + lanes)] for first in (0, lanes)]
        return [shuffled(builder, a, b, order) for a, b in pairs for order in orders]
    return [
        _gathered(builder, columns, [divmod(k, classes)[::-1] for k in range(first, first + lanes)])
        for first in range(0, classes * lanes, lanes)
    ]


def _of_tuples(rearranged: Any) -> Any:
    @intrinsic
    def function(typing_context: Any, vectors: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            result = rearranged(builder, cgutils.unpack_tuple(builder, args[0]))
            return context.make_tuple(builder, vectors, result)

        return vectors(vectors), generate

    return function


#: Of a tuple of vectors.
columns, rows = _of_tuples(columns_of), _of_tuples(rows_of)
