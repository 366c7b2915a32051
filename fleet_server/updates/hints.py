"""Hints: telling each device that its desired half has a new version.

The broker keeps the last hint of every device. Which version it last took is in the database, so
that whatever is killed, a hint is sent late or twice and never forgotten.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Engine
from sqlmodel import Session, col, select

from fleet_protocol.messages import Hint, encode
from fleet_protocol.topics import Channel, topic
from fleet_server.database.engine import writing
from fleet_server.database.models import SentHint, Twin, TwinHalf
from fleet_server.link.mqtt import Subscriber

AT_ONCE: Final = 1000
"""Hints on their way together; the rest follow when the broker has taken these."""

EXPIRY_S: Final = 7 * 86_400
"""A device away for longer asks by itself when it comes back, and the broker need not keep it."""

UNSURE_MS: Final = 60_000
"""A broker that is killed forgets what it took within its last seconds; these hints are sent again."""


@dataclass(frozen=True, slots=True)
class Due:
    """A hint to send."""

    tenant: str
    device: str
    version: int


class Hints:
    """Sends what is due over one connection, and notes it once the broker has taken it."""

    def __init__(self, engine: Engine, subscriber: Subscriber) -> None:
        self._engine: Final = engine
        self._subscriber: Final = subscriber
        self._sent: Sequence[Due] = ()
        self._connection = 0

    def work(self, now_ms: int) -> None:
        """Note what the broker took, and send the next ones; never waits."""
        if self._subscriber.connections != self._connection:
            doubt(self._engine, now_ms - UNSURE_MS)
            self._connection = self._subscriber.connections
        if self._subscriber.unconfirmed:
            return
        if self._sent:
            note(self._engine, self._sent, now_ms)
        self._sent = outstanding(self._engine, AT_ONCE)
        for hint in self._sent:
            message = encode(Hint(version=hint.version))
            self._subscriber.publish(topic(hint.device, Channel.HINT), message, EXPIRY_S, retain=True)


def outstanding(engine: Engine, limit: int) -> list[Due]:
    """At most ``limit`` devices whose desired half is newer than the hint that the broker has."""
    is_of_device = (col(SentHint.tenant) == Twin.tenant) & (col(SentHint.device) == Twin.device)
    is_newer = col(SentHint.version).is_(None) | (col(SentHint.version) < Twin.version)
    query = (
        select(Twin.tenant, Twin.device, Twin.version)
        .join(SentHint, is_of_device, isouter=True)
        .where(Twin.half == TwinHalf.DESIRED, is_newer)
        .order_by(col(Twin.changed_ms), col(Twin.device))
        .limit(limit)
    )
    with Session(engine) as session:
        return [Due(*row) for row in session.exec(query)]


def note(engine: Engine, taken: Sequence[Due], now_ms: int) -> None:
    """The broker has taken these."""
    with writing(engine) as session:
        for hint in taken:
            session.merge(
                SentHint(tenant=hint.tenant, device=hint.device, version=hint.version, sent_ms=now_ms)
            )


def doubt(engine: Engine, since_ms: int) -> None:
    """Take back what was noted since then: the broker may have forgotten it."""
    with writing(engine) as session:
        for row in session.exec(select(SentHint).where(SentHint.sent_ms >= since_ms)):
            session.delete(row)
