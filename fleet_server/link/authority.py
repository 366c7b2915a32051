"""The fleet's certificate authority: who may speak to the broker, and under which name.

One P-256 key signs three kinds of certificate: those that devices meet (the broker's and the update
server's, server side only), those of the server's own services, and those of devices (client side
only). A device's certificate carries its
id as only name; of its request nothing but the public key is taken over.

It holds nothing of who is registered; that is :mod:`fleet_server.link.enrollment`.
"""

import ipaddress
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fleet_protocol.texts import _
from fleet_protocol.topics import is_device_id, is_service_name
from fleet_server.errors import AuthorityError, CsrRefused
from fleet_server.files import make_folder, write_durably
from fleet_signing.files import flush_folder

CA_DAYS: Final = 7300
"""Twenty years: the root is pinned on every device and changed by hand, never by surprise."""

SERVER_DAYS: Final = 365
SERVICE_DAYS: Final = 365
"""Renewed at a start once less than a third is left, so a yearly restart is enough."""

DEVICE_DAYS: Final = 365
"""Devices cannot renew over the network yet; a year bounds what a stolen key is worth."""

BACKDATED: Final = timedelta(hours=1)
"""A certificate counts from a little before it was made: clocks in the field run behind."""

MAX_CSR_BYTES: Final = 16 * 1024
"""A P-256 request has some 500 bytes; more is no request of ours."""

BROKER_NAME: Final = "svc.broker"
UPDATES_NAME: Final = "svc.device"
API_NAME: Final = "svc.api"
"""The common names of what is met from outside: the broker, the device listener, the API."""

_ALWAYS_NAMED: Final = ("localhost", "127.0.0.1", "::1")
_CLIENT: Final = ExtendedKeyUsageOID.CLIENT_AUTH
_SERVER: Final = ExtendedKeyUsageOID.SERVER_AUTH


class Authority:
    """The key that signs, and what it signs. Made by :func:`open_authority`."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        self._key = key
        self.certificate = certificate

    @property
    def pem(self) -> bytes:
        """The authority's own certificate."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def issue_for_device(self, device: str, csr_pem: bytes, days: int = DEVICE_DAYS) -> x509.Certificate:
        """A client certificate for ``device`` and the public key of its signed request.

        Raises:
            CsrRefused: the request is not a P-256 one signed by its own key, or asks for
                another name.
        """
        if not is_device_id(device):
            raise CsrRefused(
                _("{device!r} is no device id; use 1 to 63 of a-z, 0-9 and '-'").format(device=device[:80])
            )
        return self._sign(device, _requested_key(device, csr_pem), _CLIENT, days)

    def issue_for_service(
        self, name: str, public_key: ec.EllipticCurvePublicKey, days: int = SERVICE_DAYS
    ) -> x509.Certificate:
        """A client certificate for one of the server's own connections."""
        if not is_service_name(name):
            raise AuthorityError(_("{name!r} is no service's name; use svc.NAME").format(name=name[:80]))
        return self._sign(name, public_key, _CLIENT, days)

    def issue_for_server(
        self, name: str, host: str, public_key: ec.EllipticCurvePublicKey, days: int = SERVER_DAYS
    ) -> x509.Certificate:
        """A server certificate of ``name``, under ``host`` and the names of this machine itself."""
        names = [_general_name(each) for each in dict.fromkeys((*_ALWAYS_NAMED, host))]
        return self._sign(name, public_key, _SERVER, days, x509.SubjectAlternativeName(names))

    def _sign(
        self,
        name: str,
        public_key: ec.EllipticCurvePublicKey,
        usage: x509.ObjectIdentifier,
        days: int,
        also: x509.ExtensionType | None = None,
    ) -> x509.Certificate:
        issuer_key = self._key.public_key()
        builder = (
            _validity(x509.CertificateBuilder(), days)
            .subject_name(_common_name(name))
            .issuer_name(self.certificate.subject)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False)
        )
        if also is not None:
            builder = builder.add_extension(also, critical=False)
        return builder.sign(self._key, hashes.SHA256())


def open_authority(folder: Path, *, may_make: bool) -> Authority:
    """The authority kept in ``folder``; where there is none and ``may_make``, a new one.

    Raises:
        AuthorityError: its files are missing in part, unreadable, or do not belong together.
    """
    if not folder.exists() and may_make:
        _make(folder)
    try:
        key_pem, certificate_pem = (folder / "ca.key").read_bytes(), (folder / "ca.pem").read_bytes()
        key = serialization.load_pem_private_key(key_pem, password=None)
        certificate = x509.load_pem_x509_certificate(certificate_pem)
    except (OSError, ValueError, TypeError) as error:
        raise _unusable(folder, str(error)) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise _unusable(folder, _("ca.key is not the key of ca.pem"))
    return Authority(key, certificate)


