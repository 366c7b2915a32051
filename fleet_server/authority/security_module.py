"""A certificate authority's key that never leaves a security module, as certificates need it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from fleet_server.errors import AuthorityError
from fleet_signing import key_uri
from fleet_signing.errors import ModuleKeyError
from fleet_signing.key_uri import KeyUri
from fleet_signing.security_module import public_half, sign_digest


def open_module_key(uri: KeyUri) -> "ModuleKey":
    """The key that ``uri`` names, after a login and a look at it.

    Raises:
        AuthorityError: the library, the token, the PIN or the key is missing or wrong.
    """
    with _in_our_words():
        return ModuleKey(uri, public_half(uri))


def parse_uri(text: str, pin_file: Path | None = None) -> KeyUri:
    """The key that ``text`` names; as :func:`fleet_signing.key_uri.parse_uri`, but for whom it tells.

    Raises:
        AuthorityError: it is no such URI, or says more or less than it has to.
    """
    with _in_our_words():
        return key_uri.parse_uri(text, pin_file)


class ModuleKey(ec.EllipticCurvePrivateKey):
    """A P-256 key in a security module, as far as certificates need it: it signs, and shows its public half.

    Signing raises :class:`AuthorityError` where the module does not answer as it should.
    """

    def __init__(self, uri: KeyUri, public_key: ec.EllipticCurvePublicKey) -> None:
        self._uri = uri
        self._public_key = public_key

    def sign(
        self,
        data: bytes | bytearray | memoryview,
        signature_algorithm: ec.EllipticCurveSignatureAlgorithm,
    ) -> bytes:
        """An ECDSA signature in DER."""
        with _in_our_words():
            return sign_digest(self._uri, _digest(bytes(data), signature_algorithm))

    def public_key(self) -> ec.EllipticCurvePublicKey:
        """The public half."""
        return self._public_key

    @property
    def curve(self) -> ec.EllipticCurve:
        """P-256."""
        return self._public_key.curve

    @property
    def key_size(self) -> int:
        """In bits."""
        return self._public_key.key_size

    def exchange(self, algorithm: ec.ECDH, peer_public_key: ec.EllipticCurvePublicKey) -> NoReturn:
        """Not for this key."""
        del algorithm, peer_public_key
        raise _only_signs()

    def private_numbers(self) -> NoReturn:
        """It never leaves the module."""
        raise _only_signs()

    def private_bytes(
        self,
        encoding: serialization.Encoding,
        format: serialization.PrivateFormat,  # noqa: A002 - cryptography's name
        encryption_algorithm: serialization.KeySerializationEncryption,
    ) -> NoReturn:
        """It never leaves the module."""
        del encoding, format, encryption_algorithm
        raise _only_signs()

    def __copy__(self) -> "ModuleKey":
        return self

    def __deepcopy__(self, memo: object) -> "ModuleKey":
        return self


def _digest(data: bytes, signature_algorithm: ec.EllipticCurveSignatureAlgorithm) -> bytes:
    algorithm = signature_algorithm.algorithm
    if isinstance(algorithm, Prehashed):
        return data
    hasher = hashes.Hash(algorithm)
    hasher.update(data)
    return hasher.finalize()


@contextmanager
def _in_our_words() -> Iterator[None]:
    """A key that cannot be used is the authority's trouble here."""
    try:
        yield
    except ModuleKeyError as error:
        raise AuthorityError(str(error)) from error


def _only_signs() -> TypeError:
    return TypeError("a key in a security module signs, and nothing else")
