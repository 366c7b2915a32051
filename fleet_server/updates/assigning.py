"""Giving one device one artifact directly, by hand: for technicians and tests, outside any rollout."""

from sqlalchemy import Engine
from sqlmodel import Session

from fleet_protocol.targets import Kind
from fleet_protocol.texts import _
from fleet_server.access import audit
from fleet_server.access.audit import Change
from fleet_server.access.roles import Actor
from fleet_server.clock import wall_ms
from fleet_server.database.engine import writing
from fleet_server.database.models import Artifact, Assignment, Device
from fleet_server.errors import NoArtifact, NotFound
from fleet_server.updates import assignments
from fleet_server.updates.artifacts import find


def assign(
    engine: Engine, tenant: str, actor: Actor, device: str, what: tuple[Kind, str], release: int
) -> Artifact:
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
        _change(session, tenant, actor, device, what, artifact)
    return artifact


def withdraw(engine: Engine, tenant: str, actor: Actor, device: str, what: tuple[Kind, str]) -> None:
    """Let ``device`` be given nothing of the kind and name ``what`` any more; what it runs goes on running.

    Raises:
        NotFound: there is no such device.
    """
    with writing(engine) as session:
        _require_device(session, tenant, device)
        _change(session, tenant, actor, device, what, None)


def _change(
    session: Session,
    tenant: str,
    actor: Actor,
    device: str,
    what: tuple[Kind, str],
    artifact: Artifact | None,
) -> None:
    kind, name = what
    old = session.get(Assignment, (tenant, device, kind, name), with_for_update=True)
    before = old.artifact if old else None
    after = artifact.sha256 if artifact else None
    assignments.assign(session, tenant, what, {device: after}, wall_ms())
    detail = {"kind": kind, "name": name, "before": before, "after": after}
    action = "assignment.withdraw" if artifact is None else "assignment.set"
    release = artifact.release if artifact else None
    change = Change(action, device, before, after, detail | {"release": release})
    audit.append(session, tenant, actor, change)


def _require_device(session: Session, tenant: str, device: str) -> None:
    if session.get(Device, (tenant, device)) is None:
        raise NotFound(_("there is no device {device!r}").format(device=device[:80]))