def provide_service(authority: Authority, folder: Path, name: str) -> None:
    """See to it that ``folder`` holds a ``key.pem`` and a ``cert.pem`` for the service ``name``."""
    if not _is_good(authority, folder, _common_name(name), ()):
        key = _provide_key(folder)
        _write_certificate(folder, authority.issue_for_service(name, key.public_key()))


def provide_broker(authority: Authority, folder: Path, host: str) -> None:
    """See to it that ``folder`` holds the broker's ``key.pem``, ``cert.pem`` and the ``ca.pem`` it trusts."""
    make_folder(folder)
    write_durably(folder / "ca.pem", authority.pem, 0o644)
    provide_server(authority, folder, BROKER_NAME, host)


def provide_server(authority: Authority, folder: Path, name: str, host: str) -> None:
    """See to it that ``folder`` holds ``key.pem`` and ``cert.pem`` of ``name``, reached at ``host``."""
    if not _is_good(authority, folder, _common_name(name), (host, *_ALWAYS_NAMED)):
        key = _provide_key(folder)
        _write_certificate(folder, authority.issue_for_server(name, host, key.public_key()))


def _make(folder: Path) -> None:
    """Both files or neither: they are made in a folder beside and renamed together."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _common_name("Argan fleet authority")
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        _validity(x509.CertificateBuilder(), CA_DAYS)
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA256())
    )
    beside = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(beside, ignore_errors=True)
    make_folder(beside)
    write_durably(beside / "ca.key", _key_pem(key))
    write_durably(beside / "ca.pem", certificate.public_bytes(serialization.Encoding.PEM), 0o644)
    beside.rename(folder)
    flush_folder(folder.parent)


def _requested_key(device: str, csr_pem: bytes) -> ec.EllipticCurvePublicKey:
    if len(csr_pem) > MAX_CSR_BYTES:
        raise CsrRefused(
            _("the certificate request is larger than {limit} bytes").format(limit=MAX_CSR_BYTES)
        )
    try:
        request = x509.load_pem_x509_csr(csr_pem)
        public_key, is_signed = request.public_key(), request.is_signature_valid
        names = [attribute.value for attribute in request.subject]
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise CsrRefused(_("this is no certificate request in PEM: {reason}").format(reason=error)) from error
    if not is_signed:
        raise CsrRefused(_("the certificate request is not signed by its own key; make it again"))
    if not isinstance(public_key, ec.EllipticCurvePublicKey) or not isinstance(
        public_key.curve, ec.SECP256R1
    ):
        raise CsrRefused(_("the certificate request's key is not P-256; make the key with curve prime256v1"))
    if request.subject != _common_name(device):
        raise CsrRefused(
            _("the certificate request names {names}, not {device!r} alone; make it with CN={device}").format(
                names=str(names)[:120], device=device
            )
        )
    return public_key


def _is_good(authority: Authority, folder: Path, subject: x509.Name, hosts: tuple[str, ...]) -> bool:
    """Whether the certificate in ``folder`` is ours, fits key and names, and has a third of its time left."""
    try:
        key = _read_key(folder)
        certificate = x509.load_pem_x509_certificate((folder / "cert.pem").read_bytes())
        certificate.verify_directly_issued_by(authority.certificate)
    except (OSError, ValueError, TypeError, InvalidSignature):
        return False
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return (
        key.public_key() == certificate.public_key()
        and certificate.subject == subject
        and _names(certificate).issuperset(_general_name(host) for host in hosts)
        and (ends - datetime.now(UTC)) * 3 > ends - begins
    )


def _names(certificate: x509.Certificate) -> set[x509.GeneralName]:
    try:
        return set(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return set()


def _provide_key(folder: Path) -> ec.EllipticCurvePrivateKey:
    """The key in ``folder``; a new one where there is none that can be used."""
    try:
        return _read_key(folder)
    except (OSError, ValueError, TypeError):
        key = ec.generate_private_key(ec.SECP256R1())
    make_folder(folder)
    write_durably(folder / "key.pem", _key_pem(key))
    return key


def _read_key(folder: Path) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key((folder / "key.pem").read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError(key)
    return key


def _write_certificate(folder: Path, certificate: x509.Certificate) -> None:
    write_durably(folder / "cert.pem", certificate.public_bytes(serialization.Encoding.PEM), 0o644)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _validity(builder: x509.CertificateBuilder, days: int) -> x509.CertificateBuilder:
    now = datetime.now(UTC).replace(microsecond=0)
    return builder.not_valid_before(now - BACKDATED).not_valid_after(now + timedelta(days=days))


def _common_name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


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


def _unusable(folder: Path, reason: str) -> AuthorityError:
    return AuthorityError(
        _(
            "the fleet's authority in {folder} cannot be used ({reason}); restore the folder from a backup. "
            "Without it every device must be added again"
        ).format(folder=folder, reason=reason)
    )
