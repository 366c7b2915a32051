"""The director: what each device shall have, signed when it is asked for.

What was signed is kept in the database, so that versions only grow, whichever process signs and
however often it starts. The last few stay, for a device that began with an older timestamp.
"""

import hashlib
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final, NamedTuple

import msgspec
from sqlalchemy import Engine
from sqlmodel import Session, col, select
from tuf.api.metadata import Snapshot, Targets, Timestamp

from fleet_protocol import delivery
from fleet_protocol.delivery import Delivery
from fleet_protocol.targets import Mode, Target
from fleet_protocol.texts import _
from fleet_server.database.engine import writing
from fleet_server.database.models import Artifact, Assignment, Device, Directive
from fleet_server.errors import NotFound
from fleet_server.updates.artifacts import target_of
from fleet_signing.ceremony import OnlineKeys
from fleet_signing.director import DirectorSet, sign_set
from fleet_signing.metadata import ONLINE_LIFE, file_name, next_version

KEPT: Final = 3
"""Sets a device: the current one, and those that a device may just be reading."""


class _Ordered(NamedTuple):
    """What a device shall have, and by path on which terms it is to fetch it."""

    targets: list[Target]
    terms: dict[str, Delivery]


class Director:
    """The director of one tenant's devices."""

    def __init__(self, engine: Engine, tenant: str, online: OnlineKeys) -> None:
        self._engine = engine
        self._tenant = tenant
        self._signer = online.director

    def current(self, device: str, at: datetime) -> DirectorSet:
        """What ``device`` shall have at ``at``; signed anew where that changed, or is about to expire.

        Raises:
            NotFound: there is no such device.
        """
        with Session(self._engine) as session:
            # First of all: whoever makes up names must not get hold of the database's write lock.
            self._require(session, device)
            latest = self._latest(session, device)
            if latest is not None and self._holds(latest, self._ordered(session, device), at):
                return _set(latest)
        with writing(self._engine) as session:
            self._require(session, device, hold=True)
            latest, ordered = self._latest(session, device), self._ordered(session, device)
            if latest is not None and self._holds(latest, ordered, at):
                return _set(latest)
            version = next_version(latest.version if latest else 0, at)
            signed = sign_set(device, ordered.targets, version, at, self._signer, ordered.terms)
            session.add(self._row(device, ordered, signed))
            self._forget(session, device)
            return signed

    def file(self, device: str, name: str, at: datetime) -> bytes | None:
        """The file ``name`` of the device's repository, but its roots; None where there is none.

        Raises:
            NotFound: there is no such device.
        """
        if name == file_name(Timestamp.type, 0):
            return self.current(device, at).timestamp
        number, _dot, role = name.partition(".")
        if role not in (f"{Snapshot.type}.json", f"{Targets.type}.json") or not number.isdigit():
            return None
        with Session(self._engine) as session:
            row = session.get(Directive, (self._tenant, device, int(number)))
        return _set(row).files.get(name) if row else None

    def _require(self, session: Session, device: str, *, hold: bool = False) -> None:
        if session.get(Device, (self._tenant, device), with_for_update=hold) is None:
            raise NotFound(_("there is no device {device!r}").format(device=device[:80]))

    def _ordered(self, session: Session, device: str) -> "_Ordered":
        rows = session.exec(
            select(Artifact, Assignment.mode, Assignment.delivery)
            .join(
                Assignment,
                (col(Assignment.tenant) == Artifact.tenant) & (col(Assignment.artifact) == Artifact.sha256),
            )
            .where(Assignment.tenant == self._tenant, Assignment.device == device)
            .order_by(col(Assignment.kind), col(Assignment.name), col(Assignment.mode))
        )
        found = [(_in_mode(target_of(row), Mode(mode)), delivery.decode(text)) for row, mode, text in rows]
        return _Ordered([target for target, _terms in found], {target.path: terms for target, terms in found})

    def _latest(self, session: Session, device: str) -> Directive | None:
        return session.exec(
            select(Directive)
            .where(Directive.tenant == self._tenant, Directive.device == device)
            .order_by(col(Directive.version).desc())
        ).first()

    def _holds(self, latest: Directive, ordered: "_Ordered", at: datetime) -> bool:
        left_ms = latest.expires_ms - at.timestamp() * 1000
        return latest.state == self._state(ordered) and left_ms > ONLINE_LIFE.total_seconds() * 1000 / 2

    def _state(self, ordered: "_Ordered") -> str:
        known = msgspec.json.encode((self._signer.public_key.keyid, ordered))
        return hashlib.sha256(known).hexdigest()

    def _row(self, device: str, ordered: "_Ordered", signed: DirectorSet) -> Directive:
        return Directive(
            tenant=self._tenant,
            device=device,
            version=signed.version,
            state=self._state(ordered),
            expires_ms=int(signed.expires.timestamp() * 1000),
            targets=signed.targets.decode(),
            snapshot=signed.snapshot.decode(),
            timestamp=signed.timestamp.decode(),
        )

    def _forget(self, session: Session, device: str) -> None:
        rows = session.exec(
            select(Directive)
            .where(Directive.tenant == self._tenant, Directive.device == device)
            .order_by(col(Directive.version).desc())
            .offset(KEPT)
        )
        for row in rows:
            session.delete(row)


def _in_mode(target: Target, mode: Mode) -> Target:
    """``target`` as a device is to run it."""
    return replace(target, description=msgspec.structs.replace(target.description, mode=mode))


def _set(row: Directive) -> DirectorSet:
    return DirectorSet(
        row.version,
        datetime.fromtimestamp(row.expires_ms / 1000, UTC),
        row.targets.encode(),
        row.snapshot.encode(),
        row.timestamp.encode(),
    )
