"""What an agent shows of its life: by this the version that follows it is judged."""

import time
from typing import Final

from edge_agent.link.uplink import Uplink
from edge_agent.service.health import HealthBoard
from edge_agent.telemetry.recorder import Recorder
from edge_agent.telemetry.store import Store

SPOOL: Final = "spool"
READING: Final = "reading"
LINK: Final = "link"

RECENT_S: Final = 120.0
"""A reading stored so long ago still shows that readings come; a sensor that is asked more rarely is not
waited for."""

_FAULT: Final = "agent.fault"
_UNOPENED: Final = "0" * 16


class Signs:
    """Looks at the parts of one agent that runs."""

    def __init__(self, store: Store, health: HealthBoard, recorder: Recorder, uplink: Uplink) -> None:
        self._store: Final = store
        self._health: Final = health
        self._recorder: Final = recorder
        self._uplink: Final = uplink

    def shown(self) -> frozenset[str]:
        """What it has at present: a spool that opened, readings that were stored, a session."""
        stored_at_s = self._store.stored_at_s
        found = {
            SPOOL: self._store.epoch != _UNOPENED,
            READING: stored_at_s is not None and time.monotonic() - stored_at_s < RECENT_S,
            LINK: self._uplink.up_since_s is not None,
        }
        return frozenset(sign for sign, is_there in found.items() if is_there)

    def faults(self) -> list[str]:
        """Tasks that fail, with why."""
        return [each.detail for each in self._health.reports() if each.code == _FAULT]

    async def settle(self) -> None:
        """Commit what was taken so far: the usual interval may be an hour."""
        await self._recorder.flush()
