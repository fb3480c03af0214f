"""Results so large that they go past the caches have the bits of small ones, and nothing beside them is written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from cases import sample

import nlosses as nl
from nlosses._cpu._blocks import CHUNK
from nlosses._cpu._streams import IMAGES, ROWS, VALUES

#: Bytes before and after a result: whole cache lines.
BESIDE = 192
#: Rows that are a whole number of groups in every driver.
GROUPS = 2048
#: Elements in no whole number of vectors; images whose classes begin at different places in their lines, and rows of many
#: classes and of few.
SHAPES = {
    "elementwise": [(13, 171_111), (7, 950_007)],
    "classwise": [(7, 21, 123, 121), (5, 3, 380, 371), (6351, 1001), (210_000, 10)],
}
#: The same of logits, whose rows flow when they are more.
LOGITS = [(700_001, 9), (2_100_011, 3)]


@contextmanager
def guarded(like: np.ndarray, shift: int) -> Iterator[np.ndarray]:
    """An array like another that begins so many bytes after a cache line does; beside it nothing may be written."""
    memory = np.full(like.nbytes + 2 * BESIDE + 64 + shift, 7, np.uint8)
    first = -memory.ctypes.data % 64 + BESIDE + shift
    stop = first + like.nbytes
    yield memory[first:stop].view(like.dtype).reshape(like.shape)
    assert (memory[:first] == 7).all()
    assert (memory[stop:] == 7).all()


@pytest.mark.parametrize("shift", [0, 16, 36])
def test_large_results_have_the_bits_of_small_ones(loss, dtype, shift, rng):
    logits = loss.spec.family == "classwise" and not loss.spec.log_probabilities
    for shape in SHAPES[loss.spec.family] + LOGITS * logits:
        x, t = sample(loss, shape, dtype, rng)
        least = ROWS if x.nbytes >= ROWS and len(shape) == 2 else IMAGES
        assert x.nbytes >= least
        pieces = [slice(i, i + len(x) // 7 + 1) for i in range(0, len(x), len(x) // 7 + 1)]
        assert x[pieces[0]].nbytes < least
        expected = [loss.value_and_grad(x[piece], t[piece], reduction="sum") for piece in pieces]
        with guarded(x, shift // x.itemsize * x.itemsize) as out:
            value, grad = loss.value_and_grad(x, t, reduction="sum", out=out)
        assert grad is out
        np.testing.assert_array_equal(out, np.concatenate([g for _, g in expected]), str(shape))
        assert value == pytest.approx(sum(v for v, _ in expected), rel=float(4 * np.finfo(dtype).eps))
        np.testing.assert_array_equal(loss.value_and_grad(x, t, reduction="sum")[1], out)
        if not (loss.spec.log_probabilities and loss.spec.family == "classwise"):
            same = x.copy()
            np.testing.assert_array_equal(loss.value_and_grad(same, t, reduction="sum", out=same)[1], out)


@pytest.mark.parametrize("rest", [5, 3 * CHUNK + 5])
@pytest.mark.parametrize("binary", [False, True])
def test_inputs_that_are_large_among_those_that_flow(binary, rest, dtype, rng):
    """Chunks that are worked on in another way, beside those whose results wait for the next vector, and short ones."""
    n = ROWS // np.dtype(dtype).itemsize + rest
    t = rng.random(n).astype(dtype)
    t = (t > 0.5).astype(dtype) if binary else t
    for loss in (nl.binary_cross_entropy_with_logits, nl.mse_loss, nl.kl_div):
        x = rng.normal(size=n).astype(dtype)
        x[rng.integers(0, n, 200)] = np.inf if loss is nl.mse_loss else 1000
        x[:: n - 1] = x[CHUNK * 8] = x[CHUNK * 16 - 1] = x[-6] = np.nan if loss is nl.kl_div else -1000
        pieces = [slice(i, i + 2**20) for i in range(0, n, 2**20)]
        expected = np.concatenate([loss.value_and_grad(x[i], t[i], reduction="sum")[1] for i in pieces])
        value = loss(x, t)
        for shift in range(0, 64, np.dtype(dtype).itemsize * 3):
            with guarded(x, shift) as out:
                assert loss.value_and_grad(x, t, reduction="sum", out=out)[1] is out
                np.testing.assert_array_equal(out, expected)
                np.testing.assert_array_equal(loss.value_and_grad(x, t, out=out)[0], value)


@pytest.mark.parametrize("name", [name for name, loss in nl.LOSSES.items() if loss.spec.family == "elementwise"])
@pytest.mark.parametrize("given", ["nothing", "out", "input"])
def test_values_and_derivatives_that_flow(name, given, dtype, rng):
    """Neither is reduced; weights and upstream gradients have each element's own number, or one for a run, or for a column."""
    loss = nl.LOSSES[name]
    n, columns = VALUES // np.dtype(dtype).itemsize // 15 + 300, 15
    x, t = sample(loss, (n, columns), dtype, rng)
    full, row, column = (rng.random(shape).astype(dtype) for shape in ((n, columns), (columns,), (n, 1)))
    full[:40] = 0
    if loss.spec.mean_of_weights:  # where they are not broadcast
        row, column = (np.ascontiguousarray(np.broadcast_to(number, x.shape)) for number in (row, column))
    weighted = "weight" in loss.spec.options
    pieces = [slice(i, i + n // 3 + 1) for i in range(0, n, n // 3 + 1)]

    def part(number, piece):
        return number[piece] if number is not None and len(number) == n else number

    for weight, upstream in ((None, None), (full, None), (row, column), (column, full), (None, row)):
        weight = weight if weighted else None
        expected = []
        for piece in pieces:
            options = {"reduction": "none", "weight": part(weight, piece)} if weight is not None else {"reduction": "none"}
            up = None if upstream is None else np.broadcast_to(part(upstream, piece), x[piece].shape)
            expected.append(loss.value_and_grad(x[piece], t[piece], grad_output=up, **options))
        values, grads = (np.concatenate(found) for found in zip(*expected, strict=True))
        options = {"reduction": "none"} | ({} if weight is None else {"weight": weight})
        up = None if upstream is None else np.broadcast_to(upstream, x.shape)
        if given == "nothing":
            value, grad = loss.value_and_grad(x, t, grad_output=up, **options)
            np.testing.assert_array_equal(loss(x, t, **options), values)
        else:
            with guarded(x, 16 + x.itemsize) as out:
                out[...] = x
                value, grad = loss.value_and_grad(out if given == "input" else x, t, grad_output=up, out=out, **options)
            assert grad is out
        np.testing.assert_array_equal(value, values)
        np.testing.assert_array_equal(grad, grads)


@pytest.mark.parametrize("function", [nl.binary_cross_entropy_with_logits, nl.l1_loss])
def test_results_of_elements_that_are_not_aligned(function, rng):
    x, t = rng.normal(size=(2, ROWS // 4 + 5)).astype(np.float32)
    with guarded(x, 1) as out:
        assert not out.flags.aligned
        assert function.value_and_grad(x, t, out=out)[1] is out
    np.testing.assert_array_equal(out, function.value_and_grad(x, t)[1])


@pytest.mark.parametrize("shape", [(3_500_000, 2), (400, 20_000), (7, 21, 123, 121)])
@pytest.mark.parametrize("weighted", [False, True])
def test_results_that_are_not_aligned(shape, weighted, rng):
    """Elements that lie across lines cannot go past the caches."""
    x = rng.normal(size=shape).astype(np.float32)
    t = rng.integers(0, shape[1], shape[:1] + shape[2:])
    weight = np.ones(shape[1]) if weighted else None
    with guarded(x, 1) as out:
        assert not out.flags.aligned
        value, grad = nl.cross_entropy.value_and_grad(x, t, weight=weight, out=out)
    assert grad is out
    expected, same = nl.cross_entropy.value_and_grad(x, t, weight=weight)
    np.testing.assert_array_equal(out, same)
    assert value == expected


@pytest.mark.parametrize("classes", [2, 11, 200, 1000, 16_384, 65_000, 130_000])
def test_rows_that_are_ignored_or_large_among_those_that_flow(classes, rng):
    """Lines that two rows share, where one of them is written in another way or not at all."""
    n = ROWS // 4 // classes + 300
    x = rng.normal(size=(n, classes)).astype(np.float32)
    x[rng.integers(0, n, min(n // 20, 500))] *= 100  # beyond what is moderate
    t = rng.integers(0, classes, n)
    t[rng.random(n) < 0.1] = -100
    t[[0, 1, n - 2, n - 1]] = -100, 1, classes - 1, -100
    length = n // 5 + 1
    if classes <= 200:  # large logits in a group of rows make others less moderate: groups stay together
        length += -length % GROUPS
    pieces = [slice(i, i + length) for i in range(0, n, length)]
    expected = [nl.cross_entropy.value_and_grad(x[piece], t[piece], reduction="sum") for piece in pieces]
    for shift in range(16):  # in the first line, and to where the same place of a page is read
        with guarded(x, 62 * 4 * shift) as out:
            value, _ = nl.cross_entropy.value_and_grad(x, t, reduction="sum", out=out)
        np.testing.assert_array_equal(out, np.concatenate([g for _, g in expected]))
        assert value == pytest.approx(sum(v for v, _ in expected), rel=1e-6)


@pytest.mark.parametrize("classes", [128, 1001])
def test_class_probabilities_in_rows_that_flow(classes, dtype, rng):
    """Rows whose first class, last class or another is far above all others, or large; results begin anywhere in a line."""
    itemsize = np.dtype(dtype).itemsize
    n = ROWS // itemsize // classes + 300
    x = rng.normal(size=(n, classes)).astype(dtype)
    peaks = rng.integers(0, classes, n)
    peaks[:40] = np.arange(40) % 20 - 10  # in the lines that are not whole
    x[np.arange(n), peaks] += rng.choice([0, 10, 30], n)
    x[rng.integers(0, n, n // 20)] *= 100  # beyond what is moderate
    t = rng.dirichlet(np.ones(classes), n).astype(dtype)
    pieces = [slice(i, i + n // 5 + 1) for i in range(0, n, n // 5 + 1)]
    expected = [nl.cross_entropy.value_and_grad(x[piece], t[piece], reduction="sum") for piece in pieces]
    for shift in range(0, 64, itemsize):
        with guarded(x, shift) as out:
            value, _ = nl.cross_entropy.value_and_grad(x, t, reduction="sum", out=out)
        np.testing.assert_array_equal(out, np.concatenate([g for _, g in expected]))
        assert value == pytest.approx(sum(v for v, _ in expected), rel=float(8 * np.finfo(dtype).eps))
    nl.cross_entropy.value_and_grad(x, t, reduction="sum", out=x)
    np.testing.assert_array_equal(x, out)


@pytest.mark.parametrize("ignored", [-100, 2])
@pytest.mark.parametrize("image", [(7, 9), (16, 32), (24, 25), (64, 65)])
def test_log_probabilities_of_images_that_flow(image, ignored, dtype, rng):
    """Runs that are a whole image or a part of one, and leave the end of a line to the next run or to none."""
    size = np.dtype(dtype).itemsize
    x = rng.normal(size=(IMAGES // size // 5 // np.prod(image) + 3, 5, *image)).astype(dtype)
    t = rng.integers(0, 5, (len(x), *image))
    t[rng.random(t.shape) < 0.1] = ignored
    weight = rng.random(5).astype(dtype)
    expected = np.zeros_like(x)
    kept, label = t != ignored, np.maximum(t, 0)
    np.put_along_axis(expected, label[:, None], np.where(kept, -weight[label], 0)[:, None], 1)
    for shift in range(0, 64, size):
        with guarded(x, shift) as out:
            nl.nll_loss.value_and_grad(x, t, weight=weight, ignore_index=ignored, reduction="sum", out=out)
        np.testing.assert_array_equal(out, expected)
