"""The device's folder while it gets its identity: the key first, the certificate last, all of it durable.

The power may go at any moment. While there is no certificate, everything can be done again with the key
that is there; the server gives the same key the same answer.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from edge_agent import durable
from edge_agent.errors import EnrollmentError, FolderInUse
from fleet_protocol import device_folder
from fleet_protocol.device_folder import CERTIFICATE, CONFIGURATION, KEY
from fleet_protocol.enrollment import Enrolled
from fleet_protocol.errors import ProtocolError
from fleet_protocol.texts import _

_OWNER_ALONE = 0o600


class Home:
    """One device's folder, which nobody else enrolls into meanwhile. Made by :func:`open_home`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def configuration(self) -> Path:
        """The agent's configuration."""
        return self.folder / CONFIGURATION

    def device(self) -> str | None:
        """Which device is here already; None for none.

        Raises:
            EnrollmentError: there is a certificate that cannot be read.
        """
        path = self.folder / CERTIFICATE
        try:
            certificate = x509.load_pem_x509_certificate(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise EnrollmentError(
                _("{path} cannot be read ({reason}); remove it to enroll the device again").format(
                    path=path, reason=error
                )
            ) from None
        names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return str(names[0].value) if names else ""

    def provide_key(self) -> ec.EllipticCurvePrivateKey:
        """The device's key; made, readable by its owner alone, where there is none.

        Raises:
            EnrollmentError: it cannot be used or written.
        """
        path = self.folder / KEY
        try:
            return device_folder.read_key(path.read_bytes())
        except FileNotFoundError:
            pem = device_folder.new_key()
        except (OSError, ProtocolError) as error:
            raise EnrollmentError(
                _("{path} cannot be used ({reason}); remove it to make a new key").format(
                    path=path, reason=error
                )
            ) from None
        self._write(path, pem, _OWNER_ALONE)
        return device_folder.read_key(pem)

    def move_in(self, enrolled: Enrolled, key: ec.EllipticCurvePrivateKey) -> None:
        """Write what the server gave for ``key``, the certificate last, as a seal.

        Raises:
            EnrollmentError: it does not belong together, or cannot be written.
        """
        try:
            device_folder.check(enrolled, key)
        except ProtocolError as error:
            raise EnrollmentError(
                _("what the server gave cannot be used: {reason}; tell whoever runs it").format(reason=error)
            ) from None
        for file in device_folder.files(enrolled):
            path = self.folder / file.name
            if not (file.stays and path.exists()):
                self._write(path, file.content)

    def _write(self, path: Path, content: bytes, mode: int = 0o644) -> None:
        try:
            durable.write(path, content, mode)
        except OSError as error:
            raise _cannot_write(path, error) from None


@contextlib.contextmanager
def open_home(folder: Path) -> Iterator[Home]:
    """The device's folder ``folder``, made where it is missing, and held while it is used.

    Raises:
        EnrollmentError: it cannot be made.
        FolderInUse: another command enrolls into it.
    """
    try:
        durable.make_folder(folder.absolute())
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise _cannot_write(folder, error) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield Home(folder)
    except BlockingIOError:
        raise FolderInUse(
            _("another command enrolls a device into {folder}; wait until it has ended").format(folder=folder)
        ) from None
    finally:
        os.close(descriptor)


def _cannot_write(path: Path, error: OSError) -> EnrollmentError:
    return EnrollmentError(
        _("{path} cannot be written ({reason}); choose another folder with --out").format(
            path=path, reason=error.strerror
        )
    )
