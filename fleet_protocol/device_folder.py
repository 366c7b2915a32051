"""What a device's folder holds: its key, its certificate, whom it trusts, and a configuration to go on from.

Pure: names and texts, bytes in and out. Writing them, each whole or not at all and the certificate last as
a seal, is done by whoever has the folder: ``fleet device add`` in the office, ``edge-agent enrol`` on the
device.
"""

import json
from itertools import pairwise
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fleet_protocol.enrollment import Enrolled
from fleet_protocol.errors import EnrollmentError
from fleet_protocol.texts import _

KEY: Final = "key.pem"
CERTIFICATE: Final = "cert.pem"
CA: Final = "ca.pem"
CONFIGURATION: Final = "agent.toml"
IMAGE_ROOT: Final = "image-root.json"
DIRECTOR_ROOT: Final = "director-root.json"

_SKELETON: Final = """\
# The agent of {device}. See whether it is right:  edge-agent check --config agent.toml
# Run it:                                          edge-agent run --config agent.toml
# Paths are relative to this file.
device = {device_text}
profile = {profile}
data = "data"

[broker]
host = {host}
port = {port}
ca = "ca.pem"
certificate = "cert.pem"
key = "key.pem"

# Where the certificate is renewed.
[server]
url = {server}

{updates}

# What it measures: one [[sensors]] each, with its registers. For example a pressure in bar that a
# Modbus TCP server holds as a 32-bit float from register 0 on, asked once a second:
#
# [[sensors]]
# kind = "modbus"
# name = "cabinet"
# host = "192.0.2.10"
# port = 502
# unit = 1
# interval_s = 1.0
#
#   [[sensors.registers]]
#   metric = "pressure"
#   unit = "bar"
#   address = 0
#   table = "input"
#   type = "float32"

# Or a recording, one row every ten seconds:
#
# [[sensors]]
# kind = "replay"
# name = "last-spring"
# path = "flow.csv"
# interval_s = 10.0
# columns = {{ flow = "l/s measured" }}
# units = {{ flow = "l/s" }}

# What it concludes: a model's folder, and the policy that reads its answers.
#
# [[models]]
# folder = "models/leak"
# policy = "models/leak/policy.toml"
"""

_NO_UPDATES: Final = """\
# Signed updates come from the server once a key ceremony was held (fleet key ceremony). Then run
# 'fleet key roots --out .' here, and take these four lines in:
#
# {section}"""


class File(NamedTuple):
    """A file of the folder; one that ``stays`` is left as it is where it is there already."""

    name: str
    content: bytes
    stays: bool = False


def files(enrolled: Enrolled) -> list[File]:
    """What was given, in the order of writing: while the certificate is missing, nothing is there."""
    found = [File(CA, enrolled.ca_pem.encode())]
    has_roots = enrolled.image_root is not None and enrolled.director_root is not None
    if enrolled.image_root is not None and enrolled.director_root is not None:
        found += [
            File(IMAGE_ROOT, enrolled.image_root.encode()),
            File(DIRECTOR_ROOT, enrolled.director_root.encode()),
        ]
    updates = updates_section(enrolled.updates_url, has_roots=has_roots)
    text = skeleton(enrolled, updates)
    found.append(File(CONFIGURATION, text.encode(), stays=True))
    found.append(File(CERTIFICATE, enrolled.certificate_pem.encode()))
    return found


def updates_section(url: str, *, has_roots: bool) -> str:
    """The part of the configuration about updates; a comment where there is nothing yet to trust."""
    known = section(url)
    return known if has_roots else _NO_UPDATES.format(section=known.replace("\n", "\n# "))


def section(url: str) -> str:
    """The section of ``agent.toml`` for updates from ``url``."""
    return (
        f'[updates]\nurl = {json.dumps(url)}\nimage_root = "{IMAGE_ROOT}"\ndirector_root = "{DIRECTOR_ROOT}"'
    )


def skeleton(enrolled: Enrolled, updates: str) -> str:
    """The agent's configuration as far as it is known when the device comes in."""
    return _SKELETON.format(
        device=enrolled.device,
        device_text=json.dumps(enrolled.device),
        profile=json.dumps(enrolled.profile),
        host=json.dumps(enrolled.broker_host),
        port=enrolled.broker_port,
        server=json.dumps(enrolled.server_url),
        updates=updates,
    )


def new_key() -> bytes:
    """A new P-256 key in PEM, unencrypted: whoever stores it keeps it from others."""
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def read_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    """The key that ``pem`` is.

    Raises:
        EnrollmentError: it is no unencrypted P-256 key.
    """
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as error:
        raise EnrollmentError(str(error)) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise EnrollmentError(_("it is no P-256 key"))
    return key


def request_for(name: str, key: ec.EllipticCurvePrivateKey) -> str:
    """The certificate request of ``name``, signed by its key, in PEM."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()


def check(enrolled: Enrolled, key: ec.EllipticCurvePrivateKey) -> None:
    """See to it that what was given belongs to ``key`` and goes back to the roots that came with it.

    Raises:
        EnrollmentError: it does not.
    """
    try:
        chain = x509.load_pem_x509_certificates(enrolled.certificate_pem.encode())
        roots = x509.load_pem_x509_certificates(enrolled.ca_pem.encode())
    except ValueError as error:
        raise EnrollmentError(_("the answer holds no certificates: {reason}").format(reason=error)) from None
    names = [attribute.value for attribute in chain[0].subject]
    if chain[0].public_key() != key.public_key():
        raise EnrollmentError(_("the certificate is not for this device's key"))
    if names != [enrolled.device]:
        raise EnrollmentError(
            _("the certificate is for {names}, not for {device!r}").format(
                names=str(names)[:120], device=enrolled.device
            )
        )
    if not _goes_back(chain, roots):
        raise EnrollmentError(_("the certificate does not go back to the fleet's root that came with it"))


def fingerprints(ca_pem: str) -> list[str]:
    """The SHA-256 of each root in ``ca_pem``, in hexadecimal, as people compare it.

    Raises:
        EnrollmentError: it holds no certificates.
    """
    try:
        roots = x509.load_pem_x509_certificates(ca_pem.encode())
    except ValueError as error:
        raise EnrollmentError(_("there are no certificates: {reason}").format(reason=error)) from None
    return [root.fingerprint(hashes.SHA256()).hex() for root in roots]


def _goes_back(chain: list[x509.Certificate], roots: list[x509.Certificate]) -> bool:
    if not all(_is_issued_by(lower, upper) for lower, upper in pairwise(chain)):
        return False
    return any(_is_issued_by(chain[-1], root) for root in roots)


def _is_issued_by(lower: x509.Certificate, upper: x509.Certificate) -> bool:
    try:
        lower.verify_directly_issued_by(upper)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True
