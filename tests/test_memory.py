"""Memory of large results: it serves later ones when, and only when, nobody can see the earlier ones any more."""

from __future__ import annotations

import gc
import os
import sys
import threading
import weakref

import numpy as np
import pytest
from cases import SHAPES, option_sets, sample

import nlosses as nl
from nlosses import _memory

marks = pytest.mark.skipif(_memory._FREE == -1, reason="this system cannot mark memory as free")
marked = pytest.mark.parametrize("way", [pytest.param("marked", marks=marks)], indirect=True)

N = 250_000  # of float64: one mapping of 2 MiB


@pytest.fixture(autouse=True, params=["held", pytest.param("marked", marks=marks)])
def way(request, monkeypatch):
    """Memory that is kept from the first byte on, in one of two ways; those that were kept before are gone."""
    monkeypatch.setattr(_memory, "HELD", 1)
    monkeypatch.setattr(_memory, "LARGE", 1 if request.param == "marked" else sys.maxsize)
    nl.release_memory()
    yield request.param
    nl.release_memory()


def address(array):
    return array.__array_interface__["data"][0]


def new(n=N, dtype=np.float64):
    return _memory.empty((n,), np.dtype(dtype))


def test_a_result_takes_the_place_of_one_that_nobody_has():
    first = new()
    first[:] = 1
    place = address(first)
    del first
    assert address(new()) == place


def test_what_was_used_last_serves_first():
    first, last = new(), new()
    place = address(last)
    del first, last
    for _ in range(5):
        assert address(new()) == place


@pytest.mark.parametrize(
    "use",
    [
        lambda a: a,
        lambda a: a[5:],
        lambda a: a.reshape(2, -1).T[3:][::-1],
        lambda a: a.view(np.uint8)[1:3],
        lambda a: memoryview(a)[7:],
        lambda a: np.frombuffer(memoryview(a)),
        lambda a: a.view(np.recarray),
        lambda a: np.broadcast_to(a, (3, N)),
        lambda a: np.lib.stride_tricks.sliding_window_view(a, 4),
        lambda a: iter(a),
        lambda a: np.from_dlpack(a),
        lambda a: {"cycle": [a]},
        lambda a: a.base,
        lambda a: memoryview(a.base),
        lambda a: np.frombuffer(a.base, np.uint8)[3:],
    ],
)
def test_no_result_takes_the_place_of_one_that_is_seen(use, way):
    first = new()
    place = address(first)
    seen = use(first)
    del first
    gc.collect()
    others = [new() for _ in range(3 if way == "held" else 6)]  # more would have it held no longer
    assert place not in map(address, others)
    del seen
    assert address(new()) == place


def test_a_cycle_keeps_its_memory_until_it_is_collected():
    first = new()
    place, ring = address(first), [first]
    ring.append(ring)
    del first, ring
    assert address(new()) != place
    gc.collect()
    assert place in (address(a) for a in [new(), new()])


@marked
def test_what_is_taken_is_large_enough_and_not_much_too_large():
    sizes = [1, 250_000, 500_000, 520_000, 1_000_000, 1_200_000, 2_000_000]
    for size in sizes:
        array = new(size)
        array[:] = size
        del array
        for other in sizes:
            before = list(_memory._kept)
            taken = new(other)
            for used in set(before) - set(_memory._kept):
                assert taken.nbytes <= len(used) <= taken.nbytes * 5 // 4
            taken[:] = other
            del taken


