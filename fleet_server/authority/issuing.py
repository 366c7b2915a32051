"""Building certificates and revocation lists: under which name, for what, and for how long. Pure.

Every key is P-256. Which key signs for whom is :mod:`fleet_server.authority.authority`'s to say.
"""

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

ROOT_DAYS: Final = 7300
"""Twenty years: a root is pinned on every device and changed by hand, never by surprise."""

ISSUING_DAYS: Final = 1825
"""Five years: what an online key is worth to a thief ends, and renewing it needs the root."""

SERVER_DAYS: Final = 365
SERVICE_DAYS: Final = 365
"""Renewed at a start once less than a third is left, so a yearly restart is enough."""

CRL_DAYS: Final = 30
"""How long a list of the revoked may be used; one that has expired makes the broker refuse everybody."""

BACKDATED: Final = timedelta(hours=1)
"""A certificate counts from a little before it was made: clocks in the field run behind."""

_ID_BYTES: Final = 6
"""How much of a key's identifier tells it from its few neighbors."""

STATEMENTS: Final = x509.ObjectIdentifier("1.3.6.1.5.5.7.3.36")
"""To sign documents (RFC 9336) and nothing else: no listener takes it for a client's."""

CLIENT: Final = ExtendedKeyUsageOID.CLIENT_AUTH
SERVER: Final = ExtendedKeyUsageOID.SERVER_AUTH

REASONS: Final = {
    reason.value: reason
    for reason in (
        x509.ReasonFlags.key_compromise,
        x509.ReasonFlags.affiliation_changed,
        x509.ReasonFlags.superseded,
        x509.ReasonFlags.cessation_of_operation,
        x509.ReasonFlags.privilege_withdrawn,
    )
}
"""The reasons of RFC 5280 that a revocation may give; 'unspecified' is told by giving none."""


@dataclass(frozen=True, slots=True)
class Issuer:
    """A certificate that may sign others, and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


@dataclass(frozen=True, slots=True)
class Revoked:
    """A certificate that counts no more, since ``at_ms`` (milliseconds since 1970).

    ``reason`` is one of :data:`REASONS`; whatever else it is, none is told.
    """

    serial: int
    at_ms: int
    reason: str


def make_root(key: ec.EllipticCurvePrivateKey, now: datetime) -> x509.Certificate:
    """A root for ``key``, vouching for itself; it may sign issuing authorities."""
    name = _authority_name("Argan fleet root", key.public_key())
    builder = _builder(name, name, key.public_key(), _validity(now, timedelta(days=ROOT_DAYS)))
    return _as_authority(builder, path_length=1).sign(key, hashes.SHA256())


def make_issuing(root: Issuer, public_key: ec.EllipticCurvePublicKey, now: datetime) -> x509.Certificate:
    """An issuing authority for ``public_key``; it may sign what is no authority."""
    name = _authority_name("Argan fleet issuing authority", public_key)
    validity = _validity(now, timedelta(days=ISSUING_DAYS), root)
    builder = _builder(name, root.certificate.subject, public_key, validity)
    builder = builder.add_extension(_issued_by(root), critical=False)
    return _as_authority(builder, path_length=0).sign(root.key, hashes.SHA256())


def make_leaf(
    issuer: Issuer,
    name: str,
    public_key: ec.EllipticCurvePublicKey,
    usage: x509.ObjectIdentifier,
    lasts: timedelta,
    now: datetime,
    *,
    hosts: Iterable[str] = (),
) -> x509.Certificate:
    """A certificate of ``name`` alone, for ``usage``; never valid for longer than its issuer."""
    validity = _validity(now, lasts, issuer)
    builder = (
        _builder(common_name(name), issuer.certificate.subject, public_key, validity)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(_issued_by(issuer), critical=False)
    )
    names = [general_name(host) for host in hosts]
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(issuer.key, hashes.SHA256())


def make_crl(issuer: Issuer, revoked: Iterable[Revoked], now: datetime) -> x509.CertificateRevocationList:
    """The list of ``issuer``, good for :data:`CRL_DAYS`; its number follows the clock, in microseconds."""
    begins, ends = _validity(now, timedelta(days=CRL_DAYS))
    builder = (
        x509.CertificateRevocationListBuilder(issuer.certificate.subject, begins, ends)
        .add_extension(_issued_by(issuer), critical=False)
        .add_extension(x509.CRLNumber(int(now.timestamp() * 1_000_000)), critical=False)
    )
    for one in revoked:
        builder = builder.add_revoked_certificate(_entry(one))
    return builder.sign(issuer.key, hashes.SHA256())


def common_name(name: str) -> x509.Name:
    """The subject that consists of ``name`` alone."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def general_name(host: str) -> x509.GeneralName:
    """``host`` as a certificate names it: an address or a DNS name."""
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def key_id(certificate: x509.Certificate) -> bytes:
    """The identifier of the key that ``certificate``, one of an authority, is for."""
    return certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest


def public_key_id(public_key: ec.EllipticCurvePublicKey) -> bytes:
    """The identifier of ``public_key``."""
    return x509.SubjectKeyIdentifier.from_public_key(public_key).digest


def short_id(identifier: bytes) -> str:
    """What an authority is called by people and in files' names: the beginning of its key's identifier."""
    return identifier[:_ID_BYTES].hex()


def issuer_key_id(certificate: x509.Certificate) -> bytes | None:
    """The identifier of the key that signed ``certificate``, as that says itself."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
    except x509.ExtensionNotFound:
        return None
    return found.value.key_identifier


def pem(certificates: Iterable[x509.Certificate]) -> bytes:
    """``certificates`` one after the other, in PEM."""
    return b"".join(one.public_bytes(serialization.Encoding.PEM) for one in certificates)


def _authority_name(what: str, public_key: ec.EllipticCurvePublicKey) -> x509.Name:
    # With a name of its own each, whoever looks an issuer up by its name finds the right one of two.
    return common_name(f"{what} {short_id(public_key_id(public_key))}")


def _validity(now: datetime, lasts: timedelta, issuer: Issuer | None = None) -> tuple[datetime, datetime]:
    now = now.replace(microsecond=0)
    ends = now + lasts
    if issuer is not None:
        ends = min(ends, issuer.certificate.not_valid_after_utc)
    return now - BACKDATED, ends


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    validity: tuple[datetime, datetime],
) -> x509.CertificateBuilder:
    identifier = x509.SubjectKeyIdentifier.from_public_key(public_key)
    builder = x509.CertificateBuilder(issuer, subject, public_key, x509.random_serial_number(), *validity)
    return builder.add_extension(identifier, critical=False)


def _as_authority(builder: x509.CertificateBuilder, path_length: int) -> x509.CertificateBuilder:
    return builder.add_extension(
        x509.BasicConstraints(ca=True, path_length=path_length), critical=True
    ).add_extension(_key_usage(key_cert_sign=True, crl_sign=True), critical=True)


def _issued_by(issuer: Issuer) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier(key_id(issuer.certificate), None, None)


def _entry(one: Revoked) -> x509.RevokedCertificate:
    at = datetime.fromtimestamp(one.at_ms // 1000, UTC)
    entry = x509.RevokedCertificateBuilder(one.serial, at)
    reason = REASONS.get(one.reason)
    if reason is not None:
        entry = entry.add_extension(x509.CRLReason(reason), critical=False)
    return entry.build()


def _key_usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
