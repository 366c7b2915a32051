"""Letting a device in: its signed request becomes a registered device and a certificate, or is refused.

The device's private key is made where the device is, and never comes here. All that changes by letting a
device in changes in one transaction, with its record in the audit.
"""

from dataclasses import dataclass
from enum import Enum

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import Engine
from sqlmodel import Session

from fleet_protocol.enrollment import Enrolled
from fleet_protocol.texts import _
from fleet_server.access.roles import Actor
from fleet_server.audit.chain import Change, append
from fleet_server.authority.authority import Authority, open_authority
from fleet_server.authority.signing_requests import requested_key
from fleet_server.clock import wall_ms
from fleet_server.config import ServerConfig
from fleet_server.database.engine import writing
from fleet_server.database.models import Certificate, Device, Hold
from fleet_server.devices.certificates import (
    SUPERSEDED,
    certificate_row,
    has_any,
    key_sha256,
    of_key,
    serial_text,
)
from fleet_server.devices.hardware import mount
from fleet_server.devices.registry import add_device, find_device, taken
from fleet_server.errors import EnrollmentRefused
from fleet_server.identity.revoking import Cause, take_back
from fleet_server.updates.office import open_office
from fleet_server.updates.repository import newest_root


class Post(Enum):
    """What there is already where a device comes in."""

    NEW = "new"
    """Nothing, or the same device with the same key."""
    APPROVED = "approved"
    """A registered device that somebody has promised to this key, and nobody has filled."""
    REPLACED = "replaced"
    """A device whose board is taken away."""


@dataclass(frozen=True, slots=True)
class Newcomer:
    """A device that may come in. ``serial`` is its board's, empty where nobody said it; ``how`` let it in."""

    device: str
    profile: str
    site: str | None
    serial: str
    how: str


def enroll(engine: Engine, config: ServerConfig, newcomer: Newcomer, csr_pem: str, actor: Actor) -> Enrolled:
    """Register ``newcomer`` and sign its request; ``actor`` is who answers for it.

    The same key may ask again, because an answer can get lost, and is given the same.

    Raises:
        CsrRefused: the request is not one of this device.
        Conflict: there is a device of this name with another key.
        EnrollmentRefused: the key is one that was revoked, or another device's.
        AuthorityError: the fleet's key cannot be used.
    """
    authority = open_authority(config.authority, may_make=False)
    key = requested_key(newcomer.device, csr_pem.encode())
    with writing(engine) as session:
        certificate = admit(session, config, authority, newcomer, key, actor)
        profile = find_device(session, config.tenant, newcomer.device).profile
    return enrolled(engine, config, authority, newcomer.device, profile, certificate)


def admit(
    session: Session,
    config: ServerConfig,
    authority: Authority,
    newcomer: Newcomer,
    key: ec.EllipticCurvePublicKey,
    actor: Actor,
    post: Post = Post.NEW,
) -> x509.Certificate:
    """Register the device of ``key`` and certify it, in the transaction of ``session``.

    Where it takes over the post of a device that is there, its history stays, and what the board before it
    had counts no more.

    Raises:
        Conflict: there is a device of this name with another key.
        NotFound: there is none to be replaced.
        EnrollmentRefused: the key is one that was revoked, or another device's.
    """
    tenant, now_ms = config.tenant, wall_ms()
    # Locked, so that whoever revokes or holds it meanwhile waits for the certificate that is made here.
    row = session.get(Device, (tenant, newcomer.device), with_for_update={"key_share": True})
    _require_not_held(session, tenant, newcomer.device)
    known = [one for one in _usable(session, tenant, newcomer.device, key) if one.revoked_ms is None]
    if post is Post.REPLACED:
        row = find_device(session, tenant, newcomer.device)
        row.profile = newcomer.profile
        session.add(row)
        take_back(session, tenant, newcomer.device, Cause.SUPERSEDED, now_ms)
    elif row is None:
        add_device(session, tenant, newcomer.device, newcomer.profile, newcomer.site)
    elif not known and (post is Post.NEW or has_any(session, tenant, newcomer.device)):
        raise taken(newcomer.device)
    elif known and _lasts(known[0], now_ms):
        return x509.load_pem_x509_certificate(known[0].pem.encode())
    certificate = authority.certify(newcomer.device, key, config.certificate_days)
    session.add(certificate_row(tenant, newcomer.device, certificate, authority.trust_sha256))
    if newcomer.serial:
        mount(session, tenant, newcomer.device, newcomer.serial, now_ms)
    append(session, tenant, actor, _change(newcomer, certificate, post))
    return certificate


