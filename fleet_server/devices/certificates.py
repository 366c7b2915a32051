"""What the database remembers of the certificates that the fleet's authority gave out."""

import hashlib
from collections.abc import Sequence
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sqlalchemy import Engine
from sqlmodel import Session, col, select

from fleet_server.authority.issuing import Revoked
from fleet_server.database.models import Certificate

SUPERSEDED: Final = "superseded"
"""The reason of RFC 5280 for a board that was taken away in good faith: its key is not known to be stolen."""


def serial_text(certificate: x509.Certificate) -> str:
    """How a certificate's serial number stands in the database: hexadecimal."""
    return f"{certificate.serial_number:x}"


def key_sha256(key: CertificatePublicKeyTypes) -> str:
    """The digest of a public key (its SubjectPublicKeyInfo), in hexadecimal."""
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def certificate_row(
    tenant: str, device: str, certificate: x509.Certificate, trust_sha256: str
) -> Certificate:
    """The row for a certificate that was just made; ``trust_sha256`` is of the roots given with it."""
    issuer = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    return Certificate(
        tenant=tenant,
        serial=serial_text(certificate),
        device=device,
        sha256=certificate.fingerprint(hashes.SHA256()).hex(),
        key_sha256=key_sha256(certificate.public_key()),
        issuer=(issuer.key_identifier or b"").hex(),
        trust_sha256=trust_sha256,
        pem=certificate.public_bytes(Encoding.PEM).decode(),
        not_before_ms=int(certificate.not_valid_before_utc.timestamp() * 1000),
        not_after_ms=int(certificate.not_valid_after_utc.timestamp() * 1000),
    )


def of_key(session: Session, tenant: str, key_sha256: str) -> Sequence[Certificate]:
    """Every certificate that a key ever had, of whichever device; the one that lasts longest first."""
    query = select(Certificate).where(Certificate.tenant == tenant, Certificate.key_sha256 == key_sha256)
    return session.exec(query.order_by(col(Certificate.not_after_ms).desc())).all()


def has_any(session: Session, tenant: str, device: str) -> bool:
    """Whether ``device`` was ever given a certificate."""
    query = select(Certificate.serial).where(Certificate.tenant == tenant, Certificate.device == device)
    return session.exec(query).first() is not None


def all_revoked(engine: Engine, now_ms: int) -> list[Revoked]:
    """Every certificate, of whichever tenant, that was revoked and has not expired at ``now_ms``."""
    query = select(Certificate.serial, Certificate.revoked_ms, Certificate.revoked_reason).where(
        col(Certificate.revoked_ms).is_not(None), Certificate.not_after_ms > now_ms
    )
    with Session(engine) as session:
        rows = session.exec(query.order_by(col(Certificate.serial))).all()
    return [Revoked(int(serial, 16), at_ms or 0, reason) for serial, at_ms, reason in rows]


def trust_of_devices(engine: Engine, trust_sha256: str) -> tuple[list[str], list[str]]:
    """Devices of every tenant: those that were given the roots of this digest, and those that were not.

    A device whose certificates were all revoked is neither.
    """
    query = select(Certificate.device, Certificate.trust_sha256).where(col(Certificate.revoked_ms).is_(None))
    with Session(engine) as session:
        rows = session.exec(query.distinct()).all()
    given = {device for device, trust in rows if trust == trust_sha256}
    return sorted(given), sorted({device for device, _trust in rows} - given)
