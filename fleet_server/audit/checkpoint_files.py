"""The files of the audit: the key that signs checkpoints, this server's own ones, and a copy elsewhere.

The server's own file is the one that it goes on from. A copy may lie on a share that somebody else holds: it
is only ever appended to, gets whatever it lacks when it can be reached again, and nobody waits for it long.

::

    audit.key            the Ed25519 key, 0600
    audit.pub            its public half, 64 hexadecimal digits
    checkpoints.jsonl    every checkpoint that was signed
"""

import errno
import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from securesystemslib.signer import CryptoSigner

from fleet_protocol.texts import _
from fleet_server.audit.checkpoints import MAX_LINE
from fleet_server.config import ServerConfig
from fleet_server.errors import AuditError
from fleet_server.files import make_folder, write_durably
from fleet_signing import keys
from fleet_signing.errors import KeyFileError
from fleet_signing.files import flush_folder

COPY_S: Final = 5.0
"""How long a start, a stop or a guard waits for the copy: a share that hangs never answers."""

_ROLE: Final = "audit"
_PUBLIC: Final = "audit.pub"
_OVERLAP: Final = 64 * 1024
"""Bytes at the end of a copy that are compared before it is gone on with; ``audit verify`` reads all."""

_PART: Final = 1024 * 1024


def provide_audit_key(config: ServerConfig) -> None:
    """See to it that there is a key that signs checkpoints, and its public half beside it.

    Raises:
        AuditError: it is lost, or cannot be read or written.
    """
    make_folder(config.audit)
    path = _key_file(config)
    with _explained():
        if not path.exists():
            if config.own_checkpoints.exists():
                raise AuditError(
                    _("{path} is lost; restore it from a backup, or set its folder aside").format(path=path)
                )
            keys.write(path, _ROLE, keys.generate(), None)
        public = keys.public_text(keys.public_in(path)).encode() + b"\n"
    place = public_file(config)
    if not place.exists() or place.read_bytes() != public:
        write_durably(place, public, 0o644)


def read_audit_key(config: ServerConfig) -> CryptoSigner:
    """What signs checkpoints.

    Raises:
        AuditError: it cannot be read.
    """
    with _explained():
        return keys.read_open(_key_file(config))


def public_file(config: ServerConfig) -> Path:
    """The file with the public half of the audit's key."""
    return config.audit / _PUBLIC


def read_public(path: Path) -> str:
    """The public key in ``path``, as 64 hexadecimal digits.

    Raises:
        AuditError: there is none.
    """
    with _explained():
        try:
            return keys.public_text(keys.public_key(path.read_text("ascii").strip()))
        except (OSError, UnicodeDecodeError) as error:
            raise AuditError(_("{path} cannot be read ({reason})").format(path=path, reason=error)) from error


class Ledger:
    """A file of lines that is open, and held by one process at a time."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def last(self) -> bytes | None:
        """The last whole line. What a death has left of one after it is cut off: it never counted."""
        line, end = _last_line(self._descriptor)
        os.ftruncate(self._descriptor, end)
        return line

    def append(self, line: bytes) -> None:
        """Add ``line`` so that it survives a power cut.

        Raises:
            OSError: it cannot be written.
        """
        _write(self._descriptor, line)


@contextmanager
def held(path: Path) -> Iterator[Ledger]:
    """The lines in ``path``, which is made where it is missing.

    Raises:
        OSError: it cannot be opened.
    """
    is_new = not path.exists()
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if is_new:
            flush_folder(path.parent)
        yield Ledger(descriptor)
    finally:
        os.close(descriptor)


def last_line(path: Path) -> bytes | None:
    """The last whole line in ``path``; None where there is none.

    Raises:
        AuditError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return _last_line(file.fileno())[0]
    except FileNotFoundError:
        return None
    except OSError as error:
        raise AuditError(
            _("{path} cannot be read ({reason})").format(path=path, reason=error.strerror)
        ) from error


class Copy:
    """The copy of ``source`` in ``path``, written by a thread of its own that may hang for ever."""

    def __init__(self, source: Path, path: Path) -> None:
        self._source = source
        self._path = path
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

    def refresh(self, limit_s: float = COPY_S) -> None:
        """Append what the copy lacks.

        Raises:
            AuditError: it cannot be written within ``limit_s``, or is no copy.
        """
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._work, name="audit copy", daemon=True)
            self._thread.start()
        self._thread.join(limit_s)
        if self._thread.is_alive():
            raise AuditError(_("{path} does not answer").format(path=self._path))
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        try:
            follow(self._source, self._path)
            self._error = None
        except OSError as error:
            reason = error.strerror or str(error)
            self._error = AuditError(
                _("{path} cannot be written ({reason})").format(path=self._path, reason=reason)
            )
        except AuditError as error:
            self._error = error


def follow(source: Path, path: Path) -> None:
    """Append to ``path`` what ``source`` has beyond it.

    Raises:
        AuditError: ``path`` does not begin as ``source`` does.
        OSError: one of them cannot be read or written.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        with source.open("rb") as whole:
            size = os.fstat(descriptor).st_size
            start = max(0, size - _OVERLAP)
            whole.seek(start)
            if os.pread(descriptor, size - start, start) != whole.read(size - start):
                raise AuditError(
                    _("{path} is not what this server wrote: keep it, give another").format(path=path)
                )
            while part := whole.read(_PART):
                _write(descriptor, part)
    finally:
        os.close(descriptor)


def _last_line(descriptor: int) -> tuple[bytes | None, int]:
    """The last whole line, and the place in the file where it ends."""
    size = os.fstat(descriptor).st_size
    start = max(0, size - 2 * MAX_LINE)
    tail = os.pread(descriptor, size - start, start)
    whole = tail[: tail.rfind(b"\n") + 1]
    if start and not whole:
        return tail, size  # no line of ours: whoever reads it says so
    return (whole.splitlines(keepends=True)[-1] if whole else None), start + len(whole)


def _write(descriptor: int, content: bytes) -> None:
    if os.write(descriptor, content) < len(content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.fsync(descriptor)


def _key_file(config: ServerConfig) -> Path:
    return config.audit / f"{_ROLE}{keys.SUFFIX}"


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except KeyFileError as error:
        raise AuditError(str(error)) from error
