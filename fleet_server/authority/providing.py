"""Certificates on disk for the server's own parts: made, and made anew before they end.

Each folder holds ``key.pem`` and ``cert.pem``, the certificate followed by who issued it.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec

from fleet_server.authority.authority import ALWAYS_NAMED, BROKER_NAME, Authority
from fleet_server.authority.files import ROOTS_FILE
from fleet_server.authority.issuing import Issuer, Revoked, common_name, general_name
from fleet_server.authority.key_files import make_key_file, read_key_file
from fleet_server.files import make_folder, write_durably

KEY_FILE = "key.pem"
CERTIFICATE_FILE = "cert.pem"
CRL_FILE = "crl.pem"


def provide_service(authority: Authority, folder: Path, name: str) -> None:
    """See to it that ``folder`` holds key and certificate of the service ``name``."""
    if not _is_good(authority.device_issuer, folder, name, ()):
        key = _provide_key(folder)
        _write(authority, folder, authority.issue_for_service(name, key.public_key()))


def provide_server(authority: Authority, folder: Path, name: str, host: str) -> None:
    """See to it that ``folder`` holds key and certificate of ``name``, reached at ``host``."""
    if not _is_good(authority.server_issuer, folder, name, (host, *ALWAYS_NAMED)):
        key = _provide_key(folder)
        _write(authority, folder, authority.issue_for_server(name, host, key.public_key()))


def provide_broker(authority: Authority, folder: Path, host: str, revoked: Iterable[Revoked]) -> None:
    """See to it that ``folder`` holds the broker's key and certificate, whom it trusts, and who is revoked.

    The lists of the revoked are always made anew: they have to name every issuing authority, and to last.
    """
    make_folder(folder)
    write_durably(folder / ROOTS_FILE, authority.broker_pem, 0o644)
    write_durably(folder / CRL_FILE, authority.crl_pem(revoked), 0o644)
    provide_server(authority, folder, BROKER_NAME, host)


def provide_roots(authority: Authority, path: Path) -> None:
    """See to it that ``path`` holds the roots, also where a power cut came before they were written."""
    write_durably(path, authority.pem, 0o644)


def _is_good(issuer: Issuer, folder: Path, name: str, hosts: tuple[str, ...]) -> bool:
    """Whether what is in ``folder`` is ours, fits key and names, and has a third of its time left."""
    try:
        key = read_key_file(folder / KEY_FILE)
        chain = x509.load_pem_x509_certificates((folder / CERTIFICATE_FILE).read_bytes())
        certificate = chain[0]
        certificate.verify_directly_issued_by(issuer.certificate)
    except (OSError, ValueError, TypeError, InvalidSignature):
        return False
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return (
        chain[1:] == [issuer.certificate]
        and key.public_key() == certificate.public_key()
        and certificate.subject == common_name(name)
        and _names(certificate).issuperset(general_name(host) for host in hosts)
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
        return read_key_file(folder / KEY_FILE)
    except (OSError, ValueError):
        make_folder(folder)
        return make_key_file(folder / KEY_FILE)


def _write(authority: Authority, folder: Path, certificate: x509.Certificate) -> None:
    write_durably(folder / CERTIFICATE_FILE, authority.chain(certificate), 0o644)