def given_again(
    session: Session, tenant: str, device: str, key: ec.EllipticCurvePublicKey
) -> x509.Certificate:
    """The certificate that ``device`` was let in with by ``key``, once more, because an answer can get lost.

    What let it in was for one certificate: no other one comes of it, however long the board is gone.

    Raises:
        EnrollmentRefused: it is kept out, or has none that still counts.
    """
    _require_not_held(session, tenant, device)
    for one in _usable(session, tenant, device, key):
        if one.device == device and one.revoked_ms is None and one.not_after_ms > wall_ms():
            return x509.load_pem_x509_certificate(one.pem.encode())
    raise EnrollmentRefused(
        "certificate_over",
        _("{device!r} was let in before, and the certificate it was given counts no more").format(
            device=device
        ),
        _(
            "Renew it on the device: edge-agent identity renew. Where that is refused, invite it anew: "
            "fleet device invite {device} --replace."
        ).format(device=device),
    )


def enrolled(
    engine: Engine,
    config: ServerConfig,
    authority: Authority,
    device: str,
    profile: str,
    certificate: x509.Certificate,
) -> Enrolled:
    """What ``device`` is told when it was let in.

    Raises:
        AuthorityError: ``certificate`` was not signed by an authority of this fleet that still counts.
    """
    updates = open_office(engine, config)
    published = updates.repository.current()
    return Enrolled(
        device=device,
        profile=profile,
        certificate_pem=authority.chain(certificate).decode(),
        ca_pem=authority.pem.decode(),
        broker_host=config.mqtt_host,
        broker_port=config.mqtt_port,
        server_url=config.device_url,
        updates_url=updates.url,
        image_root=newest_root(published.image_roots) if published else None,
        director_root=newest_root(published.director_roots) if published else None,
    )


def _require_not_held(session: Session, tenant: str, device: str) -> None:
    """A device that somebody keeps out does not come in again with another certificate."""
    if session.get(Hold, (tenant, device)) is not None:
        raise EnrollmentRefused(
            "device_held",
            _("{device!r} is kept out").format(device=device),
            _("Let it in again first: fleet device release {device}.").format(device=device),
        )


def _usable(session: Session, tenant: str, device: str, key: ec.EllipticCurvePublicKey) -> list[Certificate]:
    """The certificates that ``key`` had before.

    Raises:
        EnrollmentRefused: it must not have another one.
    """
    had = of_key(session, tenant, key_sha256(key))
    if any(one.revoked_ms is not None and one.revoked_reason != SUPERSEDED for one in had):
        raise EnrollmentRefused(
            "key_revoked",
            _("the key of this device was revoked"),
            _("Remove key.pem and cert.pem on the device, so that it makes a new key, and enroll it again."),
        )
    others = {one.device for one in had} - {device}
    if others:
        raise EnrollmentRefused(
            "key_elsewhere",
            _("the key of this device is that of {others}: its storage was copied").format(
                others=", ".join(sorted(others))
            ),
            _("Remove key.pem and cert.pem on the copy, so that it makes a key of its own."),
        )
    return list(had)


def _lasts(certificate: Certificate, now_ms: int) -> bool:
    """Whether a third of its time is left, so that it is worth being given again."""
    return (certificate.not_after_ms - now_ms) * 3 > certificate.not_after_ms - certificate.not_before_ms


def _change(newcomer: Newcomer, certificate: x509.Certificate, post: Post) -> Change:
    told = {
        "how": newcomer.how,
        "profile": newcomer.profile,
        "site": newcomer.site or "",
        "board": newcomer.serial,
        "certificate": serial_text(certificate),
        "replaces": post is Post.REPLACED,
    }
    return Change("device.enroll", newcomer.device, after=told, detail=told)
