"""What would still let a board in as a device: open invitations, and claims that nobody has fetched yet."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from sqlalchemy import ColumnElement
from sqlmodel import Session, col, select

from fleet_server.database.models import Certificate, Claim, Enrollment
from fleet_server.database.parts import in_parts
from fleet_server.identity.batches import APPROVED, REJECTED

ID_LENGTH: Final = 12
"""Characters of an invitation's digest that name it among those of a device."""


class Openings(NamedTuple):
    """The rows of some devices, locked."""

    invitations: Sequence[Enrollment]
    claims: Sequence[Claim]

    def of(self, device: str) -> "Openings":
        """Those of ``device`` alone."""
        return Openings(
            [one for one in self.invitations if one.device == device],
            [one for one in self.claims if one.device == device],
        )

    def close(self, session: Session, person: str, reason: str, now_ms: int) -> None:
        """End them all, as ``person`` decides."""
        for invitation in self.invitations:
            invitation.revoked_ms = now_ms
            session.add(invitation)
        for claim in self.claims:
            claim.state, claim.reason = REJECTED, reason
            claim.decided_by, claim.decided_ms = person, now_ms
            session.add(claim)

    def told(self) -> dict[str, list[str]]:
        """Which they are, for the audit."""
        return {
            "invitations": [one.secret_sha256[:ID_LENGTH] for one in self.invitations],
            "claims": [one.id for one in self.claims],
        }


def withdraw_of(session: Session, tenant: str, person: str, now_ms: int) -> list[str]:
    """End the open invitations that ``person`` made; each as its device and its name."""
    query = (
        select(Enrollment)
        .where(Enrollment.tenant == tenant, Enrollment.invited_by == person, *_open(now_ms))
        .order_by(col(Enrollment.secret_sha256))
    )
    found = Openings(session.exec(query.with_for_update()).all(), ())
    found.close(session, person, "", now_ms)
    session.flush()
    return [f"{one.device} {one.secret_sha256[:ID_LENGTH]}" for one in found.invitations]


def openings(session: Session, tenant: str, devices: Sequence[str], now_ms: int) -> Openings:
    """What is open for ``devices``, whose rows are locked already."""
    invitations: list[Enrollment] = []
    claims: list[Claim] = []
    fetched = (
        select(Certificate.serial)
        .where(Certificate.tenant == tenant, Certificate.device == Claim.device)
        .where(Certificate.key_sha256 == Claim.key_sha256)
        .exists()
    )
    for part in in_parts(devices):
        invitations += session.exec(
            select(Enrollment)
            .where(Enrollment.tenant == tenant, col(Enrollment.device).in_(part))
            .where(*_open(now_ms))
            .order_by(col(Enrollment.secret_sha256))
            .with_for_update()
        ).all()
        claims += session.exec(
            select(Claim)
            .where(Claim.tenant == tenant, col(Claim.device).in_(part), Claim.state == APPROVED, ~fetched)
            .order_by(col(Claim.id))
            .with_for_update()
        ).all()
    return Openings(invitations, claims)


def _open(now_ms: int) -> tuple[ColumnElement[bool], ...]:
    return (
        col(Enrollment.used_ms).is_(None),
        col(Enrollment.revoked_ms).is_(None),
        col(Enrollment.expires_ms) > now_ms,
    )
