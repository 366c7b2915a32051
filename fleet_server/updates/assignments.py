"""Which artifact each device shall have, and the desired half of its twin, which says the same.

Whoever changes an assignment does it here, inside a transaction of its own: the desired half then
gets its next version, and the rollouts process publishes that as a hint (:mod:`.hints`).
"""

from collections.abc import Iterable, Mapping, Sequence

import msgspec
from sqlmodel import Session, col, select
from sqlmodel.sql.expression import SelectOfScalar

from fleet_protocol import delivery
from fleet_protocol.delivery import ANY, Delivery
from fleet_protocol.targets import Kind, Mode
from fleet_server.database.models import Artifact, Assignment, Twin, TwinHalf
from fleet_server.database.parts import in_parts


class Wish(msgspec.Struct, frozen=True, omit_defaults=True):
    """One artifact that a device shall have."""

    kind: str
    name: str
    version: str
    release: int
    sha256: str
    mode: str
    delivery: Delivery = ANY


def assign(
    session: Session,
    tenant: str,
    what: tuple[Kind, str],
    wishes: Mapping[str, str | None],
    now_ms: int,
    mode: Mode = Mode.ACT,
    terms: Delivery = ANY,
) -> None:
    """Let each device of ``wishes`` have that artifact of the kind and name ``what``; None is none.

    It is fetched on ``terms``. Within the caller's transaction. The artifacts are there, and the devices are
    registered. Nothing runs in its own shadow: what comes to act leaves it, and what acts is not given in
    shadow.
    """
    kind, name = what
    delivered = delivery.encode(terms)
    other = Mode.ACT if mode is Mode.SHADOW else Mode.SHADOW
    for devices in in_parts(sorted(wishes)):
        beside = {
            row.device: row for row in session.exec(_of(tenant, devices, what, other).with_for_update())
        }
        present = {
            row.device: row for row in session.exec(_of(tenant, devices, what, mode).with_for_update())
        }
        for device in devices:
            artifact, row = wishes[device], present.get(device)
            twin = beside.get(device)
            if twin is not None and twin.artifact == artifact:
                if mode is Mode.SHADOW:
                    artifact = None
                else:
                    session.delete(twin)
            if artifact is None:
                if row is not None:
                    session.delete(row)
            elif row is None or (row.artifact, row.delivery) != (artifact, delivered):
                row = row or Assignment(
                    tenant=tenant, device=device, kind=kind, name=name, mode=mode, artifact="", assigned_ms=0
                )
                row.artifact, row.assigned_ms, row.delivery = artifact, now_ms, delivered
                session.add(row)
        session.flush()
        _refresh(session, tenant, devices, now_ms)


def wishes_of(session: Session, tenant: str, devices: Sequence[str]) -> dict[str, list[Wish]]:
    """What each of ``devices`` shall have, by kind and name; at most :data:`.parts.AT_ONCE` devices."""
    rows = session.exec(
        select(Assignment.device, Assignment.mode, Artifact, Assignment.delivery)
        .where(Assignment.tenant == tenant, col(Assignment.device).in_(devices))
        .where(Artifact.tenant == Assignment.tenant, Artifact.sha256 == Assignment.artifact)
        .order_by(col(Assignment.device), col(Assignment.kind), col(Assignment.name), col(Assignment.mode))
    )
    found: dict[str, list[Wish]] = {device: [] for device in devices}
    for device, mode, artifact, text in rows:
        known = (artifact.kind, artifact.name, artifact.version, artifact.release, artifact.sha256)
        found[device].append(Wish(*known, mode, delivery.decode(text)))
    return found


def _refresh(session: Session, tenant: str, devices: Sequence[str], now_ms: int) -> None:
    """Make the desired half of each device say what its assignments say; a change is a new version."""
    twins = {
        twin.device: twin
        for twin in session.exec(
            select(Twin)
            .where(Twin.tenant == tenant, Twin.half == TwinHalf.DESIRED, col(Twin.device).in_(devices))
            .with_for_update()
        )
    }
    for device, wishes in wishes_of(session, tenant, devices).items():
        document = msgspec.json.encode({"assignments": wishes}).decode()
        twin = twins.get(device)
        if twin is None:
            whose = {"tenant": tenant, "device": device, "half": TwinHalf.DESIRED.value}
            session.add(Twin(**whose, version=1, changed_ms=now_ms, document=document))
        elif twin.document != document:
            twin.version, twin.changed_ms, twin.document = twin.version + 1, now_ms, document
            session.add(twin)
    session.flush()


def _of(
    tenant: str, devices: Iterable[str], what: tuple[Kind, str], mode: Mode
) -> SelectOfScalar[Assignment]:
    kind, name = what
    return (
        select(Assignment)
        .where(Assignment.tenant == tenant, Assignment.kind == kind, Assignment.name == name)
        .where(Assignment.mode == mode, col(Assignment.device).in_(devices))
        .order_by(col(Assignment.device))
    )
