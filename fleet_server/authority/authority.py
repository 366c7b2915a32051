"""The fleet's certificate authority: who may speak to the broker, and under which name.

There are two tiers. A root, whose key can be away, vouches for issuing authorities; those sign what
devices meet (the broker's and the servers' certificates), the server's own services, the devices, and
the lists of the revoked. While the root is being exchanged there are two: devices get certificates
under the new one, and meet servers under the old one, which is all that some of them trust.

It holds nothing of who is registered; that is :mod:`fleet_server.identity.enrollment`.
"""

import hashlib
from collections.abc import Iterable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from fleet_protocol.enrollment import claim_name
from fleet_protocol.texts import _
from fleet_protocol.topics import is_device_id, is_service_name
from fleet_server.authority.files import Issuing, read_state, unusable
from fleet_server.authority.founding import make_authority
from fleet_server.authority.issuing import (
    CLIENT,
    SERVER,
    SERVER_DAYS,
    SERVICE_DAYS,
    STATEMENTS,
    Issuer,
    Revoked,
    issuer_key_id,
    key_id,
    make_crl,
    make_leaf,
    pem,
)
from fleet_server.authority.key_store import open_key
from fleet_server.authority.signing_requests import requested_key
from fleet_server.clock import now
from fleet_server.errors import AuthorityError, CsrRefused

BROKER_NAME: Final = "svc.broker"
UPDATES_NAME: Final = "svc.device"
API_NAME: Final = "svc.api"
"""The common names of what is met from outside: the broker, the device listener, the API."""

ALWAYS_NAMED: Final = ("localhost", "127.0.0.1", "::1")
"""How a server is reached from its own machine."""


class Authority:
    """The keys that sign, and what they sign. Made by :func:`open_authority`.

    ``roots`` and ``issuers`` stand from the oldest to the newest; issuers that have expired are left out.
    """

    def __init__(self, roots: Sequence[x509.Certificate], issuers: Sequence[Issuer]) -> None:
        self.roots = tuple(roots)
        self.issuers = tuple(issuers)

    @property
    def pem(self) -> bytes:
        """The roots: what a device trusts."""
        return pem(self.roots)

    @property
    def broker_pem(self) -> bytes:
        """The roots and the issuing authorities: what a broker has to know."""
        return pem((*self.roots, *(issuer.certificate for issuer in self.issuers)))

    @property
    def trust_sha256(self) -> str:
        """The digest of :attr:`pem`, in hexadecimal."""
        return hashlib.sha256(self.pem).hexdigest()

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of the newest root's certificate, in hexadecimal."""
        return self.roots[-1].fingerprint(hashes.SHA256()).hex()

    @property
    def met_fingerprint(self) -> str:
        """The SHA-256 of the root that servers prove themselves under, in hexadecimal: a newcomer pins it."""
        return self.roots[0].fingerprint(hashes.SHA256()).hex()

    @property
    def device_issuer(self) -> Issuer:
        """Who signs for devices and services.

        Raises:
            AuthorityError: it has expired.
        """
        return self._issuer_under(self.roots[-1])

    @property
    def server_issuer(self) -> Issuer:
        """Who signs for what devices meet: under the oldest root, the one that all of them trust.

        Raises:
            AuthorityError: it has expired.
        """
        return self._issuer_under(self.roots[0])

    def newest_under(self, root: x509.Certificate) -> Issuer | None:
        """The newest issuing authority of ``root``, if it has one that has not expired."""
        under = [one for one in self.issuers if issuer_key_id(one.certificate) == key_id(root)]
        return under[-1] if under else None

    def issue_for_device(self, device: str, csr_pem: bytes, days: int) -> x509.Certificate:
        """A client certificate for ``device`` and the public key of its signed request.

        Raises:
            CsrRefused: the request is not a P-256 one signed by its own key, or asks for
                another name.
        """
        _require_device_id(device)
        return self.certify(device, requested_key(device, csr_pem), days)

    def certify(self, device: str, public_key: ec.EllipticCurvePublicKey, days: int) -> x509.Certificate:
        """A client certificate for ``device`` and a key that has proved itself in another way.

        Raises:
            CsrRefused: ``device`` is no device id.
        """
        _require_device_id(device)
        return self._for_client(device, public_key, timedelta(days=days))

    def issue_passing(
        self, name: str, public_key: ec.EllipticCurvePublicKey, minutes: float
    ) -> x509.Certificate:
        """A client certificate in the name of a device, for minutes: to take over its session.

        Raises:
            CsrRefused: ``name`` is no device's.
        """
        _require_device_id(name)
        return self._for_client(name, public_key, timedelta(minutes=minutes))

    def issue_for_service(
        self, name: str, public_key: ec.EllipticCurvePublicKey, days: int = SERVICE_DAYS
    ) -> x509.Certificate:
        """A client certificate for one of the server's own connections."""
        if not is_service_name(name):
            raise AuthorityError(_("{name!r} is no service's name; use svc.NAME").format(name=name[:80]))
        return self._for_client(name, public_key, timedelta(days=days))

    def issue_for_claims(self, batch: str, csr_pem: bytes, lasts_s: int) -> x509.Certificate:
        """A certificate for the key that the boards of ``batch`` sign their claims with; it is no client's.

        Raises:
            CsrRefused: the request is not a P-256 one signed by its own key, or asks for another name.
        """
        name = claim_name(batch)
        lasts = timedelta(seconds=lasts_s)
        return make_leaf(self.device_issuer, name, requested_key(name, csr_pem), STATEMENTS, lasts, now())

    def issue_for_server(
        self, name: str, host: str, public_key: ec.EllipticCurvePublicKey, days: int = SERVER_DAYS
    ) -> x509.Certificate:
        """A server certificate of ``name``, under ``host`` and the names of this machine itself."""
        hosts = dict.fromkeys((*ALWAYS_NAMED, host))
        return make_leaf(
            self.server_issuer, name, public_key, SERVER, timedelta(days=days), now(), hosts=hosts
        )

    def chain(self, certificate: x509.Certificate) -> bytes:
        """``certificate`` and the issuing authority that signed it, in PEM: what its holder has to show.

        Raises:
            AuthorityError: nobody here signed it, or that one has expired.
        """
        signed_by = issuer_key_id(certificate)
        for issuer in self.issuers:
            if key_id(issuer.certificate) == signed_by:
                return pem((certificate, issuer.certificate))
        raise AuthorityError(_("the certificate was not signed by an issuing authority of this fleet"))

    def crl_pem(self, revoked: Iterable[Revoked]) -> bytes:
        """One signed list of the revoked for each issuing authority, one after the other, in PEM.

        Each holds all of ``revoked``: serial numbers are random, so none means another certificate. What
        has expired may be left out.
        """
        entries, at = tuple(revoked), now()
        lists = (make_crl(issuer, entries, at) for issuer in self.issuers)
        return b"".join(one.public_bytes(Encoding.PEM) for one in lists)

    def _for_client(
        self, name: str, public_key: ec.EllipticCurvePublicKey, lasts: timedelta
    ) -> x509.Certificate:
        return make_leaf(self.device_issuer, name, public_key, CLIENT, lasts, now())

    def _issuer_under(self, root: x509.Certificate) -> Issuer:
        issuer = self.newest_under(root)
        if issuer is None:
            raise AuthorityError(
                _(
                    "the issuing authority has expired; stop the server and run "
                    "'fleet-server authority renew-issuing'"
                )
            )
        return issuer


