"""Invitations: a technician's one-time right to let one board become one device.

The database holds only the digest of an invitation's secret, so whoever reads it can let nobody in. A
device is found by that digest: no secret is ever compared.
"""

import hashlib
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import Engine
from sqlmodel import Session, col, select

from fleet_protocol.enrollment import SECRET_BYTES, Application, Enrolled, Invitation, encode
from fleet_protocol.texts import _
from fleet_server.access.roles import Actor
from fleet_server.audit.chain import Change, append
from fleet_server.authority.authority import open_authority
from fleet_server.authority.signing_requests import requested_key
from fleet_server.clock import wall_ms
from fleet_server.config import ServerConfig
from fleet_server.database.engine import writing
from fleet_server.database.models import Device, Enrollment
from fleet_server.devices.certificates import key_sha256
from fleet_server.devices.registry import find_device, taken
from fleet_server.errors import EnrollmentRefused, NotFound
from fleet_server.identity.enrollment import Newcomer, Post, admit, enrolled, given_again
from fleet_server.identity.openings import ID_LENGTH


@dataclass(frozen=True, slots=True)
class Wish:
    """What an invitation shall be for; it lasts ``expires_s`` seconds."""

    device: str
    profile: str
    site: str | None
    replaces: bool
    expires_s: int


@dataclass(frozen=True, slots=True)
class InvitationView:
    """An invitation as people see it: never its secret. ``state`` is open, used, expired or withdrawn."""

    id: str
    device: str
    profile: str
    site: str | None
    replaces: bool
    invited_by: str
    state: str
    created_ms: int
    expires_ms: int
    used_ms: int | None


@dataclass(frozen=True, slots=True)
class Invited:
    """A new invitation with the one line that carries it; nobody can see that line again."""

    invitation: InvitationView
    token: str
    url: str
    ca_sha256: str


