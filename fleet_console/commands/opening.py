"""``fleet console``: opens the screens over a server or over one agent."""

from pathlib import Path
from typing import Annotated

import typer

from fleet_console.commands.options import placed
from fleet_console.errors import UsageError
from fleet_console.sources.base import Source
from fleet_console.sources.http import Place
from fleet_protocol.texts import _


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("console", help=_("Open the screens: the whole fleet, or one agent on site."))(console)


@placed
def console(
    *,
    place: Place,
    local: Annotated[
        Path | None,
        typer.Option(help=_("An agent's socket: agent.sock in its data folder."), metavar="SOCKET"),
    ] = None,
) -> None:
    """Show the screens until they are left."""
    # Textual is loaded by whoever opens the screens, not by every command.
    from fleet_console.screens.app import Console

    Console(_source(place, local)).run()


def _source(place: Place, local: Path | None) -> Source:
    """One of the two sources.

    Raises:
        UsageError: both are asked for, or none.
    """
    if local is None:
        from fleet_console.sources.fleet import Fleet

        return Fleet(place.access())
    if place.data is not None:
        raise UsageError(_("give either --local for one agent, or --data for a server"))
    from fleet_console.sources.local import Agent

    return Agent(local / "agent.sock" if local.is_dir() else local)
