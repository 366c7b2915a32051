"""Fetches an artifact: as a delta to one that is here where that is less, else whole.

What has arrived stays in ``<sha256>.part``, over cuts, restarts and days. Only whole and verified
bytes get the name ``<sha256>``. Files here are kept as long as their artifact is installed, or is the
one to go back to: they are what deltas are made to.
"""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from edge_agent import durable
from edge_agent.errors import UpdateBroken, UpdateRefused
from edge_agent.updates import delta, transfer
from edge_agent.updates.delta import DeltaUseless
from edge_agent.updates.meter import Counted, Free
from edge_agent.updates.source import NotThere, Source
from edge_agent.updates.transfer import Transfer, Wanted, WrongLength
from fleet_protocol.targets import Refusal, Target
from fleet_protocol.texts import _


class Come(NamedTuple):
    """``done`` of ``size`` bytes are here; of the artifact's own, or of a delta's."""

    done: int
    size: int
    is_delta: bool = False


Told = Callable[[Come], None]

Note = Callable[[str], None]
"""Is told what a person may want to know and nobody has to do anything about."""


def place_of(target: Target) -> str:
    """Where an artifact lies in a source: consistent snapshots put its digest before its name."""
    folder, _slash, name = target.path.rpartition("/")
    return f"image/targets/{folder}/{target.sha256}.{name}"


class Downloader:
    """Fetches into one folder from one source; without a ``meter``, as from a stick, whole and at once.

    ``bases`` are the digests to which there may be a delta, the likeliest first; ``most_mib`` is how
    much memory may be used for one.
    """

    def __init__(
        self,
        folder: Path,
        source: Source,
        meter: Counted | None = None,
        bases: Sequence[str] = (),
        most_mib: int = 0,
    ) -> None:
        self._folder: Final = folder
        self._meter: Final = meter
        self._transfer: Final = Transfer(source, meter or Free())
        self._bases: Final = bases
        self._most_mib: Final = most_mib

    def fetch(self, target: Target, told: Told, note: Note = lambda _text: None) -> Path:
        """The file with the bytes of ``target``, verified and durable.

        Raises:
            UpdateRefused: the bytes are others, or more.
            UpdateUnreachable: they do not come; what has come is kept.
            UpdateHeld: they may not come now; what has come is kept.
            UpdateBroken: they cannot be written.
        """
        whole = self._folder / target.sha256
        try:
            durable.make_folder(self._folder)
            if not (whole.is_file() and _digest(whole) == target.sha256):
                self._gather(target, whole, told, note)
        except OSError as error:
            raise UpdateBroken(
                _("{path} cannot be stored: {reason}").format(path=target.path, reason=error.strerror)
            ) from error
        finally:
            if self._meter is not None:
                self._meter.keep()
        told(Come(target.length, target.length))
        return whole

    def _gather(self, target: Target, whole: Path, told: Told, note: Note) -> None:
        part = whole.with_suffix(".part")
        for base in self._worth_asking(target, part):
            try:
                self._make(target, base, part, told)
            except (DeltaUseless, WrongLength, NotThere) as error:
                note(_("{path}: no delta: {reason}").format(path=target.path, reason=_reason(error)))
            else:
                break
        else:
            self._complete(target, part, told)
        durable.flush(part)
        durable.rename(part, whole)
        for pattern in (".part.etag", ".delta-*"):
            for left in self._folder.glob(f"{target.sha256}{pattern}"):
                left.unlink()

    def _worth_asking(self, target: Target, part: Path) -> list[str]:
        """The artifacts here to which there may be a delta."""
        if self._meter is None or transfer.size_of(part) == target.length:
            return []
        known = [base for base in self._bases if base not in self._meter.ledger.no_delta]
        sizes = {base: transfer.size_of(self._folder / base) for base in known}
        return [
            base
            for base, size in sizes.items()
            if size and delta.is_possible(size, target.length, self._most_mib)
        ]

    def _make(self, target: Target, base: str, part: Path, told: Told) -> None:
        """Fetch the delta from ``base`` and make ``part`` of it.

        Raises:
            DeltaUseless, WrongLength: it is none, or not worth it.
            NotThere: the source has none.
            UpdateUnreachable: it does not come.
            UpdateHeld: it may not come now.
        """
        known, meter = self._folder / base, self._meter
        left = target.length - transfer.size_of(part)
        most = min(int(delta.SHARE * target.length), left)
        file = part.with_suffix(f".delta-{base[:16]}")
        wanted = Wanted(delta.place_of(base, target.sha256), target.path, file, most, exactly=False)
        self._transfer.fill(wanted, lambda done: told(Come(done, transfer.total_of(file), is_delta=True)))
        size, draft = transfer.size_of(file), part.with_suffix(".draft")
        try:
            delta.rebuild(known, file, draft, target.length)
            _require_made(target, draft)
        except DeltaUseless:
            transfer.forget(file)
            draft.unlink(missing_ok=True)
            if meter is not None:
                meter.useless(base)
            raise
        draft.replace(part)
        if meter is not None:
            meter.made(target.length - size)

    def _complete(self, target: Target, part: Path, told: Told) -> None:
        """Fill ``part`` and verify it; where it began before this call, wrong bytes are given another chance.

        A part that was under way when the power went may hold anything; that is no attack.
        """
        resumed = part.exists()
        wanted = Wanted(place_of(target), target.path, part, target.length)
        try:
            self._transfer.fill(wanted, lambda done: told(Come(done, target.length)))
        except WrongLength as error:
            raise _refused(target, error) from None
        if _digest(part) != target.sha256:
            transfer.forget(part)
            if not resumed:
                raise UpdateRefused(Refusal.TAMPERED, target.path, _("their SHA-256 is another one"))
            self._complete(target, part, told)


def _require_made(target: Target, draft: Path) -> None:
    if _digest(draft) != target.sha256:
        raise DeltaUseless(_("what it makes has another SHA-256 than what was signed"))


def _refused(target: Target, error: WrongLength) -> UpdateRefused:
    if error.endless:
        detail = _("more than the {signed} bytes that were signed").format(signed=target.length)
        return UpdateRefused(Refusal.ENDLESS, target.path, detail)
    detail = _("{found} bytes; {signed} were signed").format(found=error.found, signed=target.length)
    return UpdateRefused(Refusal.TAMPERED, target.path, detail)


def _reason(error: Exception) -> str:
    if isinstance(error, WrongLength):
        return _("its {size} bytes are not worth it").format(size=error.found)
    if isinstance(error, NotThere):
        return _("the server has none")
    return str(error)


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
