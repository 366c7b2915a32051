"""Fetches an artifact so that a cut line costs only what was under way.

What has arrived stays in ``<sha256>.part`` with the ETag that it belongs to, over cuts, restarts
and days. Only whole and verified bytes get the name ``<sha256>``.
"""

import contextlib
import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Final

from edge_agent import durable
from edge_agent.backoff import FullJitter
from edge_agent.errors import UpdateBroken, UpdateRefused, UpdateUnreachable
from edge_agent.updates.source import NotThere, Part, Source
from fleet_protocol.targets import Refusal, Target
from fleet_protocol.texts import _

ATTEMPTS: Final = 8
"""Attempts in a row that bring next to nothing; then the line is given up until the next look."""

_LEAST: Final = 64 * 1024
"""Bytes that make an attempt worth another one."""

_FIRST_WAIT_S: Final = 0.5
_LONGEST_WAIT_S: Final = 30.0
_TELL_EVERY_S: Final = 1.0

Told = Callable[[int], None]
"""Is told how many bytes are here."""


def place_of(target: Target) -> str:
    """Where an artifact lies in a source: consistent snapshots put its digest before its name."""
    folder, _slash, name = target.path.rpartition("/")
    return f"image/targets/{folder}/{target.sha256}.{name}"


class Downloader:
    """Fetches into one folder from one source."""

    def __init__(self, folder: Path, source: Source) -> None:
        self._folder: Final = folder
        self._source: Final = source

    def fetch(self, target: Target, told: Told) -> Path:
        """The file with the bytes of ``target``, verified and durable.

        Raises:
            UpdateRefused: the bytes are others, or more.
            UpdateUnreachable: they do not come; what has come is kept.
            UpdateBroken: they cannot be written.
        """
        whole = self._folder / target.sha256
        try:
            durable.make_folder(self._folder)
            if not (whole.is_file() and _digest(whole) == target.sha256):
                part = whole.with_suffix(".part")
                self._complete(target, part, told)
                durable.rename(part, whole)
                _etag_file(part).unlink(missing_ok=True)
        except OSError as error:
            raise UpdateBroken(
                _("{path} cannot be stored: {reason}").format(path=target.path, reason=error.strerror)
            ) from error
        told(target.length)
        return whole

    def _complete(self, target: Target, part: Path, told: Told) -> None:
        """Fill ``part`` and verify it; where it began before this call, wrong bytes are given another chance.

        A part that was under way when the power went may hold anything; that is no attack.
        """
        resumed = part.exists()
        self._fill(target, part, told)
        if _digest(part) != target.sha256:
            part.unlink()
            if not resumed:
                raise UpdateRefused(Refusal.TAMPERED, target.path, _("their SHA-256 is another one"))
            self._complete(target, part, told)
        durable.flush(part)

    def _fill(self, target: Target, part: Path, told: Told) -> None:
        backoff = FullJitter(_FIRST_WAIT_S, _LONGEST_WAIT_S)
        vain = 0
        while (have := _size(part)) != target.length or not have:
            try:
                self._attempt(target, part, told)
            except NotThere:
                raise
            except UpdateUnreachable:
                vain = 0 if _size(part) - have >= _LEAST else vain + 1
                if vain == 0:
                    backoff.reset()
                if vain == ATTEMPTS:
                    raise
                time.sleep(backoff.next_s())

    def _attempt(self, target: Target, part: Path, told: Told) -> None:
        have, etag = _size(part), _read_etag(part)
        if have > target.length:
            part.unlink()
            have = 0
        answer = self._source.part(place_of(target), have, etag)
        _require_length(target, answer)
        with part.open("r+b" if answer.start else "wb") as out:
            out.seek(answer.start)
            out.truncate()
            # Before the bytes that it names: a resumed part must not be joined to another file's rest.
            _etag_file(part).write_text(answer.etag, encoding="utf-8")
            _copy(target, answer, out, told)


def _copy(target: Target, answer: Part, out: IO[bytes], told: Told) -> None:
    done, tell_at = answer.start, 0.0
    for chunk in answer.chunks:
        done += len(chunk)
        if done > target.length:
            raise _endless(target)
        out.write(chunk)
        if time.monotonic() >= tell_at:
            told(done)
            tell_at = time.monotonic() + _TELL_EVERY_S
    if done < target.length:
        raise UpdateUnreachable(_("{path} ended early").format(path=target.path))


def _require_length(target: Target, answer: Part) -> None:
    """A source that claims another length need not be listened to."""
    if answer.total is None or answer.total == target.length:
        return
    if answer.total > target.length:
        raise _endless(target)
    raise UpdateRefused(
        Refusal.TAMPERED,
        target.path,
        _("{found} bytes; {signed} were signed").format(found=answer.total, signed=target.length),
    )


def _endless(target: Target) -> UpdateRefused:
    return UpdateRefused(
        Refusal.ENDLESS,
        target.path,
        _("more than the {signed} bytes that were signed").format(signed=target.length),
    )


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def _etag_file(part: Path) -> Path:
    return part.with_suffix(".etag")


def _read_etag(part: Path) -> str:
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return _etag_file(part).read_text(encoding="utf-8").strip()
    return ""
