"""What is known of devices by their own signed word: the last of each, and when it is all that there is."""

from collections.abc import Sequence
from typing import Final

import msgspec
from sqlalchemy import func
from sqlmodel import Session, col, select
from sqlmodel.sql.expression import SelectOfScalar

from fleet_protocol.messages import UpdateReport
from fleet_protocol.texts import _
from fleet_protocol.versions import VersionReport
from fleet_server.database.models import Artifact, Presence, VersionStatement
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
        newest = col(VersionStatement.number).in_(_newest(tenant, part))
        rows = session.exec(select(VersionStatement).where(newest))
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
    session: Session, tenant: str, devices: Sequence[str], artifact: Artifact, mode: str
) -> dict[str, UpdateReport]:
    """What devices say of an artifact by their signed word, where the broker has not heard them since.

    A courier's word counts as soon as nothing was heard after it arrived. One that came over HTTPS waits
    until the broker's silence is none by chance: both ways tell the same a moment apart.
    """
    found: dict[str, UpdateReport] = {}
    for part in in_parts(devices):
        numbers = _unheard_since(session, tenant, part)
        for row in session.exec(select(VersionStatement).where(col(VersionStatement.number).in_(numbers))):
            for update in report_in(row).updates:
                if (update.kind, update.name, update.mode) == (artifact.kind, artifact.name, mode):
                    found[row.device] = _by_courier(update) if row.way == COURIER else update
    return found


def _unheard_since(session: Session, tenant: str, devices: Sequence[str]) -> list[int]:
    """The numbers of the last words that count by themselves; few or none, so documents are left alone."""
    heads = session.exec(
        select(
            VersionStatement.number,
            VersionStatement.way,
            VersionStatement.attested_ms,
            func.coalesce(col(Presence.heard_ms), 0),
        )
        .outerjoin(
            Presence,
            (col(Presence.tenant) == VersionStatement.tenant)
            & (col(Presence.device) == VersionStatement.device),
        )
        .where(col(VersionStatement.number).in_(_newest(tenant, devices)))
    )
    return [
        number
        for number, way, attested_ms, heard_ms in heads
        if number is not None and heard_ms < attested_ms - (0 if way == COURIER else SILENT_AFTER_MS)
    ]


def _newest(tenant: str, devices: Sequence[str]) -> SelectOfScalar[int | None]:
    return (
        select(func.max(col(VersionStatement.number)))
        .where(VersionStatement.tenant == tenant, col(VersionStatement.device).in_(devices))
        .group_by(col(VersionStatement.device))
    )


def _by_courier(update: UpdateReport) -> UpdateReport:
    detail = _("by courier. {detail}").format(detail=update.detail).rstrip()
    return msgspec.structs.replace(update, detail=detail)
