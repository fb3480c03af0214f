"""What a fresh process does: `python -m benchmarks._child first NAME` or `memory NAME`; prints JSON.

Only the standard library and NumPy are imported before the clock starts.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

#: Of 64 MB of single precision: so large that it is given back to the system when it is freed.
SHAPES = {"elementwise": (16_000_000,), "classwise": (16_000, 1_000)}
QUICK_SHAPES = {"elementwise": (10_000_000,), "classwise": (10_000, 1_000)}


def nlosses() -> Callable[..., Any]:
    import nlosses as nl

    return nl.cross_entropy.value_and_grad


def torch_eager() -> Callable[..., Any]:
    import torch

    def both(x: Any, t: Any) -> tuple[Any, Any]:
        leaf = torch.from_numpy(x).requires_grad_()
        value = torch.nn.functional.cross_entropy(leaf, torch.from_numpy(t))
        value.backward()
        return value, leaf.grad

    return both


def torch_compile() -> Callable[..., Any]:
    import torch

    compiled = torch.compile(torch.func.grad_and_value(torch.nn.functional.cross_entropy))
    return lambda x, t: compiled(torch.from_numpy(x), torch.from_numpy(t))


def jax() -> Callable[..., Any]:
    import jax
    import optax

    def loss(x: Any, t: Any) -> Any:
        return optax.softmax_cross_entropy_with_integer_labels(x, t).mean()

    compiled = jax.jit(jax.value_and_grad(loss))
    return lambda x, t: jax.block_until_ready(compiled(x, t))


FIRST = {"nlosses": nlosses, "torch eager": torch_eager, "torch.compile": torch_compile, "jax": jax}


def first(name: str) -> dict[str, float]:
    """Seconds of the import and of the first gradient: cross entropy of a small batch, in single precision."""
    x, t = np.zeros((32, 10), np.float32), np.arange(32) % 10
    began = time.perf_counter()
    value_and_grad = FIRST[name]()
    imported = time.perf_counter()
    value_and_grad(x, t)
    return {"import": imported - began, "first": time.perf_counter() - imported}


def memory(peer: str, quick: bool) -> dict[str, dict[str, float]]:
    """What each loss' second call needs beyond what was there before, its result included, in sizes of the gradient.

    The most memory that the process had during the call, as Linux counts it; the first call compiles and fills caches.  A
    quick run compiles nothing with torch, which would take most of the time.
    """
    import nlosses as nl

    from . import _contenders
    from ._cases import Case

    contender = _contenders.Own(threads()) if peer == "nlosses" else _contenders.PEERS[peer](threads())
    found: dict[str, dict[str, float]] = {}
    for loss in nl.LOSSES:
        shape = (QUICK_SHAPES if quick else SHAPES)[nl.LOSSES[loss].spec.family]
        problem = Case(loss, shape).problem()
        for name, call in contender.calls(problem).items():
            if quick and name == "torch.compile":
                continue
            call()
            gc.collect()
            nl.release_memory()  # of results that are gone, which the next one would take
            Path("/proc/self/clear_refs").write_text("5")  # the peak is what there is now
            before = status("VmRSS")
            result = call()
            found.setdefault(loss, {})[name] = (status("VmHWM") - before) / problem.x.nbytes
            del result
    return found


def threads() -> int:
    """As many as the process has been given."""
    import numba

    return int(numba.get_num_threads())


def status(name: str) -> int:
    """A number of bytes of this process, from the system."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return 1024 * int(line.split()[1])


if __name__ == "__main__":
    print(json.dumps(first(sys.argv[2]) if sys.argv[1] == "first" else memory(sys.argv[2], sys.argv[3:] == ["--quick"])))
