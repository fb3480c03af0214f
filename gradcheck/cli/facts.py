"""On what a run was made: versions and machine."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path

#: The distribution that gradcheck is part of.
DISTRIBUTION = "nlosses"


def version(package: str) -> str:
    with suppress(metadata.PackageNotFoundError):
        return metadata.version(package)
    return "not installed"


@cache
def facts() -> dict[str, str]:
    return {
        "gradcheck": version(DISTRIBUTION),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "numpy": version("numpy"),
        "scipy": version("scipy"),
        "platform": platform.platform(),
        "cpu": f"{processor()}, {os.cpu_count()} logical cores",
    }


def processor() -> str:
    """Name of the CPU; on Linux `platform.processor` knows nothing, or the architecture at best."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()
