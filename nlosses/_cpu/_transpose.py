"""Matrices transposed block by block, in registers: element by element takes two to four times as long."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ._jit import inlined, jitable
from ._vector import shuffled

#: Bytes within which every vector unit shuffles at no extra cost.
LANE = 16
#: Sides of a block: a square, or half of one.
SIDE, HALF = 8, 4
#: Bytes of a row up to which the rows of a tile stay in the first-level cache while they are read in parts.
SHORT = 96

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


def columns(rows: Sequence[Any], lane: int, shuffled: Callable[[Any, Any, Mask], Any], squares: int = 1) -> list[Any]:
    """The columns of a square, from its rows by ``shuffled(a, b, mask)`` alone, but not in their order.

    Rows that are those of several `squares`, one after the other, make columns of the same kind.
    """
    rows = list(rows)
    side = len(rows)

    def of_all(mask: Mask) -> Mask:
        return tuple(k % side + side * (square + k // side * squares) for square in range(squares) for k in mask)

    for distance, low, high in _rounds(side, lane):
        for i in range(side):
            if not i & distance:
                a, b = rows[i], rows[i + distance]
                rows[i], rows[i + distance] = shuffled(a, b, of_all(low)), shuffled(a, b, of_all(high))
    return rows


def numbers(side: int, lane: int) -> list[int]:
    """Which column stands where in the result of `columns`."""
    rows = [tuple(range(side))] * side
    return [column[0] for column in columns(rows, lane, lambda a, b, mask: tuple((a + b)[k] for k in mask))]


def _block(height: int, width: int) -> Any:
    side = min(height, width)

    @intrinsic
    def block(typing_context: Any, source: Any, at: Any, step: Any, target: Any, to: Any, stride: Any) -> Any:
        """target[to + j * stride + i] = source[at + i * step + j] for all i below `height` and j below `width`."""
        bits = source.dtype.bitwidth
        lane = LANE * 8 // bits

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            read, at, step, written, to, stride = args
            number, shuffle = context.get_value_type(source.dtype), partial(shuffled, builder)

            def row(kind: Any, array: Any, first: Any, step: Any, i: int, length: int) -> Any:
                data = cgutils.create_struct_proxy(kind)(context, builder, array).data
                place = builder.gep(data, [builder.add(first, builder.mul(step, step.type(i)))])
                return builder.bitcast(place, ir.VectorType(number, length).as_pointer())

            rows = [builder.load(row(source, read, at, step, i, width), align=bits // 8) for i in range(height)]
            if height > side:  # one square below the other: beside each other
                rows = [shuffle(a, b, range(height)) for a, b in zip(rows[:side], rows[side:], strict=True)]
            found = dict(zip(numbers(side, lane), columns(rows, lane, shuffle, max(height, width) // side), strict=True))
            for j in range(width):
                column = found[j % side]
                if width > side:
                    column = shuffle(column, column, range(j // side * side, j // side * side + side))
                builder.store(column, row(target, written, to, stride, j, height), align=bits // 8)
            return context.get_dummy_value()

        return types.void(source, types.intp, types.intp, target, types.intp, types.intp), generate

    return block


def _into_tiles(block: Any) -> Callable[..., None]:
    def split(rows, p, c, classes, tiles, lanes):
        block(rows, p * classes + c, classes, tiles, c * lanes + p, lanes)

    return inlined(split)


def _into_rows(block: Any) -> Callable[..., None]:
    def join(rows, p, c, classes, tiles, lanes):
        block(tiles, c * lanes + p, lanes, rows, p * classes + c, classes)

    return inlined(join)


def _below_each_other(square: Callable[..., None], half: Callable[..., None]) -> Callable[..., None]:
    def blocks(rows, count, classes, tiles, lanes):
        """Blocks of positions below each other; where they do not fill the matrix, the last ones overlap with those before."""
        whole = classes - classes % SIDE
        first, stop = 0, count - count % SIDE
        while True:
            for c in range(0, whole, SIDE):
                for p in range(first, stop, SIDE):
                    square(rows, p, c, classes, tiles, lanes)
            for begin in range(whole, classes, HALF):
                c = min(begin, classes - HALF)
                for p in range(first, stop, SIDE):
                    half(rows, p, c, classes, tiles, lanes)
            if stop == count:
                break
            first, stop = count - SIDE, count

    return inlined(blocks)


_split_square, _split_half = _into_tiles(_block(SIDE, SIDE)), _into_tiles(_block(SIDE, HALF))
_join_square, _join_half = _into_rows(_block(SIDE, SIDE)), _into_rows(_block(HALF, SIDE))
_split_short, _join_all = _below_each_other(_split_square, _split_half), _below_each_other(_join_square, _join_half)


@inlined
def _split_long(rows, count, classes, tiles, lanes):
    """Blocks of a few rows side by side."""
    whole = classes - classes % SIDE
    for first in range(0, count, SIDE):
        p = min(first, count - SIDE)
        for c in range(0, whole, SIDE):
            _split_square(rows, p, c, classes, tiles, lanes)
        for begin in range(whole, classes, HALF):
            c = min(begin, classes - HALF)
            _split_half(rows, p, c, classes, tiles, lanes)


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
    elif (classes >= HALF) & (count >= SIDE):
        if classes * rows.itemsize <= SHORT:
            _split_short(rows, count, classes, tile.reshape(tile.size), lanes)
        else:
            _split_long(rows, count, classes, tile.reshape(tile.size), lanes)
    else:
        for j in range(classes):
            for p in range(count):
                tile[j, p] = rows[p * classes + j]


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
    elif (classes >= HALF) & (count >= SIDE):
        _join_all(rows, count, classes, tile.reshape(tile.size), lanes)
    else:
        for j in range(classes):
            for p in range(count):
                rows[p * classes + j] = tile[j, p]
