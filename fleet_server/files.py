"""Files that survive a power cut: written beside, flushed, renamed, and the folder flushed too."""

import contextlib
import os
import secrets
from pathlib import Path

from fleet_protocol.texts import _
from fleet_server.errors import ConfigError


def write_durably(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Replace ``path`` by ``content`` so that, whatever happens, it holds the old or the new whole.

    Raises:
        ConfigError: the folder cannot be written.
    """
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        flush_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise _cannot_write(path, error) from error


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


def flush_folder(path: Path) -> None:
    """Make the names in ``path`` survive a power cut."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _cannot_write(path: Path, error: OSError) -> ConfigError:
    return ConfigError(
        _(
            "{path} cannot be written ({reason}); check its owner and the free space, or choose another"
        ).format(path=path, reason=error.strerror or error)
    )
