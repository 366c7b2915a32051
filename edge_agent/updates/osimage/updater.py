"""What the agent asks of a board's updater, whichever it is."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from edge_agent.updates.osimage.tool import Told


class Updater(Protocol):
    """One tool. Everything here can be asked again after a power cut.

    Every method raises UpdateUnfit where the tool is not there, does not answer or takes too long, and
    UpdaterRefused where it says no.
    """

    async def booted(self) -> str:
        """The name of the copy of the system that runs."""

    async def marks(self) -> Mapping[str, str]:
        """What the bootloader goes by, to be handed to :meth:`leave`; empty where the tool knows it."""

    async def examine(self, file: Path) -> None:
        """Have the tool check the image in ``file`` without installing it."""

    async def install(self, file: Path, told: Told) -> None:
        """Write the image into the copy that does not run, and have that one started next."""

    async def confirm(self) -> None:
        """The copy that runs stays."""

    async def leave(self, before: str, marks: Mapping[str, str]) -> None:
        """See to it that the copy ``before`` is started next, and the other one is not."""