@pytest.mark.parametrize("way", ["held"], indirect=True)
def test_a_block_serves_what_fits_in_it(way):
    array = new()
    place = address(array)
    del array
    assert address(new(N // 5)) != place
    assert address(new(N + 20)) != place
    assert address(new(4 * N // 5 + 1)) == place


@pytest.mark.parametrize("way", ["held"], indirect=True)
def test_no_more_than_four_blocks_are_held(way):
    arrays = [new() for _ in range(9)]
    places = [address(a) for a in arrays]
    assert len(_memory._held) == 4
    del arrays
    later = [new() for _ in range(6)]
    assert {address(a) for a in later[:4]} == set(places[5:])
    blocks = [weakref.ref(block) for block, _ in _memory._held]
    del later
    assert len(_memory._held) == 4
    nl.release_memory()
    assert not any(block() is not None for block in blocks)


@pytest.mark.parametrize("way", ["held"], indirect=True)
def test_two_results_at_a_time_cost_no_pages(way, monkeypatch):
    """Where malloc gives all back, as it does in a process that has had nothing larger."""
    resource = pytest.importorskip("resource")
    monkeypatch.undo()
    x, t = np.zeros((2, 250_000), np.float32)

    def pages():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(50):
            nl.mse_loss.value_and_grad(x, t, reduction="none")
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    pages()
    assert pages() < 50


@marked
def test_no_more_than_four_are_kept():
    arrays = [new() for _ in range(9)]
    places = {address(a) for a in arrays}
    del arrays
    assert len(_memory._kept) == 4
    later = [new() for _ in range(4)]
    assert {address(a) for a in later} <= places
    assert not _memory._kept
    del later
    nl.release_memory()
    assert not _memory._kept


@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_are_as_numpy_makes_them(order, dtype):
    a, b = _memory.empty((3, 4, 5), np.dtype(dtype), order), np.empty((3, 4, 5), dtype, order)
    assert (type(a), a.shape, a.dtype, a.strides) == (type(b), b.shape, b.dtype, b.strides)
    assert a.flags.writeable
    assert a.flags.aligned
    assert address(a) % 64 == 0


def test_results_are_the_same_in_memory_of_others(loss, dtype, rng, monkeypatch):
    """Every element of a result is written, whatever was there before."""
    for shape in SHAPES[loss.spec.family]:
        x, t = sample(loss, shape, dtype, rng)
        for options in option_sets(loss, shape, rng):
            for reduction in ("sum", "none"):
                given = {**options, "reduction": reduction}
                given["grad_output"] = np.full(t.shape, 2.0) if reduction == "none" else 2.0
                with monkeypatch.context() as patch:
                    patch.setattr(_memory, "HELD", sys.maxsize)
                    patch.setattr(_memory, "LARGE", sys.maxsize)
                    expected = loss.value_and_grad(x, t, **given)
                for _ in range(3):
                    for found, right in zip(loss.value_and_grad(x, t, **given), expected, strict=True):
                        np.testing.assert_array_equal(found, right)
                        if np.ndim(found):
                            found[...] = np.nan
                    del found


def test_small_results_are_numpys_own(monkeypatch):
    monkeypatch.undo()
    grad = nl.mse_loss.grad(np.zeros(1000), np.ones(1000))
    assert grad.flags.owndata


def test_large_gradients_are_kept(way, monkeypatch):
    monkeypatch.undo()
    x = np.zeros((_memory.LARGE if way == "marked" else _memory.HELD) // 4, np.float32)
    grad = nl.mse_loss.grad(x, x)
    place = address(grad)
    following = nl.mse_loss.grad(x, x)
    assert address(following) != place
    del grad
    assert address(nl.mse_loss.grad(x, x)) == place


def test_threads_never_have_the_same_memory():
    wrong = []

    def work(mark):
        for k in range(40):
            arrays = [new(), new()]
            for i, a in enumerate(arrays):
                a[:] = mark + i / 2 + k
            for i, a in enumerate(arrays):
                if not (a == mark + i / 2 + k).all():
                    wrong.append((mark, k))

    threads = [threading.Thread(target=work, args=(1000 * k,)) for k in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(_memory._kept) <= 4
    assert len(_memory._held) <= 4


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_child_writes_to_memory_of_its_own():
    mine = new()
    mine[:] = 1
    left = new()
    left[:] = 2
    place = address(left)
    del left
    child = os.fork()
    if not child:  # pragma: no cover  another process
        theirs = new()
        mine[:] = theirs[:] = 3
        os._exit(0 if address(theirs) == place else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert (mine == 1).all()
    assert (new() != 3).all()


@marked
@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_the_system_may_take_what_is_kept():
    def lazily_free():
        with open("/proc/self/smaps_rollup") as lines:
            return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("LazyFree"))

    before, array = lazily_free(), new(8_000_000)
    array[:] = 1
    assert lazily_free() - before < array.nbytes // 2
    del array
    assert lazily_free() - before >= 60_000_000
    new(8_000_000)[:] = 2
    nl.release_memory()
    assert lazily_free() - before < 1_000_000


@marked
def test_those_that_do_not_fit_keep_their_order():
    places = []
    arrays = [new(n) for n in (250_000, 500_000, 1_000_000, 2_000_000)]
    for _ in range(4):
        places.append(address(arrays[0]))
        del arrays[0]
    sizes = [len(mapping) for mapping in _memory._kept]
    assert sizes == sorted(sizes)
    assert address(new(500_000)) == places[1]
    assert [len(mapping) for mapping in _memory._kept] == [*sizes[:1], *sizes[2:], sizes[1]]


@marked
def test_what_is_kept_makes_room_for_what_is_needed(monkeypatch):
    kept = new()
    del kept
    made = _memory.mmap.mmap

    def full_while_anything_is_kept(*args, **kwargs):
        if _memory._kept:
            raise OSError(12, "Cannot allocate memory")
        return made(*args, **kwargs)

    monkeypatch.setattr(_memory.mmap, "mmap", full_while_anything_is_kept)
    larger = new(1_000_000)
    assert not larger.flags.owndata
    assert not _memory._kept


@marked
def test_where_nothing_can_be_mapped_numpy_says_so(monkeypatch):
    def refused(*args, **kwargs):
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(_memory.mmap, "mmap", refused)
    assert new().flags.owndata
    with pytest.raises(MemoryError):
        new(1 << 58)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="array is too big"):
        new(1 << 62)
