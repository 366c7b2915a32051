"""Giving one device one artifact directly, by hand: for technicians and tests, outside any rollout."""

import time

from sqlalchemy import Engine
from sqlmodel import Session

from fleet_protocol.targets import Kind
from fleet_protocol.texts import _
from fleet_server.database.engine import writing
from fleet_server.database.models import Artifact, Assignment, Device
from fleet_server.errors import NoArtifact, NotFound
from fleet_server.updates.artifacts import find


def assign(engine: Engine, tenant: str, device: str, what: tuple[Kind, str], release: int) -> Artifact:
    """Let ``device`` have that release of the artifact of the kind and name ``what``.

    Raises:
        NotFound: there is no such device.
        NoArtifact: it was not published.
    """
    kind, name = what
    with writing(engine) as session:
        _require_device(session, tenant, device)
        artifact = find(session, tenant, kind, name, release)
        if artifact is None:
            raise NoArtifact(
                _("{kind} {name} release {release} was not published").format(
                    kind=kind, name=name, release=release
                )
            )
        session.expunge(artifact)
        key = (tenant, device, kind.value, name)
        row = session.get(Assignment, key) or Assignment(
            tenant=tenant, device=device, kind=kind.value, name=name, artifact="", assigned_ms=0
        )
        row.artifact, row.assigned_ms = artifact.sha256, time.time_ns() // 1_000_000
        session.add(row)
    return artifact


def withdraw(engine: Engine, tenant: str, device: str, what: tuple[Kind, str]) -> None:
    """Let ``device`` be given nothing of the kind and name ``what`` any more; what it runs goes on running.

    Raises:
        NotFound: there is no such device.
    """
    kind, name = what
    with writing(engine) as session:
        _require_device(session, tenant, device)
        row = session.get(Assignment, (tenant, device, kind.value, name))
        if row is not None:
            session.delete(row)


def _require_device(session: Session, tenant: str, device: str) -> None:
    if session.get(Device, (tenant, device)) is None:
        raise NotFound(_("there is no device {device!r}").format(device=device[:80]))
