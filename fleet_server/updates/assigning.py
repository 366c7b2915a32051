"""What one device can be given directly, by hand: for technicians and tests, outside any rollout."""

from sqlmodel import Session

from fleet_protocol.targets import Kind
from fleet_protocol.texts import _
from fleet_server.database.models import Artifact, Device
from fleet_server.errors import NoArtifact, NotFound
from fleet_server.updates.artifacts import find


def require_artifact(session: Session, tenant: str, what: tuple[Kind, str], release: int) -> Artifact:
    """That release of the artifact of the kind and name ``what``.

    Raises:
        NoArtifact: it was not published.
    """
    kind, name = what
    artifact = find(session, tenant, kind, name, release)
    if artifact is None:
        raise NoArtifact(
            _("{kind} {name} release {release} was not published").format(
                kind=kind, name=name, release=release
            )
        )
    return artifact


def require_device(session: Session, tenant: str, device: str) -> Device:
    """The device.

    Raises:
        NotFound: there is no such device.
    """
    found = session.get(Device, (tenant, device))
    if found is None:
        raise NotFound(_("there is no device {device!r}").format(device=device[:80]))
    return found
