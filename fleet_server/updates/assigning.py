"""Giving one device one artifact directly, by hand: for technicians and tests, outside any rollout."""

from sqlalchemy import Engine
from sqlmodel import Session

from fleet_protocol.targets import Kind
from fleet_protocol.texts import _
from fleet_server.clock import wall_ms
from fleet_server.database.engine import writing
from fleet_server.database.models import Artifact, Device
from fleet_server.errors import NoArtifact, NotFound
from fleet_server.updates import assignments
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
        assignments.assign(session, tenant, what, {device: artifact.sha256}, wall_ms())
    return artifact


def withdraw(engine: Engine, tenant: str, device: str, what: tuple[Kind, str]) -> None:
    """Let ``device`` be given nothing of the kind and name ``what`` any more; what it runs goes on running.

    Raises:
        NotFound: there is no such device.
    """
    with writing(engine) as session:
        _require_device(session, tenant, device)
        assignments.assign(session, tenant, what, {device: None}, wall_ms())


def _require_device(session: Session, tenant: str, device: str) -> None:
    if session.get(Device, (tenant, device)) is None:
        raise NotFound(_("there is no device {device!r}").format(device=device[:80]))
