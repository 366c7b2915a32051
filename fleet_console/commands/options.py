"""The options that commands share, and how a command says what came of it."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from fleet_protocol.texts import _

Data = Annotated[
    Path | None, typer.Option(help=_("The data folder of a server on this machine."), metavar="DIR")
]
Url = Annotated[
    str | None,
    typer.Option("--server", envvar="ARGAN_SERVER", help=_("The server's address."), metavar="URL"),
]
TokenFile = Annotated[
    Path | None, typer.Option(envvar="ARGAN_TOKEN_FILE", help=_("The file with the token."), metavar="FILE")
]
AsJson = Annotated[bool, typer.Option("--json", help=_("Print the server's answer as JSON."))]


def show(content: Any, text: str, *, as_json: bool) -> None:
    """Print ``content`` as JSON, or else ``text``."""
    typer.echo(json.dumps(content, indent=2) if as_json else text)


def tell(text: str) -> None:
    """Say something that is no data: to stderr."""
    typer.echo(text, err=True)
