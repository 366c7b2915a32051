"""One renewal: ask the server for the next certificate, and put it in place. Blocking.

Where it is interrupted, what lies on the disk is an identity that can be used: the roots that are
trusted are written before the certificate that needs them, and those that it no longer needs are taken
away after it.
"""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import NameOID

from edge_agent import durable
from edge_agent.config import Broker, Config
from edge_agent.errors import IdentityError, RenewalError, ServerUnreachable
from edge_agent.identity.device_server import DeviceServer
from edge_agent.identity.identity import Identity, load_identity
from edge_agent.identity.proof import Prover
from edge_agent.link.https import tls_context
from fleet_protocol.texts import _

CERTIFICATE_PATH: Final = "/v1/device/certificate"


class Renewed(msgspec.Struct, frozen=True):
    """What the server answers: the certificate with who issued it, and whom to trust from now on."""

    certificate_pem: str
    ca_pem: str


def renew(config: Config, *, check_dates: bool) -> Identity:
    """Renew the certificate of ``config``'s device; the identity afterwards, which may be the same.

    Raises:
        RenewalError: it did not come about; what there was is still there.
        IdentityError: there is no identity that could be renewed, or what came is none.
    """
    url = require_url(config)
    broker = config.broker
    with _alone(broker.key):
        before = load_identity(config.device, broker)
        with DeviceServer(url, tls_context(broker.ca, check_dates=check_dates)) as server:
            token = Prover(config.device, before.serial, broker.key).token(server)
            wish = msgspec.json.encode({"csr_pem": _request(config.device, broker.key)})
            answer = server.post(CERTIFICATE_PATH, wish, token=token)
        try:
            renewed = msgspec.convert(answer, Renewed)
        except msgspec.ValidationError as error:
            raise ServerUnreachable(
                _("the server gives no certificate that can be read: {reason}").format(reason=error)
            ) from error
        return put_in_place(config.device, broker, renewed)


def require_url(config: Config) -> str:
    """Where certificates are renewed.

    Raises:
        RenewalError: the configuration does not say.
    """
    if config.server_url is None:
        raise RenewalError(
            _(
                "the configuration does not say where certificates are renewed; "
                'add [server] with url = "https://HOST:PORT"'
            )
        )
    return config.server_url


def put_in_place(device: str, broker: Broker, renewed: Renewed) -> Identity:
    """Write what came, once it is seen to be this device's; the identity that it makes.

    Raises:
        IdentityError: it is not this device's, or not of these roots.
        RenewalError: the files cannot be written.
    """
    try:
        _check(device, broker, renewed)
        before, after = broker.ca.read_bytes(), renewed.ca_pem.encode()
        both = both_of(before, after)
        if before != both:
            durable.write(broker.ca, both)
        durable.write(broker.certificate, renewed.certificate_pem.encode())
        if both != after:
            durable.write(broker.ca, after)
    except OSError as error:
        raise RenewalError(
            _("{file} cannot be written ({reason}); give its folder to the user that runs the agent").format(
                file=error.filename or broker.certificate, reason=error.strerror
            )
        ) from error
    return load_identity(device, broker)


def both_of(before: bytes, after: bytes) -> bytes:
    """The roots of ``after``, followed by those of ``before`` that are not among them, in PEM.

    Raises:
        IdentityError: one of the two cannot be read.
    """
    try:
        old, new = (x509.load_pem_x509_certificates(each) for each in (before, after))
    except ValueError as error:
        raise IdentityError(
            _("the roots that came with the certificate cannot be read; look at the server's authority")
        ) from error
    gone = [each for each in old if each not in new]
    return after + b"".join(each.public_bytes(Encoding.PEM) for each in gone)


def _check(device: str, broker: Broker, renewed: Renewed) -> None:
    """Load what came as it would be loaded from its place."""
    certificate = broker.certificate.with_name(f"{broker.certificate.name}.renewed")
    ca = broker.ca.with_name(f"{broker.ca.name}.renewed")
    try:
        durable.fill(certificate, renewed.certificate_pem.encode())
        durable.fill(ca, renewed.ca_pem.encode())
        load_identity(device, msgspec.structs.replace(broker, ca=ca, certificate=certificate))
    finally:
        certificate.unlink(missing_ok=True)
        ca.unlink(missing_ok=True)


def _request(device: str, file: Path) -> str:
    """The request for ``device``, signed by the key in ``file``, in PEM."""
    key = load_pem_private_key(file.read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise IdentityError(_("{file} is no P-256 key; enroll the device again").format(file=file))
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, device)])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return request.public_bytes(Encoding.PEM).decode()


@contextlib.contextmanager
def _alone(key: Path) -> Iterator[None]:
    """One renewal at a time, the running agent's or a technician's; waits for the other."""
    try:
        lock = key.open("rb")
    except OSError as error:
        raise IdentityError(
            _("{file}: {reason}; enroll the device, or correct the path in [broker]").format(
                file=key, reason=error.strerror
            )
        ) from None
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
