"""What the agent writes down when it hands an image over: ``os.json``, replaced whole.

The board's restart lies between the two halves of such an update; this is all that the second half knows
of the first.
"""

import logging
from enum import StrEnum
from pathlib import Path
from typing import Final

import msgspec

from edge_agent import durable
from edge_agent.errors import UpdateBroken
from fleet_protocol.manifest import Digest
from fleet_protocol.messages import Count, Line
from fleet_protocol.texts import _

_LOG: Final = logging.getLogger(__name__)

RECORD: Final = "os.json"
_MAX_BYTES: Final = 1 << 20


class Phase(StrEnum):
    """How far the handing over is."""

    INSTALLING = "installing"
    INSTALLED = "installed"
    LEAVING = "leaving"


class Handover(msgspec.Struct, frozen=True, kw_only=True):
    """One image on its way. What a later version adds, which the board may come back from, is passed over.

    ``before`` is the copy of the system that ran, ``marks`` what the bootloader went by, ``boot`` the
    boot in which ``phase`` began. ``restarts`` counts how often the agent restarted the board in this
    phase. ``codes`` are the health codes that were raised before; ``reason`` is why the new system is left.
    """

    sha256: Digest
    phase: Phase
    before: str
    boot: str
    marks: dict[str, str] = {}
    restarts: Count = 0
    codes: tuple[str, ...] = ()
    reason: Line = ""


def load(folder: Path) -> Handover | None:
    """The last image that was handed over; None where there is none, or nobody can read it."""
    file = folder / RECORD
    try:
        with file.open("rb") as content:
            return msgspec.json.decode(content.read(_MAX_BYTES), type=Handover)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        _LOG.error(_("{file} cannot be read: {reason}").format(file=file, reason=error))
        return None


def save(folder: Path, handover: Handover) -> None:
    """Write it down; when this returns it outlives a power cut.

    Raises:
        UpdateBroken: it cannot be written.
    """
    file = folder / RECORD
    try:
        durable.make_folder(folder)
        durable.write(file, msgspec.json.format(msgspec.json.encode(handover), indent=1))
    except OSError as error:
        raise UpdateBroken(
            _("{file} cannot be written: {reason}").format(file=file, reason=error.strerror)
        ) from error
