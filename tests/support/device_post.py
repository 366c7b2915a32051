"""A device of a real server as its HTTPS listener sees it: what it signs, what it asks, how old it is."""

import datetime as dt
import json
import secrets
import ssl
import time
from pathlib import Path
from typing import Any

import httpx
import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import NameOID
from sqlmodel import Session, select

from fleet_server.authority.authority import open_authority
from fleet_server.authority.issuing import CLIENT, make_leaf
from fleet_server.config import load
from fleet_server.database.engine import open_engine, writing
from fleet_server.database.models import AuditRecord, Certificate
from fleet_server.devices.certificates import certificate_row
from tests.support.fleet_server import ServerProcess

GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
DAY = dt.timedelta(days=1)


def make_request(name: str, key: ec.EllipticCurvePrivateKey) -> str:
    """A certificate request in PEM."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return request.public_bytes(Encoding.PEM).decode()


class DevicePost:
    """The device in ``folder``, which was added to ``server`` by 'fleet device add'."""

    def __init__(self, server: ServerProcess, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.config = load(server.data)

    @property
    def certificate(self) -> x509.Certificate:
        return x509.load_pem_x509_certificate((self.folder / "cert.pem").read_bytes())

    @property
    def name(self) -> str:
        (name,) = self.certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return str(name.value)

    @property
    def serial(self) -> str:
        return f"{self.certificate.serial_number:x}"

    @property
    def key(self) -> ec.EllipticCurvePrivateKey:
        key = load_pem_private_key((self.folder / "key.pem").read_bytes(), password=None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return key

    def https(self) -> httpx.Client:
        endpoints = self.server.endpoints
        context = ssl.create_default_context(cafile=endpoints["ca"])
        return httpx.Client(base_url=endpoints["device_url"], verify=context, trust_env=False, timeout=30)

    def nonce(self) -> str:
        with self.https() as client:
            return str(client.post("/v1/device/nonce").raise_for_status().json()["nonce"])

    def claims(self, **changes: Any) -> dict[str, Any]:
        """What an honest device signs, but for ``changes``; None leaves a claim out."""
        now_s = int(time.time())
        url = self.server.endpoints["device_url"]
        claims = {
            "iss": self.name, "sub": self.name, "aud": f"{url}/v1/device/token",
            "iat": now_s, "exp": now_s + 60, "jti": secrets.token_hex(8), "nonce": self.nonce(),
        }  # fmt: skip
        return {name: value for name, value in (claims | changes).items() if value is not None}

    def assertion(self, **changes: Any) -> str:
        # Signed as bytes: the library does not let nonsense be signed as claims.
        content = json.dumps(self.claims(**changes)).encode()
        return jwt.api_jws.encode(content, self.key, "ES256", headers={"kid": self.serial})

    def ask_token(self, assertion: str) -> httpx.Response:
        with self.https() as client:
            return client.post("/v1/device/token", data={"grant_type": GRANT, "assertion": assertion})

    def token(self) -> str:
        return str(self.ask_token(self.assertion()).raise_for_status().json()["access_token"])

    def ask_certificate(self, token: str, csr_pem: str) -> httpx.Response:
        with self.https() as client:
            headers = {"Authorization": f"Bearer {token}"}
            return client.post("/v1/device/certificate", json={"csr_pem": csr_pem}, headers=headers)

    def orders(self, token: str, device: str = "") -> int:
        """The status with which the director's word for ``device`` is given."""
        with self.https() as client:
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            path = f"/v1/updates/director/{device or self.name}/metadata/timestamp.json"
            return client.get(path, headers=headers).status_code

    def age(self, age: dt.timedelta, lasts: dt.timedelta = 30 * DAY) -> None:
        """Give the device a certificate of its key that the fleet issued ``age`` ago, for ``lasts``."""
        authority = open_authority(self.config.authority, may_make=False)
        issued = dt.datetime.now(dt.UTC) - age
        public = self.key.public_key()
        certificate = make_leaf(authority.device_issuer, self.name, public, CLIENT, lasts, issued)
        row = certificate_row(self.config.tenant, self.name, certificate, authority.trust_sha256)
        engine = open_engine(self.config.database_url)
        with writing(engine) as session:
            # The one that it was added with would be taken for its newest.
            for one in session.exec(select(Certificate).where(Certificate.device == self.name)):
                session.delete(one)
            session.flush()
            session.add(row)
        engine.dispose()
        (self.folder / "cert.pem").write_bytes(authority.chain(certificate))

    def revoke(self) -> None:
        """Revoke the device's present certificate, as far as the database goes."""
        engine = open_engine(self.config.database_url)
        with writing(engine) as session:
            row = session.get_one(Certificate, (self.config.tenant, self.serial))
            row.revoked_ms, row.revoked_reason = int(time.time() * 1000), "keyCompromise"
            session.add(row)
        engine.dispose()

    def recorded(self) -> list[str]:
        """What the audit holds of this device's certificates, in order."""
        engine = open_engine(self.config.database_url)
        with Session(engine) as session:
            query = select(AuditRecord).where(AuditRecord.subject == self.name).order_by(AuditRecord.number)  # type: ignore[arg-type]
            found = [row.action for row in session.exec(query) if row.action.startswith("certificate.")]
        engine.dispose()
        return found
