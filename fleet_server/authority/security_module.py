"""Signing with a key that never leaves a security module, over PKCS#11.

The library is the vendor's; python-pkcs11 speaks to it, and is an extra that few servers need.
"""

import contextlib
import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NoReturn, TypeVar, cast

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature

from fleet_protocol.texts import _
from fleet_server.authority.key_uri import KeyUri
from fleet_server.errors import AuthorityError

if TYPE_CHECKING:
    from pkcs11 import PublicKey, Session
    from pkcs11.types import SignMixin

PIN_VARIABLE: Final = "ARGAN_PKCS11_PIN"
"""The environment's variable with the PIN, where the URI names no file."""

Value = TypeVar("Value")

_lock: Final = threading.Lock()
_sessions: Final[dict[tuple[str, str], "Session"]] = {}
"""PKCS#11 knows one login for each token and process, so sessions are the process's too."""


def open_module_key(uri: KeyUri) -> "ModuleKey":
    """The key that ``uri`` names, after a login and a look at it.

    Raises:
        AuthorityError: the library, the token, the PIN or the key is missing or wrong.
    """
    return ModuleKey(uri, _in_session(uri, lambda session: _public_key(uri, session)))


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
        digest = _digest(bytes(data), signature_algorithm)
        raw = _in_session(self._uri, lambda session: _sign(self._uri, session, digest))
        half = len(raw) // 2
        return encode_dss_signature(int.from_bytes(raw[:half]), int.from_bytes(raw[half:]))

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


def _in_session(uri: KeyUri, work: Callable[["Session"], Value]) -> Value:
    """What ``work`` gives; with a new login where the module has forgotten the last one."""
    try:
        from pkcs11.exceptions import PKCS11Error
    except ModuleNotFoundError as error:
        raise AuthorityError(
            _("keys in a security module need python-pkcs11; run: pip install 'argan[hsm]'")
        ) from error
    place = (uri.module, uri.token)
    with _lock:
        known = _sessions.get(place)
        if known is not None:
            try:
                return work(known)
            except PKCS11Error:
                # A token that was pulled or restarted has ended the session.
                _forget(place)
        try:
            _sessions[place] = session = _log_in(uri)
            return work(session)
        except PKCS11Error as error:
            _forget(place)
            raise AuthorityError(
                _(
                    "the key {label!r} in token {token!r} cannot be used ({reason}); look at the module"
                ).format(label=uri.label, token=uri.token, reason=_reason(error))
            ) from error


def _forget(place: tuple[str, str]) -> None:
    from pkcs11.exceptions import PKCS11Error

    session = _sessions.pop(place, None)
    # What is gone already need not be closed.
    with contextlib.suppress(PKCS11Error):
        if session is not None:
            session.close()


def _log_in(uri: KeyUri) -> "Session":
    import pkcs11
    from pkcs11.exceptions import NoSuchToken, PinIncorrect, PinInvalid, PinLenRange, PinLocked, PKCS11Error

    pin = _pin(uri)
    try:
        module = pkcs11.lib(uri.module)
    except PKCS11Error as error:
        raise AuthorityError(
            _("the module {module} cannot be loaded ({reason}); correct module-path").format(
                module=uri.module, reason=_reason(error)
            )
        ) from error
    try:
        return module.get_token(token_label=uri.token).open(user_pin=pin)
    except NoSuchToken as error:
        raise AuthorityError(
            _(
                "the module {module} has no token {token!r}; look with: pkcs11-tool --module {module} -T"
            ).format(module=uri.module, token=uri.token)
        ) from error
    except (PinIncorrect, PinInvalid, PinLenRange, PinLocked) as error:
        raise AuthorityError(
            _("token {token!r} refuses the PIN of {source} ({reason}); correct it before it locks").format(
                token=uri.token, source=uri.pin_file or PIN_VARIABLE, reason=_reason(error)
            )
        ) from error


def _pin(uri: KeyUri) -> str:
    if uri.pin_file is None:
        pin = os.environ.get(PIN_VARIABLE, "")
        if not pin:
            raise AuthorityError(
                _("token {token!r} needs a PIN; name a file with --pin-file, or set {variable}").format(
                    token=uri.token, variable=PIN_VARIABLE
                )
            )
        return pin
    try:
        return uri.pin_file.read_text("utf-8").strip()
    except (OSError, ValueError) as error:
        raise AuthorityError(
            _("the PIN of token {token!r} cannot be read ({reason}); correct pin-source").format(
                token=uri.token, reason=error
            )
        ) from error


def _public_key(uri: KeyUri, session: "Session") -> ec.EllipticCurvePublicKey:
    from pkcs11 import ObjectClass
    from pkcs11.exceptions import AttributeTypeInvalid, MultipleObjectsReturned, NoSuchKey
    from pkcs11.util.ec import encode_ec_public_key

    try:
        session.get_key(object_class=ObjectClass.PRIVATE_KEY, label=uri.label)
        found = session.get_key(object_class=ObjectClass.PUBLIC_KEY, label=uri.label)
        key = serialization.load_der_public_key(encode_ec_public_key(cast("PublicKey", found)))
    except NoSuchKey as error:
        raise _wrong_key(uri, _("there is no such key pair")) from error
    except MultipleObjectsReturned as error:
        raise AuthorityError(
            _("there are several keys {label!r} in token {token!r}; give each a label of its own").format(
                label=uri.label, token=uri.token
            )
        ) from error
    except (AttributeTypeInvalid, ValueError) as error:
        raise _wrong_key(uri, _("it is no elliptic curve key")) from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise _wrong_key(uri, _("it is not P-256"))
    return key


def _sign(uri: KeyUri, session: "Session", digest: bytes) -> bytes:
    from pkcs11 import Mechanism, ObjectClass

    key = session.get_key(object_class=ObjectClass.PRIVATE_KEY, label=uri.label)
    # Hashing here asks less of the module: plain ECDSA is what all of them have.
    signature: bytes = cast("SignMixin", key).sign(digest, mechanism=Mechanism.ECDSA)
    return signature


def _digest(data: bytes, signature_algorithm: ec.EllipticCurveSignatureAlgorithm) -> bytes:
    algorithm = signature_algorithm.algorithm
    if isinstance(algorithm, Prehashed):
        return data
    hasher = hashes.Hash(algorithm)
    hasher.update(data)
    return hasher.finalize()


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


def _wrong_key(uri: KeyUri, reason: str) -> AuthorityError:
    return AuthorityError(
        _(
            "the key {label!r} in token {token!r} cannot be used ({reason}); make it with: "
            "pkcs11-tool --module {module} --login --token-label {token} --keypairgen "
            "--key-type EC:prime256v1 --label {label} --usage-sign"
        ).format(label=uri.label, token=uri.token, reason=reason, module=uri.module)
    )


def _only_signs() -> TypeError:
    return TypeError("a key in a security module signs, and nothing else")
