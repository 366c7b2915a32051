"""Ed25519 keys and their files.

A key that is kept offline lies in a file sealed with a passphrase; a key that a server signs with by
itself lies in one without, readable by its owner alone. The public half stands in the file openly, so
that a file says which key it is without being opened.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.signer import CryptoSigner, SSlibKey

from fleet_protocol.manifest import Digest
from fleet_protocol.texts import _
from fleet_signing.errors import KeyFileError
from fleet_signing.files import write_durably
from fleet_signing.sealing import Sealing, seal, unseal

SUFFIX: Final = ".key"

_MAX_FILE: Final = 16 * 1024


class _KeyFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A key file. ``private`` are 32 bytes, sealed where ``sealing`` is there; bytes are in base64."""

    format: Annotated[int, msgspec.Meta(ge=1, le=1)]
    role: str
    public: Digest
    private: bytes
    sealing: Sealing | None = None


@dataclass(frozen=True, slots=True)
class Held:
    """A key out of a file: for which role it was made, and what signs."""

    role: str
    signer: CryptoSigner


def generate() -> CryptoSigner:
    """A new key."""
    return CryptoSigner.generate_ed25519()


def public_text(key: SSlibKey) -> str:
    """The public half as documents carry it: 64 hexadecimal digits."""
    return str(key.keyval["public"])


def public_key(text: str) -> SSlibKey:
    """The key whose public half is ``text``; what :func:`public_text` gave.

    Raises:
        KeyFileError: it is none.
    """
    try:
        return SSlibKey.from_crypto(Ed25519PublicKey.from_public_bytes(bytes.fromhex(text)))
    except ValueError:
        raise KeyFileError(
            _("{text!r} is no Ed25519 key; it has 64 hexadecimal digits").format(text=text[:80])
        ) from None


def write(path: Path, role: str, signer: CryptoSigner, passphrase: str | None) -> None:
    """Keep ``signer`` in ``path``, 0600: sealed with ``passphrase``, openly where that is None.

    Raises:
        KeyFileError: it cannot be written, is there already, or the passphrase is too short.
    """
    if path.exists():
        raise KeyFileError(_("{path} holds a key already; it is never written over").format(path=path))
    public, private = public_text(signer.public_key), _private_bytes(signer)
    sealing = None
    if passphrase is not None:
        sealing, private = seal(private, passphrase, public.encode())
    content = msgspec.json.encode(_KeyFile(1, role, public, private, sealing))
    write_durably(path, msgspec.json.format(content, indent=2) + b"\n")


def read(path: Path, passphrase: str | None = None) -> Held:
    """The key in ``path``.

    Raises:
        KeyFileError: it cannot be read, is sealed and no passphrase given, or this one does not open it.
    """
    file = _load(path)
    private = file.private
    try:
        if file.sealing is not None:
            private = _open(path, file, file.sealing, passphrase)
        signer = CryptoSigner(Ed25519PrivateKey.from_private_bytes(private))
    except ValueError as error:
        raise _unusable(path, error) from error
    if public_text(signer.public_key) != file.public:
        raise _unusable(path, _("its two halves do not belong together"))
    return Held(file.role, signer)


def is_sealed(path: Path) -> bool:
    """Whether the key in ``path`` needs a passphrase; raises as :func:`read`."""
    return _load(path).sealing is not None


def public_in(path: Path) -> SSlibKey:
    """The public half of the key in ``path``, which needs no passphrase; raises as :func:`read`."""
    return public_key(_load(path).public)


def _load(path: Path) -> _KeyFile:
    try:
        if path.stat().st_size > _MAX_FILE:
            raise _unusable(path, _("it is too large"))
        return msgspec.json.decode(path.read_bytes(), type=_KeyFile)
    except (OSError, msgspec.MsgspecError) as error:
        raise _unusable(path, error) from error


def _open(path: Path, file: _KeyFile, sealing: Sealing, passphrase: str | None) -> bytes:
    if passphrase is None:
        raise KeyFileError(_("{path} is sealed; give its passphrase").format(path=path))
    try:
        return unseal(file.private, sealing, passphrase, file.public.encode())
    except InvalidTag:
        raise KeyFileError(_("this passphrase does not open {path}").format(path=path)) from None


def _private_bytes(signer: CryptoSigner) -> bytes:
    key = load_pem_private_key(signer.private_bytes, password=None)
    assert isinstance(key, Ed25519PrivateKey)  # noqa: S101 - there are no others here
    return key.private_bytes_raw()


def _unusable(path: Path, reason: object) -> KeyFileError:
    return KeyFileError(_("{path} is no key that can be used: {reason}").format(path=path, reason=reason))
