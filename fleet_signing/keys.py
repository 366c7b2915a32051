"""Signing keys and their files.

A key that is kept offline lies in a file sealed with a passphrase; a key that a server signs with by
itself lies in one without, readable by its owner alone. Both are Ed25519. A key in a security module
is P-256, and its file says where it is. The public half stands in the file openly, so that a file says
which key it is without being opened.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import msgspec
from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from securesystemslib.signer import CryptoSigner, Key, SecretsHandler, Signature, Signer, SSlibKey

from fleet_protocol.texts import _
from fleet_signing.errors import KeyFileError
from fleet_signing.files import write_durably
from fleet_signing.key_uri import KeyUri, parse_uri
from fleet_signing.sealing import Sealing, seal, unseal
from fleet_signing.security_module import public_half, sign_digest

SUFFIX: Final = ".key"

_MAX_FILE: Final = 16 * 1024


class _KeyFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A key file. ``private`` are 32 bytes, sealed where ``sealing`` is there; bytes are in base64.

    Of a key in a security module ``module`` says where it is; a public half alone has neither.
    """

    format: Annotated[int, msgspec.Meta(ge=1, le=1)]
    role: str
    public: str
    private: bytes = b""
    sealing: Sealing | None = None
    module: str = ""


@dataclass(frozen=True, slots=True)
class Held:
    """A key out of a file: for which role it was made, and what signs."""

    role: str
    signer: Signer


class ModuleSigner(Signer):
    """Signs with a P-256 key in a security module; raises :class:`ModuleKeyError` where that fails."""

    def __init__(self, uri: KeyUri, public_key: SSlibKey) -> None:
        self._uri = uri
        self._public_key = public_key

    @property
    def public_key(self) -> SSlibKey:
        """The public half."""
        return self._public_key

    @classmethod
    def from_priv_key_uri(
        cls, priv_key_uri: str, public_key: Key, secrets_handler: SecretsHandler | None = None
    ) -> "ModuleSigner":
        """The signer for the key that a URI names."""
        del secrets_handler  # the URI names the file with the PIN
        assert isinstance(public_key, SSlibKey)  # noqa: S101 - there are no others here
        return cls(parse_uri(priv_key_uri), public_key)

    def sign(self, payload: bytes) -> Signature:
        """An ECDSA signature in DER over the SHA-256 of ``payload``."""
        signature = sign_digest(self._uri, hashlib.sha256(payload).digest())
        return Signature(self._public_key.keyid, signature.hex())


def generate() -> CryptoSigner:
    """A new key."""
    return CryptoSigner.generate_ed25519()


def public_text(key: SSlibKey) -> str:
    """The public half as documents carry it: 64 hexadecimal digits of Ed25519, PEM of P-256."""
    return str(key.keyval["public"])


def public_key(text: str) -> SSlibKey:
    """The key whose public half is ``text``; what :func:`public_text` gave.

    Raises:
        KeyFileError: it is none.
    """
    try:
        if text.startswith("-----BEGIN "):
            return SSlibKey.from_crypto(load_pem_public_key(text.encode()))
        return SSlibKey.from_crypto(Ed25519PublicKey.from_public_bytes(bytes.fromhex(text)))
    except (ValueError, UnsupportedAlgorithm):
        raise KeyFileError(
            _("{text!r} is no key; Ed25519 has 64 hexadecimal digits, P-256 is PEM").format(text=text[:80])
        ) from None


def write(path: Path, role: str, signer: CryptoSigner, passphrase: str | None) -> None:
    """Keep ``signer`` in ``path``, 0600: sealed with ``passphrase``, openly where that is None.

    Raises:
        KeyFileError: it cannot be written, is there already, or the passphrase is too short.
    """
    public, private = public_text(signer.public_key), _private_bytes(signer)
    sealing = None
    if passphrase is not None:
        sealing, private = seal(private, passphrase, public.encode())
    _write_new(path, _KeyFile(1, role, public, private, sealing))


def write_module_key(path: Path, role: str, uri: KeyUri) -> Signer:
    """Say in ``path`` that the key for ``role`` is the one that ``uri`` names; what signs with it.

    Raises:
        KeyFileError: the file cannot be written, or is there already.
        ModuleKeyError: there is no such key.
    """
    key = SSlibKey.from_crypto(public_half(uri))
    _write_new(path, _KeyFile(1, role, public_text(key), module=str(uri)))
    return ModuleSigner(uri, key)


def write_public(path: Path, role: str, key: SSlibKey) -> None:
    """Write the public half of a key into a file of its own; raises :class:`KeyFileError`."""
    write_durably(path, _encoded(_KeyFile(1, role, public_text(key))), 0o644)


def read(path: Path, passphrase: str | None = None) -> Held:
    """The key in ``path``.

    Raises:
        KeyFileError: it cannot be read, is sealed and no passphrase given, or this one does not open it.
    """
    file = _load(path)
    if file.module:
        return Held(file.role, _module_signer(path, file))
    return Held(file.role, _software_signer(path, file, passphrase))


def read_open(path: Path) -> CryptoSigner:
    """The key in ``path`` that a program signs with by itself, not sealed; raises as :func:`read`."""
    return _software_signer(path, _load(path), None)


def is_sealed(path: Path) -> bool:
    """Whether the key in ``path`` needs a passphrase; raises as :func:`read`."""
    return _load(path).sealing is not None


def public_in(path: Path) -> SSlibKey:
    """The public half of the key in ``path``, which needs no passphrase; raises as :func:`read`."""
    return public_key(_load(path).public)


def role_in(path: Path) -> str:
    """For which role the key in ``path`` was made; raises as :func:`read`."""
    return _load(path).role


def _software_signer(path: Path, file: _KeyFile, passphrase: str | None) -> CryptoSigner:
    private = file.private
    try:
        if file.sealing is not None:
            private = _open(path, file, file.sealing, passphrase)
        signer = CryptoSigner(Ed25519PrivateKey.from_private_bytes(private))
    except ValueError as error:
        raise _unusable(path, error) from error
    if public_text(signer.public_key) != file.public:
        raise _unusable(path, _("its two halves do not belong together"))
    return signer


def _module_signer(path: Path, file: _KeyFile) -> ModuleSigner:
    """The key that ``file`` names, if it is still the one whose public half stands there."""
    uri, key = parse_uri(file.module), public_key(file.public)
    if SSlibKey.from_crypto(public_half(uri)).keyid != key.keyid:
        raise _unusable(path, _("the security module holds another key under this name now"))
    return ModuleSigner(uri, key)


def _write_new(path: Path, file: _KeyFile) -> None:
    if path.exists():
        raise KeyFileError(_("{path} holds a key already; it is never written over").format(path=path))
    write_durably(path, _encoded(file))


def _encoded(file: _KeyFile) -> bytes:
    return msgspec.json.format(msgspec.json.encode(file), indent=2) + b"\n"


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
