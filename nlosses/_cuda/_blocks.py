"""What the kernels share: operands that are broadcast without being copied, and sums that come out the same every time."""

from __future__ import annotations

import numpy as np

from .._scalar import maximum
from . import _scalar  # noqa: F401  gives the primitives their implementations
from ._backend import SIMULATED, WARP, cuda, device, load, load16

EVERY_LANE = (1 << WARP) - 1
#: Distances of the lanes that a sum over a warp is exchanged with: half a warp, a quarter, ..., 1.
DISTANCES = tuple(WARP >> k for k in range(1, WARP.bit_length()))

#: Blocks of a grid at the most: some times what a GPU holds at once, so that few of its processors wait for the last of them,
#: and the same for all GPUs, so that sums do not depend on which one it is.
GRID = 4096

# Where an operand's element for position i stands.
ABSENT, FULL, SINGLE, REPEATED = range(4)


def threads_of(wanted: int) -> int:
    """Threads of a block: two warps are all that the simulator has the time for."""
    return min(wanted, 2 * WARP) if SIMULATED else wanted


# Places in the array of results.
TOTAL, DENOMINATOR, BAD = range(3)
RESULTS = 4


@device
def stage(buffer, k, data, inner, period, kind, i, count):
    """Elements i to i + count of an operand to `buffer`, from k on."""
    for n in range(count):
        if kind == FULL:
            buffer[k + n] = load(data, i + n)
        elif kind == SINGLE:
            buffer[k + n] = load(data, 0)
        else:
            buffer[k + n] = load(data, (i + n) // inner % period)


@device
def stage16(buffer, k, data, inner, period, kind, i, width):
    """As `stage`, for the `width` elements of an aligned 16-byte access."""
    if kind == FULL:
        load16(buffer, k, data, i)
    else:
        stage(buffer, k, data, inner, period, kind, i, width)


# --- within a warp or a block --------------------------------------------------------------------------------------------


@device
def mask_of(thread, lanes):
    """The lanes of a warp that share a position with a thread, as bits: `lanes` of them, or the whole warp."""
    if lanes >= WARP:
        return EVERY_LANE
    return ((1 << lanes) - 1) << (thread % WARP // lanes * lanes)


@device
def lane_sum(x, lanes, mask):
    """Sum over the lanes of a warp that share a position, which all of them get."""
    for distance in DISTANCES:
        if distance < lanes:
            x += cuda.shfl_xor_sync(mask, x, distance)
    return x


@device
def lane_top(x, lanes, mask):
    for distance in DISTANCES:
        if distance < lanes:
            x = maximum(x, cuda.shfl_xor_sync(mask, x, distance))
    return x


@device
def block_sum(x, scratch, threads):
    """Sum over the threads of a block, which all of them get; `scratch` is a shared array with an element for each warp."""
    x = lane_sum(x, WARP, EVERY_LANE)
    thread = cuda.threadIdx.x
    cuda.syncthreads()  # nobody reads the last sum any more
    if thread % WARP == 0:
        scratch[thread // WARP] = x
    cuda.syncthreads()
    total = scratch[0]
    for k in range(1, threads // WARP):
        total += scratch[k]
    return total


@device
def block_top(x, scratch, threads):
    """As `block_sum`, the largest."""
    x = lane_top(x, WARP, EVERY_LANE)
    thread = cuda.threadIdx.x
    cuda.syncthreads()
    if thread % WARP == 0:
        scratch[thread // WARP] = x
    cuda.syncthreads()
    top = scratch[0]
    for k in range(1, threads // WARP):
        top = maximum(top, scratch[k])
    return top


# --- over the grid -------------------------------------------------------------------------------------------------------


@device
def finish(total, bad, place, scratch, last, threads, partial, counter, results, seen):
    """Sum `total` over all threads of the grid into ``results[place]`` and ``seen[place]``, and `bad` into ``seen[BAD]``.

    Every block leaves its part; the one that is last adds them up, in the order of the blocks, whichever it is. The counter
    is back at 0 then.
    """
    thread = cuda.threadIdx.x
    block = cuda.blockIdx.x
    blocks = cuda.gridDim.x
    total = block_sum(total, scratch, threads)
    bad = block_sum(bad, scratch, threads)
    if thread == 0:
        partial[block] = total
        partial[blocks + block] = bad
        cuda.threadfence()
        last[0] = np.int64(cuda.atomic.inc(counter, 0, blocks - 1)) == blocks - 1
    cuda.syncthreads()
    if last[0]:
        cuda.threadfence()
        total = 0.0
        bad = 0.0
        for k in range(thread, blocks, threads):
            total += cuda.atomic.add(partial, k, 0.0)  # from where the other blocks wrote it, not from a stale cache
            bad += cuda.atomic.add(partial, blocks + k, 0.0)
        total = block_sum(total, scratch, threads)
        bad = block_sum(bad, scratch, threads)
        if thread == 0:
            results[place] = total  # for kernels to come
            seen[place] = total  # for the host
            seen[BAD] = bad
