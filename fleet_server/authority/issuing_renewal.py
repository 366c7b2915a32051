"""A new issuing authority in time: signed by the root's key here, or on the machine where that one is.

The old one stays known until it expires: devices hold certificates of it, and its list of the revoked
goes on. Every issuing authority has a key of its own, in a security module too.
"""

from pathlib import Path
from typing import Annotated, Final

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from fleet_protocol.texts import _
from fleet_server.authority.files import AuthorityState, Issuing, read_state, unusable, write_state
from fleet_server.authority.founding import certify, fresh_key
from fleet_server.authority.issuing import Issuer, common_name, make_issuing
from fleet_server.authority.key_store import open_key, root_key_path
from fleet_server.authority.signing_requests import requested_key
from fleet_server.clock import now
from fleet_server.errors import AuthorityError
from fleet_server.files import write_durably
from fleet_signing.key_uri import KeyUri

REQUEST_FILE: Final = "request.json"

REQUEST_NAME: Final = "Argan fleet issuing authority"
"""What a request asks to become; the name with the key's identifier is given by who signs it."""


class _Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The request that is on its way: where its key is."""

    format: Annotated[int, msgspec.Meta(ge=1, le=1)]
    key: str


def read_root(folder: Path, certificate: x509.Certificate) -> tuple[Issuer, Path]:
    """The root with ``certificate``, whose key is in ``folder``, and that key's file.

    Raises:
        AuthorityError: its key is not here, or cannot be read.
    """
    path = root_key_path(folder, certificate)
    if not path.exists():
        raise AuthorityError(
            _(
                "the key of {name} is not on this machine; run 'fleet-server authority request-issuing', "
                "sign where the key is with 'sign-issuing', and bring the answer to 'import-issuing'"
            ).format(name=certificate.subject.rfc4514_string())
        )
    try:
        key = open_key(folder, path.name)
    except (OSError, ValueError) as error:
        raise unusable(folder, str(error)) from error
    if key.public_key() != certificate.public_key():
        raise unusable(folder, _("{file} is not the key of its root").format(file=path.name))
    return Issuer(certificate, key), path


def newest_root(state: AuthorityState) -> x509.Certificate:
    """The root that new issuing authorities are under."""
    return x509.load_pem_x509_certificate(state.roots[-1].encode())


def renew_here(folder: Path, uri: KeyUri | None) -> x509.Certificate:
    """Make a new issuing authority with the root's key that is in ``folder``.

    Raises:
        AuthorityError: the root's key is not here, or the key for the new authority cannot be used.
    """
    state = read_state(folder)
    root, _path = read_root(folder, newest_root(state))
    key = fresh_key(state, uri)
    key.keep(folder)
    entry = certify(root, key, now())
    _add(folder, state, entry)
    return x509.load_pem_x509_certificate(entry.certificate.encode())


def request(folder: Path, uri: KeyUri | None) -> bytes:
    """A request for a new issuing authority, in PEM; again the same key until it was answered.

    Raises:
        AuthorityError: the key for the new authority cannot be used.
    """
    state = read_state(folder)
    asked = _read_asked(folder)
    # A power cut may have left a request behind that was answered.
    is_open = asked is not None and asked.key not in {one.key for one in state.issuing}
    if asked is not None and is_open and uri is None:
        key = _open(folder, asked.key)
    else:
        made = fresh_key(state, uri)
        made.keep(folder)
        write_durably(folder / REQUEST_FILE, msgspec.json.encode(_Asked(1, made.place)))
        key = made.key
    builder = x509.CertificateSigningRequestBuilder(common_name(REQUEST_NAME))
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


def sign(request_pem: bytes, root: Issuer) -> x509.Certificate:
    """The issuing authority that ``request_pem`` asks for, under ``root``.

    Raises:
        CsrRefused: it is no such request.
    """
    return make_issuing(root, requested_key(REQUEST_NAME, request_pem), now())


def take_in(folder: Path, certificate_pem: bytes) -> x509.Certificate:
    """Begin to use the issuing authority that the root has signed.

    Raises:
        AuthorityError: it is not the answer to this server's request, or not of its root.
    """
    state = read_state(folder)
    try:
        certificate = x509.load_pem_x509_certificate(certificate_pem)
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except (ValueError, x509.ExtensionNotFound) as error:
        raise _no_answer(str(error)) from error
    try:
        certificate.verify_directly_issued_by(newest_root(state))
    except (ValueError, TypeError, InvalidSignature):
        raise _no_answer(_("the newest root of this fleet did not sign it")) from None
    if certificate.public_bytes(Encoding.PEM).decode() in {one.certificate for one in state.issuing}:
        return certificate
    asked = _read_asked(folder)
    if asked is None or _open(folder, asked.key).public_key() != certificate.public_key():
        raise _no_answer(_("this server did not ask for it"))
    if not constraints.ca or constraints.path_length != 0 or certificate.not_valid_after_utc <= now():
        raise _no_answer(_("it is no issuing authority that is valid"))
    _add(folder, state, Issuing(certificate.public_bytes(Encoding.PEM).decode(), asked.key))
    (folder / REQUEST_FILE).unlink()
    return certificate


def _add(folder: Path, state: AuthorityState, entry: Issuing) -> None:
    write_state(folder, msgspec.structs.replace(state, issuing=(*state.issuing, entry)))


def _read_asked(folder: Path) -> _Asked | None:
    try:
        return msgspec.json.decode((folder / REQUEST_FILE).read_bytes(), type=_Asked)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        raise AuthorityError(
            _("{path} cannot be used ({reason}); remove it and request anew").format(
                path=folder / REQUEST_FILE, reason=error
            )
        ) from error


def _open(folder: Path, place: str) -> ec.EllipticCurvePrivateKey:
    try:
        return open_key(folder, place)
    except (OSError, ValueError) as error:
        raise AuthorityError(
            _("{path} cannot be used ({reason}); remove it and request anew").format(
                path=folder / REQUEST_FILE, reason=error
            )
        ) from error


def _no_answer(reason: str) -> AuthorityError:
    return AuthorityError(
        _("this is not the signed issuing authority that was requested: {reason}").format(reason=reason)
    )
