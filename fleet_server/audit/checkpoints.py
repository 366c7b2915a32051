"""Checkpoints: what a server has signed of the record of changes, one line of JSON each. Pure.

A checkpoint says how far the chain went at a time, and with which digest. It names the digest of the line
before it, so that lines cannot be taken away between two others, or moved. Whoever holds a copy of the lines
and the public key needs nothing else of the server to know that it rewrites nothing.
"""

import hashlib
from collections.abc import Iterable, Iterator
from typing import Annotated, Final, Literal, NamedTuple

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from securesystemslib.signer import CryptoSigner

from fleet_protocol.manifest import Digest
from fleet_protocol.texts import _
from fleet_server.audit.chain import BEGINNING, canonical
from fleet_signing.keys import public_text

MAX_LINE: Final = 2048
"""Bytes of a line; a checkpoint has about 450."""

_Count = Annotated[int, msgspec.Meta(ge=1)]


class Checkpoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """That record ``number`` of ``tenant`` had the digest ``sha256`` at ``time_ms``, ms since 1970.

    ``serial`` counts a server's checkpoints from 1, ``previous_sha256`` is the digest of the line of the one
    before. ``key`` is the public half of what signs it.
    """

    format: Literal[1]
    serial: _Count
    tenant: str
    number: _Count
    sha256: Digest
    time_ms: int
    previous_sha256: Digest
    key: Digest


class Signed(NamedTuple):
    """A checkpoint as it stands in its line."""

    checkpoint: Checkpoint
    line: bytes


class Fault(NamedTuple):
    """What is wrong with line ``line`` (from 1), in a word for programs and in words for people."""

    kind: str
    line: int
    message: str
    expected: str = ""
    found: str = ""


class Pace(NamedTuple):
    """How many records, or how many ms after the last one, make a checkpoint due."""

    records: int
    after_ms: int


STEADY: Final = Pace(records=100, after_ms=300_000)
"""What no checkpoint covers yet may be rewritten unseen: a change after a quiet time is signed at once."""

AT_ONCE: Final = Pace(records=1, after_ms=0)


def checkpoint_due(last: Checkpoint | None, number: int, now_ms: int, pace: Pace = STEADY) -> bool:
    """Whether the chain, which ends with record ``number``, shall be signed now; a clock set back counts."""
    if last is None:
        return number > 0
    if number <= last.number:
        return False
    return number - last.number >= pace.records or not 0 <= now_ms - last.time_ms < pace.after_ms


def sign(signer: CryptoSigner, last: Signed | None, tenant: str, end: tuple[int, str], now_ms: int) -> Signed:
    """The checkpoint after ``last`` that says that ``end``, a number and a digest, is the chain's end."""
    number, sha256 = end
    checkpoint = Checkpoint(
        format=1,
        serial=last.checkpoint.serial + 1 if last else 1,
        tenant=tenant,
        number=number,
        sha256=sha256,
        time_ms=now_ms,
        previous_sha256=line_digest(last.line) if last else BEGINNING,
        key=public_text(signer.public_key),
    )
    fields = msgspec.to_builtins(checkpoint)
    signature = signer.sign(canonical(fields).encode()).signature
    return Signed(checkpoint, canonical(fields | {"signature": signature}).encode() + b"\n")


def read_line(line: bytes, key: str) -> Checkpoint:
    """The checkpoint in ``line``, signed by ``key``.

    Raises:
        ForeignKeyError: it is signed by another key.
        ValueError: it is no checkpoint, or was altered.
    """
    try:
        fields = msgspec.json.decode(line, type=dict[str, str | int])
        signature = str(fields.pop("signature", ""))
        checkpoint = msgspec.convert(fields, Checkpoint)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(_("it is no checkpoint ({reason})").format(reason=error)) from error
    if checkpoint.key != key:
        raise ForeignKeyError(checkpoint.key)
    try:
        signed = canonical(msgspec.to_builtins(checkpoint)).encode()
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(key)).verify(bytes.fromhex(signature), signed)
    except (InvalidSignature, ValueError) as error:
        raise ValueError(_("its signature does not hold: it was altered")) from error
    return checkpoint


class ForeignKeyError(ValueError):
    """A checkpoint names another key than the one that counts, ``key``."""

    def __init__(self, key: str) -> None:
        super().__init__(_("it is signed by another key"))
        self.key = key


def walk(
    lines: Iterable[bytes], key: str, tenant: str, known: bytes | None = None
) -> Iterator[Signed | Fault]:
    """Every checkpoint of a file that holds, in turn, and whatever is wrong with its lines.

    ``known`` is the line of a checkpoint that is said to be the latest one: the file ends no earlier.
    """
    before, serial, reached, number = BEGINNING, 0, 0, 0
    for number, line in enumerate(lines, 1):
        if not line.endswith(b"\n"):
            yield Fault("checkpoint.cut", number, _("line {line} is cut off").format(line=number))
            return
        try:
            checkpoint = read_line(line, key)
        except ValueError as error:
            yield _unreadable(number, key, error)
            before, serial = line_digest(line), serial + 1
            continue
        if checkpoint.previous_sha256 != before:
            yield _misplaced(number, serial, checkpoint, before)
        if checkpoint.tenant != tenant:
            message = _("line {line} is of another tenant").format(line=number)
            yield Fault("checkpoint.tenant", number, message, tenant, checkpoint.tenant)
        elif checkpoint.number > reached:
            reached = checkpoint.number
            yield Signed(checkpoint, line)
        before, serial = line_digest(line), checkpoint.serial
    if known is not None:
        yield from _ends_early(known, key, serial, number)


def line_digest(line: bytes) -> str:
    """What the next checkpoint names of ``line``."""
    return hashlib.sha256(line.rstrip(b"\n")).hexdigest()


def _ends_early(known: bytes, key: str, serial: int, lines: int) -> Iterator[Fault]:
    try:
        latest = read_line(known, key).serial
    except ValueError as error:
        message = _("the latest checkpoint that is known beside the file does not count: {reason}")
        yield Fault("checkpoint.altered", lines, message.format(reason=error))
        return
    if latest > serial:
        message = _(
            "the file ends with checkpoint {serial}, and checkpoint {latest} was signed: "
            "its end was cut off, or it is a copy that has not caught up"
        ).format(serial=serial, latest=latest)
        yield Fault("checkpoint.short", lines, message, str(latest), str(serial))


def _unreadable(number: int, key: str, error: ValueError) -> Fault:
    kind, found = ("key", error.key) if isinstance(error, ForeignKeyError) else ("altered", "")
    message = _("line {line} does not count: {reason}").format(line=number, reason=error)
    return Fault(f"checkpoint.{kind}", number, message, key if found else "", found)


def _misplaced(number: int, serial: int, checkpoint: Checkpoint, before: str) -> Fault:
    message = _(
        "line {line} holds checkpoint {found}, which does not follow the line before it "
        "(checkpoint {serial}): lines were taken away, moved or altered"
    ).format(line=number, found=checkpoint.serial, serial=serial)
    return Fault("checkpoint.order", number, message, before, checkpoint.previous_sha256)
