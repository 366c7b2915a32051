"""Sealing a private key with a passphrase.

PKCS #8 is not used for it: what OpenSSL makes of it by default stretches a passphrase by 2048 rounds
only. Here it is scrypt with 64 MiB, then AES-256-GCM.
"""

import secrets
from typing import Annotated, Final

import msgspec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from fleet_protocol.texts import _
from fleet_signing.errors import KeyFileError

MIN_PASSPHRASE: Final = 8
"""Characters. A passphrase is what stands between a lost stick and a stranger's model in the fleet."""

_COST: Final = 2**16
"""scrypt's n, with r = 8: 64 MiB and some tenths of a second for every guess."""


class Sealing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How something is sealed."""

    salt: bytes
    nonce: bytes
    cost: Annotated[int, msgspec.Meta(ge=2**14, le=2**20)]


def seal(content: bytes, passphrase: str, bound: bytes) -> tuple[Sealing, bytes]:
    """``content`` as only ``passphrase`` opens it, and only together with ``bound``, which stays open.

    Raises:
        KeyFileError: the passphrase is too short to be worth asking for.
    """
    if len(passphrase) < MIN_PASSPHRASE:
        raise KeyFileError(
            _("a passphrase has at least {least} characters; choose a longer one").format(
                least=MIN_PASSPHRASE
            )
        )
    sealing = Sealing(secrets.token_bytes(16), secrets.token_bytes(12), _COST)
    return sealing, _cipher(sealing, passphrase).encrypt(sealing.nonce, content, bound)


def unseal(sealed: bytes, sealing: Sealing, passphrase: str, bound: bytes) -> bytes:
    """What was sealed.

    Raises:
        InvalidTag: not with this passphrase, or not together with ``bound``.
        ValueError: ``sealing`` makes no sense.
    """
    return _cipher(sealing, passphrase).decrypt(sealing.nonce, sealed, bound)


def _cipher(sealing: Sealing, passphrase: str) -> AESGCM:
    scrypt = Scrypt(salt=sealing.salt, length=32, n=sealing.cost, r=8, p=1)
    return AESGCM(scrypt.derive(passphrase.encode()))
