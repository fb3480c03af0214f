"""The parallel loop that all kernels share: which blocks it has done, and what comes of a failure."""

import ctypes

import numba
import pytest

from nlosses._cpu import _shares

#: What a thread calls, with the arguments that a kernel has packed and with its share, for a status.
CALL = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.POINTER(ctypes.c_int64))
WORD = ctypes.c_int64
LAUNCH = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.POINTER(ctypes.c_double), ctypes.POINTER(ctypes.c_void_p), WORD, WORD, WORD)


def launched(work, n_blocks):
    """Status and result of a launch of `work`, a function of the first and last block and the array of results."""

    def call(packed, share):
        first, last, room = share[0], share[1], share[2]
        return work(first, last, (ctypes.c_double * n_blocks).from_address(room))

    result, error, callback = ctypes.c_double(), ctypes.c_void_p(), CALL(call)
    address = ctypes.cast(callback, ctypes.c_void_p).value
    status = LAUNCH(_shares.launcher())(ctypes.byref(result), ctypes.byref(error), address, 0, n_blocks)
    return status, result.value


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("n_blocks", [1, 2, 3, 7, 1000])
def test_each_block_is_done_once(n_blocks, threads):
    done = []

    def work(first, last, results):
        done.append((first, last))
        for b in range(first, last):
            results[b] = b
        return 0

    most = numba.get_num_threads()
    numba.set_num_threads(min(threads, most))
    try:
        status, total = launched(work, n_blocks)
    finally:
        numba.set_num_threads(most)
    assert status == 0
    assert total == n_blocks * (n_blocks - 1) / 2
    assert sorted(b for first, last in done for b in range(first, last)) == list(range(n_blocks))
    assert len(done) <= threads


def test_a_failure_is_an_error():
    def work(first, last, results):
        return int(first == 0)

    assert launched(work, 10)[0] != 0
