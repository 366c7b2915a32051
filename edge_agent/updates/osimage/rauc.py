"""RAUC, by its own command line; its service does the work, over D-Bus."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from edge_agent.errors import UpdaterRefused, UpdateUnfit
from edge_agent.updates.osimage import tool
from edge_agent.updates.osimage.tool import NotNow, Ran, Told
from fleet_protocol.texts import _

_LATER: Final = (
    "already processing a different method",
    "was not provided by any .service files",
    "could not connect",
    "namehasnoowner",
)
"""What RAUC's command says, in small letters, where its service works for somebody else, or is not there."""

_EXAMINE_S: Final = 900.0


class _Slot(msgspec.Struct):
    state: str
    bootname: str | None = None


class _Status(msgspec.Struct):
    """The part of ``rauc status --output-format=json`` that matters here."""

    booted: str
    boot_primary: str | None
    slots: list[dict[str, _Slot]]

    @property
    def primary(self) -> str | None:
        """The boot name of the slot that is started next."""
        found = [
            slot.bootname for each in self.slots for name, slot in each.items() if name == self.boot_primary
        ]
        return found[0] if found else None


class Rauc:
    """See :class:`edge_agent.updates.osimage.updater.Updater`; a copy's name is its slot's ``bootname``."""

    def __init__(self, lock: Path, limit_s: float) -> None:
        self._lock: Final = lock
        self._limit_s: Final = limit_s

    async def booted(self) -> str:
        """The slot that runs."""
        return (await self._status()).booted

    async def marks(self) -> Mapping[str, str]:
        """RAUC knows its slots itself."""
        return {}

    async def examine(self, file: Path) -> None:
        """Check the bundle's signature against the board's keyring."""
        _require(await tool.run(("rauc", "info", str(file)), _EXAMINE_S))

    async def install(self, file: Path, told: Told) -> None:
        """Have the service install it."""
        with tool.alone(self._lock) as descriptor:
            _require(await tool.run(("rauc", "install", str(file)), self._limit_s, told, [descriptor]))

    async def confirm(self) -> None:
        """Mark the running slot as good."""
        await self._mark("good", "booted")

    async def leave(self, before: str, marks: Mapping[str, str]) -> None:  # noqa: ARG002 - RAUC knows them
        """Make the slot ``before`` the primary one, and mark the other as bad if it was to be started."""
        status = await self._status()
        if status.booted != before:
            await self._mark("bad", "booted")
            await self._mark("active", "other")
        elif status.primary != before:
            await self._mark("bad", "other")
            await self._mark("active", "booted")

    async def _mark(self, state: str, slot: str) -> None:
        _require(await tool.run(("rauc", "status", f"mark-{state}", slot)))

    async def _status(self) -> _Status:
        ran = _require(await tool.run(("rauc", "status", "--output-format=json")))
        try:
            return msgspec.json.decode(ran.answer.encode(), type=_Status)
        except msgspec.MsgspecError as error:
            raise UpdateUnfit(_("RAUC's status cannot be read: {reason}").format(reason=error)) from None


def _require(ran: Ran) -> Ran:
    """``ran``, if it came to a good end.

    A service that is away, or works for an agent of before, is no fault of a bundle.
    """
    if ran.status == 0:
        return ran
    text = _("RAUC says: {words}").format(words=ran.words)
    is_later = any(mark in line.casefold() for line in ran.lines for mark in _LATER)
    raise (NotNow if is_later else UpdaterRefused)(text)
