"""Matrices transposed square by square, in registers: element by element takes two to four times as long."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ._jit import inlined, jitable

#: Bytes within which every vector unit shuffles at no extra cost.
LANE = 16

Mask = tuple[int, ...]


def _rounds(side: int, lane: int) -> list[tuple[int, Mask, Mask]]:
    """How to transpose a square whose rows are vectors: in each round, the distance between the two rows of a pair, and
    which elements of the two, counted through, take the place of the first and of the second.

    A round interleaves pieces of the two, which are twice as long the next time; inside of lanes, as far as they fit.
    """
    result = []
    piece = 1
    while piece < side:
        width = max(lane, 2 * piece)
        low: list[int] = []
        for start in range(0, side, width):
            for k in range(start, start + width // 2, piece):
                low += [*range(k, k + piece), *range(side + k, side + k + piece)]
        result.append((piece, tuple(low), tuple(k + width // 2 for k in low)))
        piece *= 2
    return result


def columns(rows: list[Any], lane: int, shuffled: Callable[[Any, Any, Mask], Any]) -> list[Any]:
    """The columns of a square, from its rows by ``shuffled(a, b, mask)`` alone, but not in their order."""
    rows = list(rows)
    for distance, low, high in _rounds(len(rows), lane):
        for i in range(len(rows)):
            if not i & distance:
                a, b = rows[i], rows[i + distance]
                rows[i], rows[i + distance] = shuffled(a, b, low), shuffled(a, b, high)
    return rows


def numbers(side: int, lane: int) -> list[int]:
    """Which column stands where in the result of `columns`."""
    rows = [tuple(range(side))] * side
    return [column[0] for column in columns(rows, lane, lambda a, b, mask: tuple((a + b)[k] for k in mask))]


def _square(side: int) -> Any:
    @intrinsic
    def square(typing_context: Any, source: Any, at: Any, step: Any, target: Any, to: Any, stride: Any) -> Any:
        """target[to + j * stride + i] = source[at + i * step + j] for all i and j below `side`."""
        bits = source.dtype.bitwidth
        lane = LANE * 8 // bits

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            read, at, step, written, to, stride = args
            vector = ir.VectorType(context.get_value_type(source.dtype), side)
            mask_type = ir.VectorType(ir.IntType(32), side)

            def row(array_type: Any, array: Any, first: Any, step: Any, i: int) -> Any:
                data = cgutils.create_struct_proxy(array_type)(context, builder, array).data
                place = builder.gep(data, [builder.add(first, builder.mul(step, step.type(i)))])
                return builder.bitcast(place, vector.as_pointer())

            def shuffled(a: Any, b: Any, mask: Mask) -> Any:
                return builder.shuffle_vector(a, b, ir.Constant(mask_type, mask))

            rows = [builder.load(row(source, read, at, step, i), align=bits // 8) for i in range(side)]
            for j, column in zip(numbers(side, lane), columns(rows, lane, shuffled), strict=True):
                builder.store(column, row(target, written, to, stride, j), align=bits // 8)
            return context.get_dummy_value()

        return types.void(source, types.intp, types.intp, target, types.intp, types.intp), generate

    return square


def _squares(side: int) -> Callable[..., None]:
    square = _square(side)

    def squares(source, height, width, step, target, stride):
        """target[j * stride + i] = source[i * step + j] for i below `height` and j below `width`, none of them below `side`.

        At its ends squares overlap.
        """
        for place in range(0, height, side):
            i = min(place, height - side)
            for corner in range(0, width, side):
                j = min(corner, width - side)
                square(source, i * step + j, step, target, j * stride + i, stride)

    return inlined(squares)


_eights, _fours = _squares(8), _squares(4)


@jitable
def _transpose(source, height, width, step, target, stride):
    """target[j * stride + i] = source[i * step + j] for i below `height` and j below `width`."""
    least = min(height, width)
    if least >= 8:
        _eights(source, height, width, step, target, stride)
    elif least >= 4:
        _fours(source, height, width, step, target, stride)
    else:
        for j in range(width):
            for i in range(height):
                target[j * stride + i] = source[i * step + j]


@jitable
def split(tile, rows, count):
    """tile[c, p] = element c of row p, for the first `count` lanes of a tile; `rows` is flat, and no part of the tile."""
    classes, lanes = tile.shape
    if classes == 2:  # loops of constant steps are shuffles too
        a, b = tile[0], tile[1]
        for p in range(count):
            a[p] = rows[2 * p]
            b[p] = rows[2 * p + 1]
    elif classes == 3:
        a, b, c = tile[0], tile[1], tile[2]
        for p in range(count):
            a[p] = rows[3 * p]
            b[p] = rows[3 * p + 1]
            c[p] = rows[3 * p + 2]
    else:
        _transpose(rows, count, classes, classes, tile.reshape(tile.size), lanes)


@jitable
def join(tile, rows, count):
    """The inverse of `split`."""
    classes, lanes = tile.shape
    if classes == 2:
        a, b = tile[0], tile[1]
        for p in range(count):
            rows[2 * p] = a[p]
            rows[2 * p + 1] = b[p]
    elif classes == 3:
        a, b, c = tile[0], tile[1], tile[2]
        for p in range(count):
            rows[3 * p] = a[p]
            rows[3 * p + 1] = b[p]
            rows[3 * p + 2] = c[p]
    else:
        _transpose(tile.reshape(tile.size), classes, count, lanes, rows, classes)
