"""The folder of slots: one is added whole or not at all, and only those that may run are kept."""

import asyncio
import logging
from pathlib import Path
from typing import Final

from edge_agent import durable
from edge_agent.errors import UpdateBroken, UpdateRefused
from edge_agent.launcher import record
from edge_agent.launcher.record import FITTED, FOLDER, Record, RecordUnreadable
from edge_agent.slots import children
from edge_agent.slots.spoken import Broken, Built, Outcome, Refused
from fleet_protocol.targets import Refusal, Target
from fleet_protocol.texts import _

_LOG: Final = logging.getLogger(__name__)

_DRAFT: Final = ".draft-"
_DIGEST_LENGTH: Final = 64


class Room:
    """``DATA/slots``; ``fitted`` holds the packages of the base installation."""

    def __init__(self, data: Path, fitted: Path) -> None:
        self._folder: Final = data / FOLDER
        self._fitted: Final = fitted

    def place(self, sha256: str) -> Path:
        """The folder of a slot."""
        return self._folder / sha256

    def python(self, sha256: str) -> Path:
        """The interpreter of a slot."""
        return record.python_of(self._folder, sha256)

    def slot_of(self, prefix: str) -> str:
        """The slot of the interpreter with ``prefix``; the base installation where it is none."""
        folder = Path(prefix)
        return folder.name if folder.parent.resolve() == self._folder.resolve() else FITTED

    async def add(self, target: Target, artifact: Path) -> None:
        """Make a slot of the tar ``artifact`` of ``target``; if it is here already, nothing.

        Raises:
            UpdateRefused: it is not in the form of its kind, or not what was signed for.
            UpdateBroken: it cannot be built or written.
        """
        if self.place(target.sha256).is_dir():
            return
        draft = self._folder / f"{_DRAFT}{target.sha256}"
        try:
            durable.make_folder(self._folder)
            await asyncio.to_thread(durable.remove, draft)
            _require_described(target, await children.build(artifact, draft, self._fitted))
            durable.rename(draft, self.place(target.sha256))
        except OSError as error:
            raise UpdateBroken(
                _("{path} cannot be stored: {reason}").format(path=target.path, reason=error.strerror)
            ) from error

    def record(self) -> Record:
        """What the launcher goes by; raises :class:`UpdateBroken`."""
        try:
            return record.read(self._folder)
        except RecordUnreadable as error:
            raise UpdateBroken(
                _("{file} cannot be read: {reason}").format(file=self._folder / record.CURRENT, reason=error)
            ) from error

    def write(self, new: Record) -> None:
        """Replace what the launcher goes by; raises :class:`UpdateBroken`."""
        try:
            record.write(self._folder, new)
        except OSError as error:
            raise UpdateBroken(
                _("{file} cannot be written: {reason}").format(
                    file=self._folder / record.CURRENT, reason=error.strerror
                )
            ) from error

    def sweep(self) -> None:
        """Remove every slot but what runs, and what ran before; what is left is removed the next time."""
        standing = self.record()
        kept = {standing.current, standing.previous}
        try:
            for path in self._folder.iterdir() if self._folder.is_dir() else ():
                name = path.name.rpartition("-")[2]
                if len(name) == _DIGEST_LENGTH and path.is_dir() and name not in kept:
                    durable.remove(path)
        except OSError as error:
            _LOG.warning(_("old slots cannot be removed: {reason}").format(reason=error.strerror))


def _require_described(target: Target, built: Outcome) -> None:
    """What was signed for is what the build says of itself."""
    match built:
        case Refused(refusal, detail):
            raise UpdateRefused(refusal, target.path, detail)
        case Broken(detail):
            raise UpdateBroken(_("{path} cannot be stored: {reason}").format(path=target.path, reason=detail))
        case Built(name, version, release):
            signed = target.description
            if (name, version, release) != (signed.name, signed.version, signed.release):
                raise UpdateRefused(
                    Refusal.MALFORMED,
                    target.path,
                    _("it calls itself {name} {version}, release {release}").format(
                        name=name, version=version, release=release
                    ),
                )