def invite(
    engine: Engine,
    config: ServerConfig,
    wish: Wish,
    actor: Actor,
    permit: Callable[[Session], None] = lambda _session: None,
) -> Invited:
    """Make an invitation; ``actor`` answers for whoever uses it, and ``permit`` may refuse it.

    Raises:
        Conflict: there is such a device, and it shall not be replaced.
        NotFound: there is none to be replaced.
    """
    secret, now_ms = secrets.token_bytes(SECRET_BYTES), wall_ms()
    fingerprint = open_authority(config.authority, may_make=False).met_fingerprint
    with writing(engine) as session:
        permit(session)
        site = _site(session, config.tenant, wish)
        row = Enrollment(
            tenant=config.tenant,
            secret_sha256=hashlib.sha256(secret).hexdigest(),
            device=wish.device,
            profile=wish.profile,
            site=site or "",
            replaces=wish.replaces,
            invited_by=actor.person,
            created_ms=now_ms,
            expires_ms=now_ms + wish.expires_s * 1000,
        )
        session.add(row)
        view = _view(row, now_ms)
        action = "device.replace" if wish.replaces else "device.invite"
        append(session, config.tenant, actor, Change(action, wish.device, detail=_told(view)))
    address = config.device_url.removeprefix("https://")
    text = Invitation(address, bytes.fromhex(fingerprint), wish.device, secret, view.expires_ms // 1000)
    return Invited(view, encode(text), config.device_url, fingerprint)


def list_invitations(engine: Engine, tenant: str, device: str) -> list[InvitationView]:
    """The invitations for ``device``, the newest first."""
    with Session(engine) as session:
        return [_view(row, wall_ms()) for row in _rows(session, tenant, device)]


def withdraw(engine: Engine, tenant: str, device: str, name: str, actor: Actor) -> InvitationView:
    """End the invitation ``name`` for ``device``; one that was used has had its effect.

    Raises:
        NotFound: there is no such invitation.
    """
    now_ms = wall_ms()
    with writing(engine) as session:
        row = next(
            (one for one in _rows(session, tenant, device) if one.secret_sha256.startswith(name)), None
        )
        if row is None:
            raise NotFound(_("there is no invitation {name!r} for {device}").format(name=name, device=device))
        if row.revoked_ms is None:
            row.revoked_ms = now_ms
            session.add(row)
            change = Change("device.uninvite", device, detail=_told(_view(row, now_ms)))
            append(session, tenant, actor, change)
        return _view(row, now_ms)


def accept(engine: Engine, config: ServerConfig, application: Application, source: str) -> Enrolled:
    """Let the device in that holds an invitation's secret, from the address ``source``.

    Raises:
        EnrollmentRefused: the invitation is unknown, withdrawn, used by another key, or has expired; or it
            was used by this one, whose certificate counts no more.
        ServerError: as :func:`fleet_server.identity.enrollment.enroll`.
    """
    authority = open_authority(config.authority, may_make=False)
    digest = hashlib.sha256(bytes.fromhex(application.secret)).hexdigest()
    with writing(engine) as session:
        row = _open(_locked(session, config.tenant, digest), wall_ms())
        key = requested_key(row.device, application.csr_pem.encode())
        is_first = _is_first(row, key_sha256(key))
        if not is_first:
            certificate = given_again(session, config.tenant, row.device, key)
        else:
            newcomer = Newcomer(row.device, row.profile, row.site or None, application.serial, "invitation")
            actor, post = Actor.device(row.device, source), Post.REPLACED if row.replaces else Post.NEW
            certificate = admit(session, config, authority, newcomer, key, actor, post)
            row.used_ms, row.key_sha256 = wall_ms(), key_sha256(key)
            session.add(row)
        device, profile = row.device, row.profile
    return enrolled(engine, config, authority, device, profile, certificate)


def _locked(session: Session, tenant: str, digest: str) -> Enrollment | None:
    """The invitation, held after its device: whoever revokes the device takes them in this order, too."""
    query = select(Enrollment.device).where(Enrollment.tenant == tenant, Enrollment.secret_sha256 == digest)
    device = session.exec(query).first()
    if device is not None:
        session.get(Device, (tenant, device), with_for_update={"key_share": True})
    return session.get(Enrollment, (tenant, digest), with_for_update=True)


def _open(row: Enrollment | None, now_ms: int) -> Enrollment:
    again = _("Ask for another one: fleet device invite NAME.")
    if row is None:
        raise EnrollmentRefused("invitation_unknown", _("the server knows no such invitation"), again)
    if row.revoked_ms is not None:
        raise EnrollmentRefused("invitation_withdrawn", _("the invitation was withdrawn"), again)
    if row.expires_ms <= now_ms:
        raise EnrollmentRefused("invitation_expired", _("the invitation has expired"), again)
    return row


def _is_first(row: Enrollment, key: str) -> bool:
    """Whether nobody has used the invitation yet; the same key may come again.

    Raises:
        EnrollmentRefused: another key has used it.
    """
    if row.used_ms is None:
        return True
    if row.key_sha256 == key:
        return False
    raise EnrollmentRefused(
        "invitation_used",
        _("the invitation was used already, by another key"),
        _(
            "If it was not this board, somebody else has the invitation: have the device revoked. "
            "To put this board in its place: fleet device invite {device} --replace."
        ).format(device=row.device),
    )


def _site(session: Session, tenant: str, wish: Wish) -> str | None:
    """Where the device will stand: as wished, or where the one that is replaced stands."""
    if wish.replaces:
        # Locked, so that whoever revokes the device finds this invitation too.
        session.get(Device, (tenant, wish.device), with_for_update={"key_share": True})
        return find_device(session, tenant, wish.device).site
    if session.get(Device, (tenant, wish.device)) is not None:
        raise taken(wish.device)
    return wish.site


def _rows(session: Session, tenant: str, device: str) -> Sequence[Enrollment]:
    query = select(Enrollment).where(Enrollment.tenant == tenant, Enrollment.device == device)
    return session.exec(query.order_by(col(Enrollment.created_ms).desc())).all()


def _view(row: Enrollment, now_ms: int) -> InvitationView:
    return InvitationView(
        id=row.secret_sha256[:ID_LENGTH],
        device=row.device,
        profile=row.profile,
        site=row.site or None,
        replaces=row.replaces,
        invited_by=row.invited_by,
        state=_state(row, now_ms),
        created_ms=row.created_ms,
        expires_ms=row.expires_ms,
        used_ms=row.used_ms,
    )


def _state(row: Enrollment, now_ms: int) -> str:
    if row.used_ms is not None:
        return "used"
    if row.revoked_ms is not None:
        return "withdrawn"
    return "open" if row.expires_ms > now_ms else "expired"


def _told(view: InvitationView) -> dict[str, str | int | bool]:
    return {
        "invitation": view.id,
        "profile": view.profile,
        "site": view.site or "",
        "replaces": view.replaces,
        "expires_ms": view.expires_ms,
    }
