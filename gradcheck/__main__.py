"""``python -m gradcheck`` runs suites of gradient checks; see ``python -m gradcheck --help``."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status."""
    try:
        from .cli import main  # inside, so that an interrupt while numpy is loaded leaves no traceback either

        return main(sys.argv[1:] if arguments is None else list(arguments))
    except KeyboardInterrupt:
        return 130  # 128 + SIGINT, as shells report it


if __name__ == "__main__":
    raise SystemExit(main())
