"""A root's key away from the server: sealed with a passphrase, in a file that goes onto a stick.

The file holds the root's certificate openly, so that it says which root it is, and everything that it
takes to sign a request for an issuing authority on a machine without a network.
"""

from pathlib import Path
from typing import Annotated, Final

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)

from fleet_protocol.texts import _
from fleet_server.authority.issuing import Issuer, pem
from fleet_server.errors import AuthorityError
from fleet_server.files import write_durably
from fleet_signing.errors import KeyFileError
from fleet_signing.files import flush_folder
from fleet_signing.sealing import Sealing, seal, unseal

SUFFIX: Final = ".sealed"

_MAX_FILE: Final = 16 * 1024


class _SealedRoot(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file: ``private`` is the key in PKCS #8, sealed, in base64."""

    format: Annotated[int, msgspec.Meta(ge=1, le=1)]
    certificate: str
    private: bytes
    sealing: Sealing


def move_away(root: Issuer, key_file: Path, target: Path, passphrase: str) -> None:
    """Seal the key of ``root`` into ``target``, open that again, and only then remove ``key_file``.

    A ``target`` that is there already, from a move that was cut short, has to hold the same key.

    Raises:
        AuthorityError: the passphrase is too short, or ``target`` holds something else.
        ConfigError: it cannot be written.
    """
    if not target.exists():
        write_durably(target, _sealed(root, passphrase))
    if read_sealed(target, passphrase).certificate != root.certificate:
        raise AuthorityError(_("{path} holds another root; choose another folder").format(path=target))
    key_file.unlink()
    flush_folder(key_file.parent)


def read_sealed(path: Path, passphrase: str) -> Issuer:
    """The root in ``path``.

    Raises:
        AuthorityError: it cannot be read, or not with this passphrase.
    """
    try:
        file = _load(path)
        content = unseal(file.private, file.sealing, passphrase, file.certificate.encode())
        key = load_der_private_key(content, password=None)
        certificate = x509.load_pem_x509_certificate(file.certificate.encode())
    except InvalidTag:
        raise AuthorityError(_("this passphrase does not open {path}").format(path=path)) from None
    except (OSError, ValueError, TypeError, msgspec.MsgspecError) as error:
        raise _unusable(path, str(error)) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise _unusable(path, _("its two halves do not belong together"))
    return Issuer(certificate, key)


def find_sealed(place: Path) -> Path:
    """The root's file that is ``place``, or the only one in the folder ``place``.

    Raises:
        AuthorityError: there is none, or there are several.
    """
    if not place.is_dir():
        return place
    found = sorted(place.glob(f"*{SUFFIX}"))
    if len(found) != 1:
        raise AuthorityError(
            _("{folder} holds {count} roots ('*{suffix}'); name the file of one").format(
                folder=place, count=len(found), suffix=SUFFIX
            )
        )
    return found[0]


def _sealed(root: Issuer, passphrase: str) -> bytes:
    certificate = pem([root.certificate]).decode()
    private = root.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    try:
        sealing, content = seal(private, passphrase, certificate.encode())
    except KeyFileError as error:
        raise AuthorityError(str(error)) from error
    file = _SealedRoot(1, certificate, content, sealing)
    return msgspec.json.format(msgspec.json.encode(file), indent=2) + b"\n"


def _load(path: Path) -> _SealedRoot:
    if path.stat().st_size > _MAX_FILE:
        raise _unusable(path, _("it is too large"))
    return msgspec.json.decode(path.read_bytes(), type=_SealedRoot)


def _unusable(path: Path, reason: str) -> AuthorityError:
    return AuthorityError(_("{path} is no root that can be used: {reason}").format(path=path, reason=reason))
