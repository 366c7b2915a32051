"""The options that commands share, and how a command says what came of it."""

import functools
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from fleet_console.sources.http import Place
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
Ca = Annotated[
    Path | None,
    typer.Option(
        envvar="ARGAN_CA",
        help=_("The fleet's authority, where the server's certificate is of it."),
        metavar="FILE",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help=_("Print the server's answer as JSON."))]

_OPTIONS: Final = {"data": Data, "server": Url, "token_file": TokenFile, "ca": Ca}


def placed(command: Callable[..., None]) -> Callable[..., None]:
    """Give ``command`` the options that say which server is meant, as its parameter ``place``."""

    @functools.wraps(command)
    def with_place(**given: Any) -> None:
        chosen = {name: given.pop(name) for name in _OPTIONS}
        command(place=Place(chosen["server"], chosen["token_file"], chosen["ca"], chosen["data"]), **given)

    signature = inspect.signature(command, eval_str=True)
    kept = [each for name, each in signature.parameters.items() if name != "place"]
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
        for name, annotation in _OPTIONS.items()
    ]
    own = [each for each in kept if each.kind is not inspect.Parameter.KEYWORD_ONLY]
    named = [each for each in kept if each.kind is inspect.Parameter.KEYWORD_ONLY]
    parameters = [*own, *named, *added]
    with_place.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    with_place.__annotations__ = {each.name: each.annotation for each in parameters}
    # Else the parameters of what it wraps would be asked for.
    del with_place.__wrapped__
    return with_place


def show(content: Any, text: str, *, as_json: bool) -> None:
    """Print ``content`` as JSON, or else ``text``."""
    typer.echo(json.dumps(content, indent=2) if as_json else text)


def tell(text: str) -> None:
    """Say something that is no data: to stderr."""
    typer.echo(text, err=True)
