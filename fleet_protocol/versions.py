"""What a device says of its versions, signed with its key: the version report, and a stick's receipt. Pure.

The two are one document. What differs is the nonce that it answers: the server's own, a minute old, or the
one that a bundle carried to a device without a network, weeks old. It travels as a JWS (RFC 7515, compact,
ES256); whoever reads it believes nothing before the signature is checked.
"""

from typing import Annotated, Final, TypeVar

import msgspec

from fleet_protocol.enrollment import DeviceId
from fleet_protocol.errors import VersionError
from fleet_protocol.manifest import Digest, Identifier
from fleet_protocol.messages import ClockState, Count, Hex16, Line, Name, UpdateReport, WallMs
from fleet_protocol.targets import Kind, Mode, Refusal, key_of
from fleet_protocol.texts import _
from fleet_protocol.update_states import UpdateState

T = TypeVar("T")

REPORT_PATH: Final = "/v1/device/report"
"""Where a device sends it, at the device listener."""

TYPE: Final = "argan-versions+jws"
"""What the header of the JWS says: nothing else that a device signs can be taken for a report."""

ALGORITHM: Final = "ES256"
CONTENT_TYPE: Final = "application/jose"

MAX_REPORT: Final = 46 * 1024
"""Bytes of the document; the JWS has a third more."""

MAX_JWS: Final = 64 * 1024
MAX_ENTRIES: Final = 64
"""Entries of the history that go along; the device itself keeps more of them."""

MAX_ITEMS: Final = 128
REQUEST: Final = "receipt.json"
"""The member of a bundle that says which nonce its receipt answers."""

MAX_REQUEST: Final = 1024
RECEIPT_SUFFIX: Final = ".receipt"

Nonce = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{16,128}\Z")]


