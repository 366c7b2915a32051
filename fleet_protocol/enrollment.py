"""How a device comes into the fleet: the invitation as one line of text, and what is said over HTTPS. Pure.

An invitation names one server and pins the certificate that vouches for it, so that its secret is told to
nobody else. Its text has capital letters and digits alone: a person can read it out, and a QR code holds
it in its dense alphanumeric mode.
"""

import base64
import binascii
import hashlib
import re
import zlib
from dataclasses import dataclass
from typing import Annotated, Final, Literal

import msgspec

from fleet_protocol.errors import EnrollmentError
from fleet_protocol.texts import _

PREFIX: Final = "/v1/enrollment"
"""What the paths of enrollment begin with, at the device listener."""

CA_PATH: Final = f"{PREFIX}/ca"
CLAIMS_PATH: Final = f"{PREFIX}/claims"

MAX_BODY: Final = 32 * 1024
"""Bytes of anything that a device asks with: a request of some 500 bytes and what goes along."""

MAX_ANSWER: Final = 256 * 1024
"""Bytes of an answer: certificates, and two roots of updates with all their keys."""

MAX_TOKEN: Final = 700
"""Characters of an invitation; the longest names that there may be take 655."""

SECRET_BYTES: Final = 32
CLAIM_PREFIX: Final = "claim."
"""A dot cannot occur in a device id: what proves a claim is nobody's identity."""

STATEMENT_TYPE: Final = "argan-claim+jwt"
STATEMENT_ALGORITHM: Final = "ES256"

_MARK: Final = "ARGAN1-"
_SERIAL: Final = re.compile(r"[\x20-\x7e]{1,128}\Z")
_CHECK_BYTES: Final = 4

Digest = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
HexDigest = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
DeviceId = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9-]{1,63}\Z")]
BatchId = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9-]{1,57}\Z")]
Address = Annotated[
    str, msgspec.Meta(pattern=r"^([A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]):[0-9]{1,5}\Z")
]
Serial = Annotated[str, msgspec.Meta(pattern=r"^[\x20-\x7e]{1,128}\Z")]
Pem = Annotated[str, msgspec.Meta(max_length=16 * 1024)]


class Invitation(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A one-time right to become ``device`` at the server at ``address`` (HOST:PORT).

    ``ca_sha256`` is the digest of the root certificate that the server's goes back to. It ends at
    ``expires_s``, seconds since 1970, by the server's clock.
    """

    address: Address
    ca_sha256: Digest
    device: DeviceId
    secret: Digest
    expires_s: Annotated[int, msgspec.Meta(ge=0, lt=2**32)]

    @property
    def url(self) -> str:
        """Where the device asks."""
        return f"https://{self.address}"


@dataclass(frozen=True, slots=True)
class Enrolled:
    """What a new device needs to reach the broker, to prove itself there, and to trust updates.

    ``certificate_pem`` is its certificate followed by who issued it, ``ca_pem`` whom it trusts,
    ``server_url`` where it renews. The roots of updates are what it pins, as JSON; None before the first
    key ceremony.
    """

    device: str
    profile: str
    certificate_pem: str
    ca_pem: str
    broker_host: str
    broker_port: int
    server_url: str
    updates_url: str
    image_root: str | None
    director_root: str | None


class Application(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an invited device asks with: the invitation's secret, its own request, and its board."""

    secret: HexDigest
    csr_pem: Pem
    serial: Serial


class ClaimRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a board of a factory batch asks with, again and again until somebody has decided.

    ``statement`` is a JWT over ``csr_pem`` and the board's serial number, signed by the batch's key.
    """

    batch: BatchId
    csr_pem: Pem
    statement: Annotated[str, msgspec.Meta(max_length=2048)]


class ClaimAnswer(msgspec.Struct, frozen=True):
    """What became of a claim. ``enrolled`` is there once it is approved."""

    id: str
    state: Literal["waiting", "approved", "rejected"]
    reason: str = ""
    enrolled: Enrolled | None = None


class Problem(msgspec.Struct, frozen=True):
    """Why a device was not answered; ``code`` is stable, the texts are for people."""

    code: str
    message: str
    next_step: str


class ClaimFile(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="format", tag="argan-claim/1"
):
    """What a factory image carries: which server it asks, and the key that proves the batch."""

    address: Address
    ca_sha256: HexDigest
    batch: BatchId
    certificate_pem: Pem
    key_pem: Pem

    @property
    def url(self) -> str:
        """Where the board asks."""
        return f"https://{self.address}"


class RequestFile(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="format", tag="argan-request/1"
):
    """What a device without a network asks with, carried to the office."""

    device: DeviceId
    serial: Serial
    csr_pem: Pem


class AnswerFile(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="format", tag="argan-answer/1"
):
    """What the office gives back to a device without a network."""

    enrolled: Enrolled


def is_serial(text: object) -> bool:
    """Whether ``text`` may be a board's serial number."""
    return isinstance(text, str) and _SERIAL.match(text) is not None


def claim_name(batch: str) -> str:
    """The common name of the certificate that ``batch`` proves its claims with."""
    return f"{CLAIM_PREFIX}{batch}"


def request_sha256(csr_pem: str) -> str:
    """The digest of a request as a statement names it, in hexadecimal."""
    return hashlib.sha256(csr_pem.encode()).hexdigest()


def encode(invitation: Invitation) -> str:
    """``invitation`` as one line of capital letters and digits."""
    content = msgspec.msgpack.encode(invitation)
    check = zlib.crc32(content).to_bytes(_CHECK_BYTES, "big")
    return _MARK + base64.b32encode(content + check).decode("ascii").rstrip("=")


def decode(text: str) -> Invitation:
    """The invitation that ``text`` is; spaces and line breaks do not count, nor does small or capital.

    Raises:
        EnrollmentError: it is none, or was altered on its way.
    """
    if len(text) > 2 * MAX_TOKEN:
        raise EnrollmentError(_("this is no invitation: it is too long; copy the one line that was printed"))
    packed = "".join(text.split()).upper()
    if not packed.startswith(_MARK):
        raise EnrollmentError(
            _(
                "this is no invitation: it does not begin with {mark}; get one with 'fleet device invite'"
            ).format(mark=_MARK)
        )
    whole = _from_base32(packed.removeprefix(_MARK))
    content, check = whole[:-_CHECK_BYTES], whole[-_CHECK_BYTES:]
    if zlib.crc32(content).to_bytes(_CHECK_BYTES, "big") != check:
        raise EnrollmentError(_("the invitation is cut short or mistyped; copy the whole line again"))
    try:
        return msgspec.msgpack.decode(content, type=Invitation)
    except (msgspec.MsgspecError, ValueError) as error:
        raise EnrollmentError(
            _("the invitation cannot be used ({reason}); is this program older than the server?").format(
                reason=error
            )
        ) from None


def _from_base32(text: str) -> bytes:
    try:
        return base64.b32decode(text + "=" * (-len(text) % 8))
    except (binascii.Error, ValueError):
        raise EnrollmentError(
            _("the invitation is cut short or mistyped; copy the whole line again")
        ) from None
