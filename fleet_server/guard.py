"""The guard: nobody stays whom the fleet has put out, who floods it is put out, and the record is signed.

A process of its own, so that neither a busy ingest nor a stuck API delays it. It keeps nothing that
matters in memory: killed at any moment, it goes on with what the database says is not done.
"""

import logging
import signal
import time
from collections.abc import Sequence
from typing import Final

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import Session, col, func, select

from fleet_protocol.texts import _
from fleet_protocol.topics import SERVICE_PREFIX
from fleet_server.audit.notary import CheckpointKeeper
from fleet_server.clock import wall_ms
from fleet_server.config import ServerConfig
from fleet_server.database.engine import open_engine
from fleet_server.database.models import AuditRecord, Certificate
from fleet_server.database.notes import Notes
from fleet_server.errors import ServerError
from fleet_server.identity.quarantine import Quarantine
from fleet_server.identity.revocation import Revocation
from fleet_server.identity.revoking import RELEASE, TAKEN_BACK
from fleet_server.telemetry.ingest import Stop

GUARD: Final = f"{SERVICE_PREFIX}guard"
"""How it signs its notes. It needs no connection under that name: it comes as those that it puts out."""

POLL_S: Final = 0.5
"""How often it looks; what it asks is answered from an index that is empty nearly always."""

OVERDUE_MS: Final = 30_000
"""An order that the broker does not obey for so long is somebody's business."""

_STUCK: Final = "revocation.stuck"

log: Final = logging.getLogger(__name__)


class Guard:
    """The rounds of the guard."""

    def __init__(self, engine: Engine, config: ServerConfig) -> None:
        self._engine: Final = engine
        self._revocation: Final = Revocation(engine, config)
        self._quarantine: Final = Quarantine(engine)
        self._checkpoints: Final = CheckpointKeeper(engine, config)
        self._notes: Final = Notes(engine, GUARD, (_STUCK,))
        self._failure = ""
        self._failing_since_ms: int | None = None

    def round(self) -> None:
        """Do whatever is due now. What fails is tried again in the next round."""
        try:
            self._revocation.work()
        except (ServerError, SQLAlchemyError) as error:
            self._fail(str(error))
        else:
            self._failing_since_ms = None
        try:
            self._quarantine.work(time.monotonic())
        except (ServerError, SQLAlchemyError) as error:
            log.warning(_("floods cannot be judged: {reason}").format(reason=error))
        try:
            raised = self._raised(wall_ms())
        except SQLAlchemyError:
            return  # nothing can be written either
        self._notes.keep(raised, time.monotonic())
        # Last: a share that hangs may take its seconds, and nobody waits behind it.
        self._checkpoints.tend(wall_ms())

    def _fail(self, reason: str) -> None:
        self._failure = reason
        if self._failing_since_ms is None:
            self._failing_since_ms = wall_ms()
            log.error(_("revocations cannot be enforced: {reason}").format(reason=reason))

    def _raised(self, now_ms: int) -> dict[str, str]:
        """The code of what stands still for too long."""
        query = select(func.count(), func.min(Certificate.revoked_ms)).where(
            Certificate.revoked_reason != "", col(Certificate.enforced_ms).is_(None)
        )
        with Session(self._engine) as session:
            count, oldest_ms = session.exec(query).one()
            waiting_since_ms = [*_released_ms(session), *([] if oldest_ms is None else [oldest_ms])]
        if self._failing_since_ms is not None and now_ms - self._failing_since_ms >= OVERDUE_MS:
            return {_STUCK: self._failure[:200]}
        if waiting_since_ms and now_ms - min(waiting_since_ms) >= OVERDUE_MS:
            return {_STUCK: _("{count} certificates; the broker has not taken the list").format(count=count)}
        return {}


def _released_ms(session: Session) -> Sequence[int]:
    """When each device was released that is not let in yet; its certificates no longer say that."""
    is_of_it = (
        (col(AuditRecord.tenant) == Certificate.tenant)
        & (col(AuditRecord.action) == RELEASE)
        & (col(AuditRecord.subject) == Certificate.device)
    )
    return session.exec(
        select(func.max(AuditRecord.time_ms))
        .select_from(Certificate)
        .join(AuditRecord, is_of_it)
        .where(Certificate.revoked_reason == TAKEN_BACK, col(Certificate.enforced_ms).is_(None))
        .group_by(col(Certificate.tenant), col(Certificate.device))
    ).all()


def run(config: ServerConfig) -> None:
    """Guard the fleet of ``config`` until SIGTERM or SIGINT."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    stop = Stop()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop.ask)
    engine = open_engine(config.database_url)
    guard = Guard(engine, config)
    try:
        while not stop.is_asked:
            guard.round()
            time.sleep(POLL_S)
    finally:
        engine.dispose()
