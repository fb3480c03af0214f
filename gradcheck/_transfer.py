"""The check of a gradient."""
from ._verdict import Result, Verdict


def check_transfer(reference, candidate, x, *, seed=0, **options):
    """Placeholder that the engine replaces."""
    return Result("check", Verdict.PASS, seed=seed, resolution=1e-9, resolution_entry=1e-8, evaluations=10)
