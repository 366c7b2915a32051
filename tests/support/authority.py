"""A certificate authority for tests: P-256, as a fleet has it."""

import datetime as dt
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

DAY = dt.timedelta(days=1)


@dataclass(frozen=True)
class Credentials:
    """The three files of one party."""

    name: str
    ca: Path
    certificate: Path
    key: Path


class TestAuthority:
    """Issues certificates into folders and revokes them."""

    __test__ = False

    def __init__(self, folder: Path, name: str = "test fleet") -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._revoked: list[x509.RevokedCertificate] = []
        now = dt.datetime.now(dt.UTC)
        certificate = (
            _builder(self._name, self._name, self._key, now - DAY, now + 365 * DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        self.ca = folder / "ca.pem"
        self.ca.write_bytes(certificate.public_bytes(Encoding.PEM))
        self.crl = folder / "crl.pem"
        self._write_crl()

    def issue(
        self,
        name: str,
        *,
        begins: dt.timedelta = -DAY,
        ends: dt.timedelta = 30 * DAY,
        folder: Path | None = None,
    ) -> Credentials:
        """Key, certificate and CA for ``name``; valid on the loopback interface as a server too."""
        folder = folder or self.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = dt.datetime.now(dt.UTC)
        loopback = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        certificate = (
            _builder(subject, self._name, key, now + begins, now + ends)
            .add_extension(x509.SubjectAlternativeName(loopback), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        credentials = Credentials(name, folder / "ca.pem", folder / "cert.pem", folder / "key.pem")
        credentials.ca.write_bytes(self.ca.read_bytes())
        credentials.certificate.write_bytes(certificate.public_bytes(Encoding.PEM))
        credentials.key.touch(mode=0o600)
        credentials.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return credentials

    def revoke(self, credentials: Credentials) -> None:
        """Put the certificate on the revocation list; the broker reads it at its next start."""
        certificate = x509.load_pem_x509_certificate(credentials.certificate.read_bytes())
        entry = x509.RevokedCertificateBuilder().serial_number(certificate.serial_number)
        self._revoked.append(entry.revocation_date(dt.datetime.now(dt.UTC)).build())
        self._write_crl()

    def _write_crl(self) -> None:
        now = dt.datetime.now(dt.UTC)
        builder = x509.CertificateRevocationListBuilder(self._name, now - DAY, now + 30 * DAY)
        for entry in self._revoked:
            builder = builder.add_revoked_certificate(entry)
        self.crl.write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM))


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    begins: dt.datetime,
    ends: dt.datetime,
) -> x509.CertificateBuilder:
    return x509.CertificateBuilder(
        issuer, subject, key.public_key(), x509.random_serial_number(), begins, ends
    )
