"""Having somebody confirm what cannot be taken back: by typing the name of it, not by pressing y."""

import typer

from fleet_console.errors import ConsoleError
from fleet_protocol.texts import _


def confirm_by_typing(name: str, question: str) -> None:
    """Ask ``question`` until ``name`` is typed or not.

    Raises:
        ConsoleError: something else was, or nobody is there to be asked.
    """
    try:
        answer = typer.prompt(question, default="", show_default=False, err=True)
    except typer.Abort:
        answer = ""
    if answer.strip() != name:
        raise ConsoleError(_("nothing was changed; confirm by typing {id}, or give --yes").format(id=name))
