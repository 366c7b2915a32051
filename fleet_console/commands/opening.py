"""``fleet console``: opens the screens over a server or over one agent."""

from pathlib import Path
from typing import Annotated

import typer

from fleet_console.errors import UsageError
from fleet_console.sources.base import Source
from fleet_console.sources.http import find_access
from fleet_protocol.texts import _


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("console", help=_("Open the screens: the whole fleet, or one agent on site."))(console)


def console(
    *,
    data: Annotated[
        Path | None, typer.Option(help=_("The data folder of a server on this machine."), metavar="DIR")
    ] = None,
    server: Annotated[
        str | None, typer.Option(envvar="ARGAN_SERVER", help=_("The server's address."), metavar="URL")
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(envvar="ARGAN_TOKEN_FILE", help=_("The file with the token."), metavar="FILE"),
    ] = None,
    local: Annotated[
        Path | None,
        typer.Option(help=_("An agent's socket: agent.sock in its data folder."), metavar="SOCKET"),
    ] = None,
) -> None:
    """Show the screens until they are left."""
    # Textual is loaded by whoever opens the screens, not by every command.
    from fleet_console.screens.app import Console

    Console(_source(data, server, token_file, local)).run()


def _source(data: Path | None, server: str | None, token_file: Path | None, local: Path | None) -> Source:
    """One of the two sources.

    Raises:
        UsageError: both are asked for, or none.
    """
    if local is None:
        from fleet_console.sources.fleet import Fleet

        return Fleet(find_access(server, token_file, data))
    if data is not None:
        raise UsageError(_("give either --local for one agent, or --data for a server"))
    from fleet_console.sources.local import Agent

    return Agent(local / "agent.sock" if local.is_dir() else local)
