"""Where passphrases come from: a file that the environment names, or the person at the terminal."""

import os
import sys
from pathlib import Path
from typing import Final

import typer

from fleet_console.errors import UsageError
from fleet_protocol.texts import _
from fleet_signing import keys
from fleet_signing.keys import Held

VARIABLE: Final = "ARGAN_PASSPHRASE_FILE"


def ask(what: str, *, is_new: bool) -> str:
    """The passphrase for ``what``; one that is new is asked for twice.

    Raises:
        UsageError: the file cannot be read, or there is neither file nor terminal.
    """
    named = os.environ.get(VARIABLE)
    if named:
        try:
            return Path(named).read_text("utf-8").rstrip("\r\n")
        except (OSError, ValueError) as error:
            raise UsageError(_("the passphrase cannot be read: {reason}").format(reason=error)) from error
    if not sys.stdin.isatty():
        raise UsageError(
            _("a passphrase is needed: let {variable} name a file with it, or use a terminal").format(
                variable=VARIABLE
            )
        )
    text = _("Passphrase for {what}").format(what=what)
    given: str = typer.prompt(text, hide_input=True, confirmation_prompt=is_new, err=True)
    return given


def open_key(path: Path) -> Held:
    """The key in ``path``, with its passphrase where it has one.

    Raises:
        KeyFileError: it cannot be read or opened.
    """
    sealed = keys.is_sealed(path)
    return keys.read(path, ask(path.name, is_new=False) if sealed else None)
