"""Where the authority's keys are: in files of its folder, or in a security module."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from fleet_server.authority.issuing import key_id, public_key_id, short_id
from fleet_server.authority.key_files import key_pem, read_key_file
from fleet_server.authority.security_module import open_module_key, parse_uri
from fleet_server.files import write_durably
from fleet_signing.key_uri import SCHEME, KeyUri

_ROOT: Final = "root"
_ISSUING: Final = "issuing"


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key for a new authority: where it is, and what its file shall hold; None where it has no file."""

    place: str
    key: ec.EllipticCurvePrivateKey
    content: bytes | None

    def keep(self, folder: Path) -> None:
        """Write its file into ``folder``, if it has one.

        Raises:
            ConfigError: it cannot be written.
        """
        if self.content is not None:
            write_durably(folder / self.place, self.content)


def new_root_key() -> NewKey:
    """A new key for a root. It has a file until it is moved away."""
    return _new_file_key(_ROOT)


def new_issuing_key(uri: KeyUri | None) -> NewKey:
    """A key for an issuing authority: the one that ``uri`` names, or a new one for a file.

    Raises:
        AuthorityError: the security module or its key cannot be used.
    """
    if uri is not None:
        return NewKey(str(uri), open_module_key(uri), None)
    return _new_file_key(_ISSUING)


def root_key_path(folder: Path, root: x509.Certificate) -> Path:
    """Where the key of ``root`` is, if it is in ``folder`` at all."""
    return folder / _file(_ROOT, key_id(root))


def open_key(folder: Path, place: str) -> ec.EllipticCurvePrivateKey:
    """The key at ``place``: a file's name in ``folder``, or an RFC 7512 URI.

    Raises:
        AuthorityError: the security module or its key cannot be used.
        OSError: the file cannot be read.
        ValueError: it is no unencrypted P-256 key in PEM.
    """
    if place.startswith(SCHEME):
        return open_module_key(parse_uri(place))
    return read_key_file(folder / place)


def _new_file_key(kind: str) -> NewKey:
    key = ec.generate_private_key(ec.SECP256R1())
    return NewKey(_file(kind, public_key_id(key.public_key())), key, key_pem(key))


def _file(kind: str, identifier: bytes) -> str:
    return f"{kind}-{short_id(identifier)}.key"
