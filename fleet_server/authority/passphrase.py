"""Where a passphrase comes from: a file, or the person at the terminal."""

import getpass
import sys
from pathlib import Path
from typing import Final

from fleet_protocol.texts import _
from fleet_server.errors import AuthorityError

VARIABLE: Final = "ARGAN_PASSPHRASE_FILE"


def ask(file: Path | None, *, is_new: bool) -> str:
    """The passphrase in ``file``, or asked for where there is none; one that is new twice.

    Raises:
        AuthorityError: the file cannot be read, there is no terminal, or the two differ.
    """
    if file is not None:
        try:
            return file.read_text("utf-8").rstrip("\r\n")
        except (OSError, ValueError) as error:
            raise AuthorityError(_("the passphrase cannot be read: {reason}").format(reason=error)) from error
    if not sys.stdin.isatty():
        raise AuthorityError(
            _("a passphrase is needed: name a file with --passphrase-file, or use a terminal")
        )
    given = getpass.getpass(_("Passphrase of the root's key: "))
    if is_new and getpass.getpass(_("Once more: ")) != given:
        raise AuthorityError(_("the two differ; nothing was changed"))
    return given
