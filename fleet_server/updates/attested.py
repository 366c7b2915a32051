"""What is known of devices by their own signed word: the last of each, and when it is all that there is."""

from collections.abc import Sequence
from typing import Final

import msgspec
from sqlalchemy import func
from sqlmodel import Session, col, select

from fleet_protocol.messages import UpdateReport
from fleet_protocol.versions import VersionReport
from fleet_server.database.models import Presence, VersionStatement
from fleet_server.database.parts import in_parts
from fleet_server.devices.health import SILENT_AFTER_MS
from fleet_server.updates.difference import Told, Word

ONLINE: Final = "online"
COURIER: Final = "courier"


class _Reported(msgspec.Struct):
    updates: list[UpdateReport] = []
    wall_ms: int = 0
    boot_id: str = ""


def latest(session: Session, tenant: str, devices: Sequence[str]) -> dict[str, VersionStatement]:
    """The last word of each of ``devices`` that ever gave one."""
    found: dict[str, VersionStatement] = {}
    for part in in_parts(devices):
        newest = (
            select(func.max(col(VersionStatement.number)))
            .where(VersionStatement.tenant == tenant, col(VersionStatement.device).in_(part))
            .group_by(col(VersionStatement.device))
        )
        rows = session.exec(select(VersionStatement).where(col(VersionStatement.number).in_(newest)))
        found |= {row.device: row for row in rows}
    return found


def report_in(row: VersionStatement) -> VersionReport:
    """The report of a statement, which was checked when it came."""
    return msgspec.json.decode(row.document, type=VersionReport)


def word_in(row: VersionStatement) -> Word:
    """The device's signed word in ``row``."""
    return Word(report_in(row), row.way, row.attested_ms)


def told_in(document: str, heard_ms: int = 0, *, is_there: bool = True) -> Told:
    """What the broker says in the reported half ``document`` of a device's twin."""
    said = msgspec.json.decode(document, type=_Reported)
    return Told(said.updates, heard_ms, is_there, said.wall_ms, said.boot_id)


def instead(
    session: Session, tenant: str, devices: Sequence[str], kind: str, name: str
) -> dict[str, UpdateReport]:
    """What devices say of an artifact by their signed word, where the broker has not heard them since.

    A courier's word counts as soon as nothing was heard after it arrived. One that came over HTTPS waits
    until the broker's silence is none by chance: both ways tell the same a moment apart.
    """
    words = latest(session, tenant, devices)
    heard = {
        row.device: row.heard_ms
        for part in in_parts(sorted(words))
        for row in session.exec(
            select(Presence).where(Presence.tenant == tenant, col(Presence.device).in_(part))
        )
    }
    return {
        device: update
        for device, row in words.items()
        if heard.get(device, 0) < row.attested_ms - (0 if row.way == COURIER else SILENT_AFTER_MS)
        for update in report_in(row).updates
        if (update.kind, update.name) == (kind, name)
    }
