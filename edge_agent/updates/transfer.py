"""One file over a bad line: what has arrived stays, over cuts, restarts and days.

It lies in a part file, with the ETag that it belongs to and the length that was claimed beside it.
"""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, NamedTuple

from edge_agent.backoff import FullJitter
from edge_agent.errors import UpdateUnreachable
from edge_agent.updates.meter import Meter
from edge_agent.updates.source import NotThere, Part, Source
from fleet_protocol.texts import _

ATTEMPTS: Final = 8
"""Attempts in a row that bring next to nothing; then the line is given up until the next look."""

STALL_S: Final = 60.0
"""An attempt that brings next to nothing within this is given up, though something trickles."""

_LEAST: Final = 64 * 1024
"""Bytes that make an attempt worth another one."""

_TRICKLE: Final = 4 * 1024
"""Bytes that are next to nothing within :data:`STALL_S`: slower than any modem."""

_FIRST_WAIT_S: Final = 0.5
_LONGEST_WAIT_S: Final = 30.0
_TELL_EVERY_S: Final = 1.0

Told = Callable[[int], None]
"""Is told how many bytes are here."""


class WrongLength(Exception):  # noqa: N818 - no failure of the line: its caller says what it means
    """More bytes are offered than may come, or not as many as have to."""

    def __init__(self, found: int, *, endless: bool) -> None:
        super().__init__(found)
        self.found = found
        self.endless = endless


@dataclass(frozen=True, slots=True)
class Wanted:
    """The file ``place`` of a source, called ``name`` where people read it, to be gathered in ``part``.

    It has at most ``most`` bytes; ``exactly`` so many where that is known beforehand.
    """

    place: str
    name: str
    part: Path
    most: int
    exactly: bool = True


class _Seal(NamedTuple):
    """What belongs to the bytes of a part."""

    etag: str
    total: int


class Transfer:
    """Gathers files from one source."""

    def __init__(self, source: Source, meter: Meter) -> None:
        self._source: Final = source
        self._meter: Final = meter

    def fill(self, wanted: Wanted, told: Told) -> None:
        """Make the part of ``wanted`` whole; what it holds is not verified.

        Raises:
            WrongLength: the source offers something else.
            UpdateUnreachable: it does not come; what has come is kept.
            UpdateHeld: it may not come now; what has come is kept.
            OSError: it cannot be written.
        """
        backoff = FullJitter(_FIRST_WAIT_S, _LONGEST_WAIT_S)
        vain = 0
        while not _is_whole(wanted):
            have = size_of(wanted.part)
            self._meter.permit()
            try:
                self._attempt(wanted, told)
            except NotThere:
                raise
            except UpdateUnreachable:
                vain = 0 if size_of(wanted.part) - have >= _LEAST else vain + 1
                if vain == 0:
                    backoff.reset()
                if vain == ATTEMPTS:
                    raise
                time.sleep(backoff.next_s())

    def _attempt(self, wanted: Wanted, told: Told) -> None:
        have, seal = size_of(wanted.part), _read_seal(wanted.part)
        if have > wanted.most:
            wanted.part.unlink()
            have = 0
        answer = self._source.part(wanted.place, have, seal.etag, self._meter.piece)
        _require_length(wanted, answer)
        with wanted.part.open("r+b" if answer.start else "wb") as out:
            out.seek(answer.start)
            out.truncate()
            # Before the bytes that it names: a resumed part must not be joined to another file's rest.
            _seal_file(wanted.part).write_text(f"{answer.total or 0} {answer.etag}", encoding="utf-8")
            self._copy(wanted, answer, out, told)

    def _copy(self, wanted: Wanted, answer: Part, out: IO[bytes], told: Told) -> None:
        done, tell_at = answer.start, 0.0
        patience = _Patience(done)
        for chunk in answer.chunks:
            done += len(chunk)
            if done > wanted.most:
                raise WrongLength(done, endless=True)
            out.write(chunk)
            self._meter.count(len(chunk))
            if time.monotonic() >= tell_at:
                told(done)
                tell_at = time.monotonic() + _TELL_EVERY_S
            if patience.ends_at(done):
                raise UpdateUnreachable(_("{path} comes too slowly").format(path=wanted.name))
        if done < (wanted.most if wanted.exactly else answer.total or done):
            raise UpdateUnreachable(_("{path} ended early").format(path=wanted.name))


class _Patience:
    """Ends where next to nothing comes for too long."""

    def __init__(self, done: int) -> None:
        self._done = done
        self._until_s = time.monotonic() + STALL_S

    def ends_at(self, done: int) -> bool:
        """Whether it ends now, with ``done`` bytes here."""
        if done - self._done >= _TRICKLE:
            self._done, self._until_s = done, time.monotonic() + STALL_S
        return time.monotonic() > self._until_s


def forget(part: Path) -> None:
    """Remove a part and what belongs to it."""
    part.unlink(missing_ok=True)
    _seal_file(part).unlink(missing_ok=True)


def total_of(part: Path) -> int:
    """The length that was claimed for what lies in ``part``; 0 where none was."""
    return _read_seal(part).total


def size_of(file: Path) -> int:
    """The bytes of a file; 0 where there is none."""
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def _is_whole(wanted: Wanted) -> bool:
    have = size_of(wanted.part)
    return have > 0 and have == (wanted.most if wanted.exactly else _read_seal(wanted.part).total)


def _require_length(wanted: Wanted, answer: Part) -> None:
    """A source that claims another length need not be listened to."""
    total = answer.total
    if total is None:
        if not wanted.exactly:
            raise WrongLength(0, endless=True)
        return
    if total > wanted.most or (wanted.exactly and total != wanted.most):
        raise WrongLength(total, endless=total > wanted.most)


def _seal_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.etag")


def _read_seal(part: Path) -> _Seal:
    with contextlib.suppress(OSError, UnicodeDecodeError, ValueError):
        total, _space, etag = _seal_file(part).read_text(encoding="utf-8").strip().partition(" ")
        return _Seal(etag, int(total))
    return _Seal("", 0)
