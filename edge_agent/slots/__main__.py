"""The child that builds a slot: ``python -m edge_agent.slots PARENT ARTIFACT SLOT FITTED``.

A child, because compiling would keep the agent from its sensors. It ends with the agent.
"""

import ctypes
import os
import signal
import sys
from pathlib import Path
from typing import Final

import msgspec

from edge_agent.errors import UpdateRefused
from edge_agent.slots.build import build
from edge_agent.slots.spoken import Broken, Built, Refused

_PR_SET_PDEATHSIG: Final = 1
_NICE: Final = 10


def main() -> None:
    """Build one slot, and say what came of it."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    parent, artifact, slot, fitted = sys.argv[1:]
    if os.getppid() != int(parent):
        sys.exit(0)
    os.nice(_NICE)
    sys.stdout.buffer.write(msgspec.json.encode(_build(Path(artifact), Path(slot), Path(fitted))))


def _build(artifact: Path, slot: Path, fitted: Path) -> Built | Refused | Broken:
    try:
        said = build(artifact, slot, fitted)
    except UpdateRefused as error:
        return Refused(error.refusal, error.detail)
    except OSError as error:
        return Broken(f"{error.filename}: {error.strerror}")
    return Built(said.name, said.version, said.release)


if __name__ == "__main__":
    main()
