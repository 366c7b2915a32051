"""A new device's folder: its key, made here, and what the server gave for it.

The key never leaves the folder. Adding is safe to repeat: the same key asks again until there is
a certificate.
"""

from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec

from fleet_console.errors import ConsoleError
from fleet_protocol import device_folder
from fleet_protocol.device_folder import CERTIFICATE, KEY
from fleet_protocol.enrollment import Enrolled
from fleet_protocol.errors import EnrollmentError
from fleet_protocol.texts import _
from fleet_signing.files import replace_durably


def provide_key(folder: Path) -> ec.EllipticCurvePrivateKey:
    """The P-256 key in ``folder``; made, readable by its owner alone, where there is none.

    Raises:
        ConsoleError: there is a device in the folder already, or the key cannot be used.
    """
    if (folder / CERTIFICATE).exists():
        raise ConsoleError(
            _("{folder} holds a device already; choose another folder with --out").format(folder=folder)
        )
    path = folder / KEY
    try:
        return device_folder.read_key(path.read_bytes())
    except FileNotFoundError:
        pem = device_folder.new_key()
    except (OSError, EnrollmentError) as error:
        raise ConsoleError(
            _("{path} cannot be used ({reason}); remove it to make a new key").format(path=path, reason=error)
        ) from error
    _make_folder(folder)
    write(path, pem, 0o600)
    return device_folder.read_key(pem)


def write_device(folder: Path, answer: object) -> None:
    """Write what the server answered, and a configuration to go on from; the certificate last, as a seal."""
    for file in device_folder.files(enrolled_in(answer)):
        if not (file.stays and (folder / file.name).exists()):
            write(folder / file.name, file.content)


def enrolled_in(answer: object) -> Enrolled:
    """The server's ``answer`` as what a device is given.

    Raises:
        ConsoleError: it is something else.
    """
    try:
        return msgspec.convert(answer, Enrolled)
    except msgspec.ValidationError as error:
        raise ConsoleError(
            _("the server's answer cannot be used ({reason}); is it of another version?").format(reason=error)
        ) from None


def write(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Whole or not at all, whatever happens meanwhile.

    Raises:
        ConsoleError: it cannot be written.
    """
    try:
        replace_durably(path, content, mode)
    except OSError as error:
        raise _cannot_write(path, error) from error


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_write(folder, error) from error


def _cannot_write(path: Path, error: OSError) -> ConsoleError:
    return ConsoleError(
        _("{path} cannot be written ({reason}); choose another with --out").format(
            path=path, reason=error.strerror
        )
    )
