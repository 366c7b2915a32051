"""Holds devices whose messages are refused on and on: floods, and foreigners with a device's certificate.

Ingest and escalation count what they refuse; here is looked at how fast the counts grow. An agent
whose messages are refused does not reach the limit: it keeps them, waits, and sends at most its
window again, 400 messages every 15 s in the worst case.
"""

import logging
from collections.abc import Mapping
from typing import Final

from sqlalchemy import Engine
from sqlmodel import Session, select

from fleet_protocol.buckets import TokenBucket
from fleet_protocol.texts import _
from fleet_server.access.roles import Actor
from fleet_server.clock import wall_ms
from fleet_server.database.engine import writing
from fleet_server.database.models import RefusalCount
from fleet_server.errors import RegistryError
from fleet_server.identity.revoking import FLOODING, hold

REFUSED_PER_S: Final = 50.0
"""What an agent that is not understood stays below, all that it sends again included."""

REFUSED_AT_ONCE: Final = 5000.0
"""What may come together: many windows, when a queue of the broker's is worked off."""

LOOK_S: Final = 2.0

_S_PER_HOUR: Final = 3600.0

Key = tuple[str, str]
"""Tenant and device."""

log: Final = logging.getLogger(__name__)


class Patience:
    """Who was refused too often, told by the counts. Pure; times are monotonic seconds."""

    def __init__(self) -> None:
        self._counts: dict[Key, int] | None = None
        self._left: dict[Key, TokenBucket] = {}

    def exhausted(self, counts: Mapping[Key, int], now_s: float) -> list[Key]:
        """Who went beyond it since the last look; what was counted before the first one is of the past."""
        before, self._counts = self._counts, dict(counts)
        if before is None:
            return []
        self._left = {key: left for key, left in self._left.items() if not left.is_full(now_s)}
        return [
            key
            for key, count in counts.items()
            if count > before.get(key, 0) and not self._take(key, count - before.get(key, 0), now_s)
        ]

    def _take(self, key: Key, refused: int, now_s: float) -> bool:
        left = self._left.get(key)
        if left is None:
            left = TokenBucket(REFUSED_PER_S * _S_PER_HOUR, REFUSED_AT_ONCE, now_s)
            self._left[key] = left
        # More at once than fits empties it, too.
        return left.take(now_s, refused)


class Quarantine:
    """The unit of the guard that holds them."""

    def __init__(self, engine: Engine) -> None:
        self._engine: Final = engine
        self._patience: Final = Patience()
        self._next_s = 0.0

    def work(self, now_s: float) -> None:
        """Look, where it is time; hold who has to be.

        Raises:
            SQLAlchemyError: the database fails.
        """
        if now_s < self._next_s:
            return
        self._next_s = now_s + LOOK_S
        with Session(self._engine) as session:
            rows = session.exec(select(RefusalCount).where(RefusalCount.device != "")).all()
        reasons = {(row.tenant, row.device): row.last_reason for row in rows}
        counts = {(row.tenant, row.device): row.count for row in rows}
        for tenant, device in self._patience.exhausted(counts, now_s):
            self._hold(tenant, device, reasons[tenant, device])

    def _hold(self, tenant: str, device: str, last: str) -> None:
        reason = _("its messages were refused on and on; the last: {reason}").format(reason=last)
        try:
            with writing(self._engine) as session:
                held = hold(
                    session,
                    tenant,
                    device,
                    code=FLOODING,
                    reason=reason,
                    actor=Actor.system("guard"),
                    now_ms=wall_ms(),
                )
        except RegistryError as error:  # it is out already, or was taken out of the register
            log.info("%s", error)
            return
        if held:
            log.warning(_("{device} floods, and is held").format(device=device))
