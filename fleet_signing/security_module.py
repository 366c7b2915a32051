"""Signing with a key that never leaves a security module, over PKCS#11.

The library is the vendor's; python-pkcs11 speaks to it, and is an extra that few need.
"""

import contextlib
import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeVar, cast

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from fleet_protocol.texts import _
from fleet_signing.errors import ModuleKeyError
from fleet_signing.key_uri import KeyUri

if TYPE_CHECKING:
    from pkcs11 import PublicKey, Session
    from pkcs11.types import SignMixin

PIN_VARIABLE: Final = "ARGAN_PKCS11_PIN"
"""The environment's variable with the PIN, where the URI names no file."""

Value = TypeVar("Value")

_lock: Final = threading.Lock()
_sessions: Final[dict[tuple[str, str], "Session"]] = {}
"""PKCS#11 knows one login for each token and process, so sessions are the process's too."""


def public_half(uri: KeyUri) -> ec.EllipticCurvePublicKey:
    """The public half of the key that ``uri`` names, after a login and a look at it.

    Raises:
        ModuleKeyError: the library, the token, the PIN or the key is missing or wrong.
    """
    return _in_session(uri, lambda session: _public_key(uri, session))


def sign_digest(uri: KeyUri, digest: bytes) -> bytes:
    """An ECDSA signature in DER over ``digest``; raises as :func:`public_half`."""
    raw = _in_session(uri, lambda session: _sign(uri, session, digest))
    half = len(raw) // 2
    return encode_dss_signature(int.from_bytes(raw[:half]), int.from_bytes(raw[half:]))


def _in_session(uri: KeyUri, work: Callable[["Session"], Value]) -> Value:
    """What ``work`` gives; with a new login where the module has forgotten the last one."""
    try:
        from pkcs11.exceptions import PKCS11Error
    except ModuleNotFoundError as error:
        raise ModuleKeyError(
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
            raise ModuleKeyError(
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
        raise ModuleKeyError(
            _("the module {module} cannot be loaded ({reason}); correct module-path").format(
                module=uri.module, reason=_reason(error)
            )
        ) from error
    try:
        return module.get_token(token_label=uri.token).open(user_pin=pin)
    except NoSuchToken as error:
        raise ModuleKeyError(
            _(
                "the module {module} has no token {token!r}; look with: pkcs11-tool --module {module} -T"
            ).format(module=uri.module, token=uri.token)
        ) from error
    except (PinIncorrect, PinInvalid, PinLenRange, PinLocked) as error:
        raise ModuleKeyError(
            _("token {token!r} refuses the PIN of {source} ({reason}); correct it before it locks").format(
                token=uri.token, source=uri.pin_file or PIN_VARIABLE, reason=_reason(error)
            )
        ) from error


def _pin(uri: KeyUri) -> str:
    if uri.pin_file is None:
        pin = os.environ.get(PIN_VARIABLE, "")
        if not pin:
            raise ModuleKeyError(
                _("token {token!r} needs a PIN; name a file with --pin-file, or set {variable}").format(
                    token=uri.token, variable=PIN_VARIABLE
                )
            )
        return pin
    try:
        return uri.pin_file.read_text("utf-8").strip()
    except (OSError, ValueError) as error:
        raise ModuleKeyError(
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
        raise ModuleKeyError(
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


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


def _wrong_key(uri: KeyUri, reason: str) -> ModuleKeyError:
    return ModuleKeyError(
        _(
            "the key {label!r} in token {token!r} cannot be used ({reason}); make it with: "
            "pkcs11-tool --module {module} --login --token-label {token} --keypairgen "
            "--key-type EC:prime256v1 --label {label} --usage-sign"
        ).format(label=uri.label, token=uri.token, reason=reason, module=uri.module)
    )
