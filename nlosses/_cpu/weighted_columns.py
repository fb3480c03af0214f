"""As `columns`, but for classes that have weights, for gradients upstream, and for the losses of all positions: each of these
has a logarithm of its own.
"""

from __future__ import annotations

from . import _vector
from ._blocks import compensated, rounder_of, stack_buffer
from ._jit import inlined
from ._scalar import log1p_all
from ._vector import indices, load_part, load_short, permuted, pointer, short_lanes_of, store_part, where_other, widened
from .columns import FINISH, block_of, per_block  # noqa: F401  a driver has what to make of the sums
from .labels import factors, fits

#: Up to this many bytes of classes it is quicker than as rows lie.
MOST = 48


@inlined
def begun(like):
    return 0


@inlined
def added(state, product, ratios, logs, size, positions, weights, values, total, error):
    """The running sums with the losses of a group, which go to `values` too if there is room."""
    ys, p, first, count, ignored = positions
    step = short_lanes_of(logs)
    log1p_all(ratios, size)
    zero = _vector.filled_short(logs, 0.0)
    group = widened(zero)
    for q in range(0, size, step):
        label = indices(ys, p + q, zero)
        rest, w = where_other(label, ignored, load_short(ratios, q), zero), of_labels(weights, label)
        group = group + widened(rest) * widened(w)  # the product may be too small for the caller's precision
        if values.size > 0:
            store_part(pointer(values), first + q, min(step, max(0, count - q)), rest * w)
    total, error = compensated(total, error, _vector.total(group))
    return state, total, error


@inlined
def ended(state, logs, total, error):
    return total, error


@inlined
def of_classes(weight, scale, like):
    """The weights and the factors of the classes in vectors, whether these fit, and whether those do."""
    T, classes = like.dtype.type, weight.size
    slopes = stack_buffer(like.dtype)
    fit = modest = True
    for c in range(classes):
        slopes[c] = T(scale * weight[c])
        fit &= fits(scale * weight[c])
        modest &= fits(weight[c])
    for c in range(classes, short_lanes_of(like)):
        slopes[c] = T(0)
    rounder = rounder_of(like)
    return (load_part(pointer(weight), 0, classes), rounder), (load_short(slopes, 0), rounder), fit, modest


@inlined
def of_labels(numbers, label):
    """From a vector, and what leaves a label in the low bits, the lanes that the labels name: any of one that is ignored."""
    return permuted(numbers[0], label + numbers[1])


@inlined
def of_group(slopes, fit, upstream, positions, size, ks):
    """The factors of a group, and whether they fit."""
    ys, p, first, count, _ = positions
    zero = _vector.filled_short(ks, 0.0)
    for q in range(0, size, short_lanes_of(ks)):
        _vector.store(ks, q, of_labels(slopes, indices(ys, p + q, zero)))
    beyond = 0
    if upstream.size > 0:
        for i in range(count):
            ks[i] *= upstream[first + i]
            beyond |= not fits(ks[i])
    return pointer(ks), fit & (beyond == 0)


@inlined
def carefully(ys, ignored, weight, scale, upstream, first, of_class, w, k):
    factors(ys, ignored, weight, True, scale, upstream, first, of_class, w, k)
    return False


block = block_of(__name__, begun, added, ended, of_classes, of_group, carefully)