class InstalledVersion(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What runs under a name; ``since_wall_ms`` is 0 where the history does not reach back so far."""

    kind: Kind
    name: Identifier
    version: Name
    release: Count
    sha256: Digest
    mode: Mode = Mode.ACT
    since_wall_ms: WallMs = 0


class OrderedVersion(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the director ordered when the device last looked."""

    kind: Kind
    name: Identifier
    version: Name
    release: Count
    sha256: Digest
    mode: Mode = Mode.ACT

    @property
    def key(self) -> tuple[Kind, str]:
        """What it replaces on the device, as a target's :attr:`.targets.Target.key`."""
        return key_of(self.kind, self.name, self.mode)


class FailedVersion(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What failed on this device and is not taken again; ``refusal`` where its very bytes were refused."""

    kind: Kind
    name: Identifier
    release: Count
    sha256: Digest
    refusal: Refusal | None = None
    detail: Line = ""


class Happened(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One entry of the install history; ``number`` counts from 1 and has no gaps.

    ``subject`` is an artifact's path, or the repository that was refused as a whole, of which there is no
    ``sha256``. ``state`` is ``probation`` for what was installed, else how the update ended. ``clock`` says
    whether ``wall_ms`` could be believed then. What has the ``mode`` shadow never acted.
    """

    number: Count
    wall_ms: WallMs
    clock: ClockState
    subject: Line
    version: Line = ""
    release: Count = 0
    sha256: Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{64})?\Z")] = ""
    state: UpdateState
    refusal: Refusal | None = None
    detail: Line = ""
    mode: Mode = Mode.ACT


class RefusedScope(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole repository, or an order that cannot be read, that the last look refused."""

    scope: Line
    refusal: Refusal
    detail: Line = ""


class VersionReport(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="format",
    tag="argan-versions/1",
):
    """What runs, what failed, what happened, and what this device has last seen of the repositories.

    ``journal`` names the history and ``happened`` says how many entries it ever had: of two reports with
    one journal, the one with more of them is the later one. ``repositories`` are the versions of TUF
    metadata below which the device accepts nothing. ``problem`` is why the last look was not whole.
    """

    device: DeviceId
    nonce: Nonce
    agent: Name
    profile: Name
    boot_id: Hex16
    wall_ms: WallMs
    clock: ClockState
    journal: Hex16
    happened: Count
    ordered: Annotated[tuple[OrderedVersion, ...], msgspec.Meta(max_length=MAX_ITEMS)] = ()
    installed: Annotated[tuple[InstalledVersion, ...], msgspec.Meta(max_length=MAX_ITEMS)] = ()
    updates: Annotated[tuple[UpdateReport, ...], msgspec.Meta(max_length=MAX_ITEMS)] = ()
    failed: Annotated[tuple[FailedVersion, ...], msgspec.Meta(max_length=MAX_ITEMS)] = ()
    history: Annotated[tuple[Happened, ...], msgspec.Meta(max_length=MAX_ENTRIES)] = ()
    refused: Annotated[tuple[RefusedScope, ...], msgspec.Meta(max_length=MAX_ITEMS)] = ()
    repositories: Annotated[dict[Name, dict[Name, Count]], msgspec.Meta(max_length=8)] = {}
    problem: Line = ""

    @property
    def is_settled(self) -> bool:
        """Whether no update is under way: what it says now will stay until the next one."""
        return all(update.state in _AT_REST for update in self.updates)


_AT_REST: Final = frozenset(
    {UpdateState.IDLE, UpdateState.COMMITTED, UpdateState.ROLLED_BACK, UpdateState.FAILED}
)


class ReceiptRequest(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="format", tag="argan-receipt/1"
):
    """What a bundle asks of the device: a report over ``nonce``, which counts until ``expires_ms``."""

    device: DeviceId
    nonce: Nonce
    expires_ms: WallMs


def encode(report: VersionReport) -> bytes:
    """The document that is signed. Where it is too long, the oldest of the history and of what failed go.

    Then what was ordered, and updates that failed: a director that orders more than there is room for must
    not keep the device from saying what it runs.

    Raises:
        VersionError: even without them it is too long.
    """
    content = msgspec.json.encode(report)
    while len(content) > MAX_REPORT:
        shorter = _shorter(report)
        if shorter is report:
            raise VersionError(
                _("a version report has at most {limit} bytes; this one has {size}").format(
                    limit=MAX_REPORT, size=len(content)
                )
            )
        report, content = shorter, msgspec.json.encode(shorter)
    return content


def _shorter(report: VersionReport) -> VersionReport:
    """``report`` without some of what can best be done without; the same where nothing is left of that."""
    for name in ("history", "failed", "ordered"):
        if items := getattr(report, name):
            return msgspec.structs.replace(report, **{name: _newer(items)})
    failed = [each for each in report.updates if each.state == UpdateState.FAILED]
    if not failed:
        return report
    gone = failed[: len(failed) // 2 + 1]
    return msgspec.structs.replace(report, updates=tuple(each for each in report.updates if each not in gone))


def decode(content: bytes) -> VersionReport:
    """The report that ``content`` holds, whose signature was checked.

    Raises:
        VersionError: too long, not of this version, or beyond a limit.
    """
    if len(content) > MAX_REPORT:
        raise VersionError(_("a version report has at most {limit} bytes").format(limit=MAX_REPORT))
    try:
        report = msgspec.json.decode(content, type=VersionReport)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError, OverflowError, ValueError) as error:
        raise VersionError(
            _("no version report: {reason}; compare the agent's version with the server's").format(
                reason=str(error)[:200]
            )
        ) from None
    if any(len(roles) > MAX_ITEMS for roles in report.repositories.values()):
        raise VersionError(_("no version report: it names too many roles"))
    return report


def decode_request(content: bytes) -> ReceiptRequest:
    """What a bundle's :data:`REQUEST` asks; nothing vouches for it, and it asks for no more than a signature.

    Raises:
        VersionError: it is none.
    """
    try:
        return msgspec.json.decode(content[: MAX_REQUEST + 1], type=ReceiptRequest)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError, OverflowError, ValueError) as error:
        raise VersionError(
            _("the bundle asks for no receipt that this agent can write: {reason}").format(
                reason=str(error)[:200]
            )
        ) from None


def _newer(items: tuple[T, ...]) -> tuple[T, ...]:
    return items[len(items) // 2 + 1 :]
