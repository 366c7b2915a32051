"""What a device signs to prove itself, judged (RFC 7523): a short JWT made with its certificate's key.

Whoever knows no key learns nothing here, neither from the words nor from the time they take: an
unknown certificate is checked against a key that nobody has.
"""

import re
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import jwt
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from fleet_protocol.texts import _
from fleet_server.authority.issuing import make_root
from fleet_server.errors import DeviceRefused

ALGORITHM: Final = "ES256"

MOST_AHEAD_S: Final = 120
"""How far an assertion may end in the future; the device counts from the time that came with its nonce."""

_HEADER: Final = frozenset({"alg", "typ", "kid"})
"""Nothing else is understood: no key or certificate is ever taken from the assertion itself."""

_CLAIMS: Final = ("iss", "sub", "aud", "exp", "iat", "jti", "nonce")
_SERIAL: Final = re.compile(r"[0-9a-f]{1,40}\Z")
_NO_SERIAL: Final = "0"
_LONGEST: Final = 512


class Claimed(NamedTuple):
    """What an assertion says, believed once its signature is checked."""

    device: str
    audience: str
    ends_s: int
    nonce: str


def claimed_serial(assertion: str) -> str:
    """The serial number of the certificate whose key is said to have signed; ``0`` for nonsense.

    Raises:
        DeviceRefused: it is no JWT of ours.
    """
    try:
        header = jwt.get_unverified_header(assertion)
    except (jwt.PyJWTError, RecursionError):
        raise refused() from None
    if header.get("alg") != ALGORITHM or not _HEADER.issuperset(header):
        raise refused()
    serial = header.get("kid")
    return serial if isinstance(serial, str) and _SERIAL.match(serial) else _NO_SERIAL


def claims_of(assertion: str, certificate_pem: str) -> Claimed:
    """What ``assertion`` says, signed by the key of ``certificate_pem``.

    Raises:
        DeviceRefused: it was not signed by that key, has ended, or lacks something.
    """
    key = x509.load_pem_x509_certificate(certificate_pem.encode()).public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise refused()
    try:
        claims = jwt.decode(
            assertion,
            key,
            algorithms=[ALGORITHM],
            # The audience has more than one name, and is looked at by the caller. When it was issued only
            # its nonce tells.
            options={"require": list(_CLAIMS), "verify_aud": False, "verify_iat": False},
        )
    except (jwt.PyJWTError, OverflowError):
        raise refused() from None
    return _checked(claims)


def is_ours(audience: str, hosts: frozenset[str], path: str) -> bool:
    """Whether ``audience`` is the URL that ends with ``path`` under one of our names, by whatever port."""
    try:
        parts = urlsplit(audience)
    except ValueError:
        return False
    return parts.scheme == "https" and parts.hostname in hosts and parts.path.endswith(path)


def decoy_pem() -> str:
    """A certificate whose key nobody has: what a stranger's signature is checked against."""
    key = ec.generate_private_key(ec.SECP256R1())
    return make_root(key, datetime.now(UTC)).public_bytes(Encoding.PEM).decode()


def refused(message: str = "", next_step: str = "") -> DeviceRefused:
    """The answer to an assertion that proves nothing; without words, the same for all that may be wrong."""
    return DeviceRefused(
        HTTPStatus.BAD_REQUEST,
        "invalid_grant",
        message or _("the assertion does not prove a device of this fleet"),
        next_step or _("Compare key, certificate and device id; if they are right, enroll the device again."),
    )


def _checked(claims: dict[str, Any]) -> Claimed:
    device, audience, nonce = claims["sub"], claims["aud"], claims["nonce"]
    texts = (claims["iss"], device, audience, claims["jti"], nonce)
    if not all(isinstance(text, str) and 0 < len(text) <= _LONGEST for text in texts):
        raise refused()
    if claims["iss"] != device:
        raise refused()
    return Claimed(device, audience, int(claims["exp"]), nonce)
