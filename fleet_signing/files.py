"""Files that survive a power cut: written beside, flushed, renamed, and the folder flushed too."""

import contextlib
import os
import secrets
from pathlib import Path

from fleet_protocol.texts import _
from fleet_signing.errors import KeyFileError


def write_durably(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Replace ``path`` by ``content`` so that, whatever happens, it holds the old or the new whole.

    The folder is made, for its owner alone, where it is missing.

    Raises:
        KeyFileError: it cannot be written.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_durably(path, content, mode)
    except OSError as error:
        raise KeyFileError(
            _("{path} cannot be written ({reason}); check its owner and the free space").format(
                path=path, reason=error.strerror or error
            )
        ) from error


def replace_durably(path: Path, content: bytes, mode: int) -> None:
    """As :func:`write_durably`, in a folder that is there.

    Raises:
        OSError: it cannot be written; nothing is left beside it.
    """
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        flush_folder(path.parent)
    except OSError:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise


def flush_folder(path: Path) -> None:
    """Make the names in ``path`` survive a power cut."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