def open_authority(folder: Path, *, may_make: bool) -> Authority:
    """The authority kept in ``folder``; where there is none and ``may_make``, a new one.

    Raises:
        AuthorityError: its files are missing in part, unreadable, or do not belong together; or a key
            cannot be reached.
    """
    if not folder.exists() and may_make:
        make_authority(folder)
    state = read_state(folder)
    try:
        roots = [x509.load_pem_x509_certificate(one.encode()) for one in state.roots]
        issuers = [_open_issuer(folder, one, roots) for one in state.issuing]
    except (OSError, ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound) as error:
        raise unusable(folder, str(error)) from error
    return Authority(roots, [issuer for issuer in issuers if issuer is not None])


def _open_issuer(folder: Path, entry: Issuing, roots: Iterable[x509.Certificate]) -> Issuer | None:
    """The issuing authority of ``entry``, if it has not expired.

    Raises:
        ValueError: it does not belong to this fleet, or its key is another's.
    """
    certificate = x509.load_pem_x509_certificate(entry.certificate.encode())
    root = next((one for one in roots if key_id(one) == issuer_key_id(certificate)), None)
    if root is None:
        raise ValueError(_("an issuing authority is not signed by a root of this fleet"))
    certificate.verify_directly_issued_by(root)
    if certificate.not_valid_after_utc <= now():
        return None
    key = open_key(folder, entry.key)
    if key.public_key() != certificate.public_key():
        raise ValueError(_("{key} is not the key of its certificate").format(key=entry.key))
    return Issuer(certificate, key)


def _require_device_id(device: str) -> None:
    if not is_device_id(device):
        raise CsrRefused(
            _("{device!r} is no device id; use 1 to 63 of a-z, 0-9 and '-'").format(device=device[:80])
        )
