"""Files and folders of the server that survive a power cut, with its own words for what cannot be written."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from fleet_protocol.texts import _
from fleet_server.errors import ConfigError
from fleet_signing.files import flush_folder, replace_durably


def write_durably(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Replace ``path`` by ``content`` so that, whatever happens, it holds the old or the new whole.

    Raises:
        ConfigError: the folder cannot be written.
    """
    try:
        replace_durably(path, content, mode)
    except OSError as error:
        raise _cannot_write(path, error) from error


@contextmanager
def durable_file(path: Path) -> Iterator[BinaryIO]:
    """A new file that is at ``path``, in place of what was there, once it was written to its end.

    Raises:
        ConfigError: it cannot be written.
    """
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        flush_folder(path.parent)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        beside.unlink(missing_ok=True)


def make_folder(path: Path) -> None:
    """Make ``path`` for its owner alone; leaves one that is there as it is.

    Raises:
        ConfigError: it cannot be made, or nothing can be written into it.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_write(path, error) from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise ConfigError(
            _("{path} cannot be written by this user; give it to the user that runs the server").format(
                path=path
            )
        )


def _cannot_write(path: Path, error: OSError) -> ConfigError:
    return ConfigError(
        _(
            "{path} cannot be written ({reason}); check its owner and the free space, or choose another"
        ).format(path=path, reason=error.strerror or error)
    )
