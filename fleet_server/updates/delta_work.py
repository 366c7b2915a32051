"""The child that makes one delta: ``python -m fleet_server.updates.delta_work OLD NEW OUT MOST``.

A process of its own, so that what it takes is bounded, and given back. It writes nothing where the
delta would have more than MOST bytes.
"""

import os
import resource
import sys
from pathlib import Path
from typing import Final

from fleet_signing import patches
from fleet_signing.files import write_durably

MEMORY: Final = 2 << 30
"""Bytes of address space that it may take."""

NOT_WORTH_IT: Final = 3
"""The status where nothing was written."""

_NICE: Final = 15


def main() -> None:
    """Make the delta."""
    old, new, out, most = sys.argv[1:]
    os.nice(_NICE)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    made = patches.make(Path(old).read_bytes(), Path(new).read_bytes())
    if len(made) > int(most):
        sys.exit(NOT_WORTH_IT)
    write_durably(Path(out), made)


if __name__ == "__main__":
    main()
