"""Where passphrases and passwords come from: a file that the environment names, or who is at the terminal."""

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
PASSWORD_VARIABLE: Final = "ARGAN_PASSWORD_FILE"  # noqa: S105 - a variable's name
NEW_PASSWORD_VARIABLE: Final = "ARGAN_NEW_PASSWORD_FILE"  # noqa: S105


def ask(what: str, *, is_new: bool) -> str:
    """The passphrase for ``what``; one that is new is asked for twice.

    Raises:
        UsageError: the file cannot be read, or there is neither file nor terminal.
    """
    return _secret(VARIABLE, _("Passphrase for {what}").format(what=what), is_new=is_new)


def ask_password(person: str, *, is_new: bool) -> str:
    """The password of ``person``; one that is new is asked for twice, and has a file of its own.

    Raises:
        UsageError: the file cannot be read, or there is neither file nor terminal.
    """
    text = _("New password of {person}") if is_new else _("Password of {person}")
    return _secret(
        NEW_PASSWORD_VARIABLE if is_new else PASSWORD_VARIABLE, text.format(person=person), is_new=is_new
    )


def _secret(variable: str, text: str, *, is_new: bool) -> str:
    named = os.environ.get(variable)
    if named:
        try:
            return Path(named).read_text("utf-8").rstrip("\r\n")
        except (OSError, ValueError) as error:
            raise UsageError(_("the secret cannot be read: {reason}").format(reason=error)) from error
    if not sys.stdin.isatty():
        raise UsageError(
            _("{secret} is needed: let {variable} name a file with it, or use a terminal").format(
                secret=text, variable=variable
            )
        )
    given: str = typer.prompt(text, hide_input=True, confirmation_prompt=is_new, err=True)
    return given


def open_key(path: Path) -> Held:
    """The key in ``path``, with its passphrase where it has one.

    Raises:
        KeyFileError: it cannot be read or opened.
    """
    sealed = keys.is_sealed(path)
    return keys.read(path, ask(path.name, is_new=False) if sealed else None)
