"""SWUpdate, by its own command line, and the bootloader's environment that it writes.

SWUpdate knows no copies: which one is started is said by variables that the image itself sets. So the
variables are written down before an installation, and set back where the new system has to be left.
"""

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from edge_agent.errors import UpdaterRefused, UpdateUnfit
from edge_agent.updates.osimage import tool
from edge_agent.updates.osimage.tool import Ran, Told
from fleet_protocol.texts import _

_EXAMINE_S: Final = 900.0

_CONFIRMED: Final = {"ustate": "0", "upgrade_available": "0", "bootcount": "0"}
"""What says that an update is over: SWUpdate's own mark, and U-Boot's for counting vain starts."""

_FAILED: Final = {"ustate": "3", "upgrade_available": "0", "bootcount": "0"}
_COUNTING: Final = frozenset({*_FAILED, "recovery_status"})

_SUCCESS: Final = re.compile(r"SWUPDATE successful")
_FAILURE: Final = re.compile(r"SWUPDATE failed \[[1-9]")


class Swupdate:
    """See :class:`edge_agent.updates.osimage.updater.Updater`; a copy's name is its root device.

    ``copies`` says, by the root device that runs, which software selection fills the other copy.
    """

    def __init__(self, lock: Path, limit_s: float, copies: Mapping[str, str]) -> None:
        self._lock: Final = lock
        self._limit_s: Final = limit_s
        self._copies: Final = copies

    async def booted(self) -> str:
        """The device that the root file system is on."""
        ran = await tool.run(("swupdate", "-g"))
        device = ran.answer.strip().splitlines()[-1:]
        if ran.status != 0 or not device:
            raise UpdateUnfit(_("SWUpdate does not say what runs: {words}").format(words=ran.words))
        return device[0]

    async def marks(self) -> Mapping[str, str]:
        """The bootloader's environment."""
        ran = await tool.run(("fw_printenv",))
        if ran.status != 0:
            raise UpdateUnfit(
                _("the bootloader's environment cannot be read: {words}").format(words=ran.words)
            )
        pairs = (line.partition("=") for line in ran.answer.splitlines())
        return {name: value for name, equals, value in pairs if equals}

    async def examine(self, file: Path) -> None:
        """Check signature, hardware and digests."""
        require(await tool.run(("swupdate", *await self._selection(), "-c", "-i", str(file)), _EXAMINE_S))

    async def install(self, file: Path, told: Told) -> None:
        """Install into the copy that does not run."""
        selection = await self._selection()
        with tool.alone(self._lock) as descriptor:
            command = ("swupdate", *selection, "-i", str(file))
            ran = await tool.run(command, self._limit_s, told, [descriptor])
        require(ran)

    async def confirm(self) -> None:
        """Take the marks of an update under way out of the environment."""
        marks = await self.marks()
        await self._set({name: value for name, value in _CONFIRMED.items() if name in marks})

    async def leave(self, before: str, marks: Mapping[str, str]) -> None:  # noqa: ARG002 - the marks say it
        """Set back what the image changed in the environment; nothing where it changed nothing."""
        now = await self.marks()
        names = (now.keys() | marks.keys()) - _COUNTING
        changed = {name: marks.get(name, "") for name in names if now.get(name) != marks.get(name)}
        if changed:
            await self._set(changed | {name: _FAILED[name] for name in _FAILED if name in now})

    async def _selection(self) -> tuple[str, ...]:
        if not self._copies:
            return ()
        device = await self.booted()
        if device not in self._copies:
            raise UpdateUnfit(_("{device} runs, which 'copies' of [os] does not name").format(device=device))
        return ("-e", self._copies[device])

    async def _set(self, variables: Mapping[str, str]) -> None:
        """Set ``variables``, an empty one is taken away; looked at afterwards.

        One script for all: the environment is then written once. Tools skip lines that they cannot read
        without saying so.
        """
        if not variables:
            return
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", prefix="argan-", suffix=".env") as script:
            script.writelines(f"{name}={value}\n" for name, value in sorted(variables.items()))
            script.flush()
            ran = await tool.run(("fw_setenv", "-s", script.name))
        now = await self.marks()
        if ran.status != 0 or any(now.get(name, "") != value for name, value in variables.items()):
            raise UpdaterRefused(
                _("the bootloader's environment was not set: {words}").format(words=ran.words)
            )


def require(ran: Ran) -> None:
    """See to it that SWUpdate succeeded, by its own words.

    Its exit status does not say: one run of seven that succeeded ended with 1 (2022.12 on Debian 12), where
    its processes ended in an unlucky order.
    """
    succeeded = any(_SUCCESS.search(line) for line in ran.lines)
    if not succeeded or any(_FAILURE.search(line) for line in ran.lines):
        errors = [line for line in ran.lines if "ERROR" in line][-3:]
        raise UpdaterRefused(_("SWUpdate says: {words}").format(words=" / ".join(errors) or ran.words))
