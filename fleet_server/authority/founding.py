"""Making roots and issuing authorities: the first ones, and those that take their place."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509

from fleet_protocol.texts import _
from fleet_server.authority.files import AuthorityState, Issuing, make_state
from fleet_server.authority.issuing import Issuer, make_issuing, make_root, pem
from fleet_server.authority.key_store import NewKey, new_issuing_key, new_root_key
from fleet_server.clock import now
from fleet_server.errors import AuthorityError
from fleet_signing.key_uri import SCHEME, KeyUri


@dataclass(frozen=True, slots=True)
class Founded:
    """A new root with its first issuing authority, and the keys of both."""

    root: x509.Certificate
    issuing: Issuing
    keys: tuple[NewKey, NewKey]


def found(issuing_key: NewKey) -> Founded:
    """A root, and an issuing authority of ``issuing_key`` under it."""
    root_key, at = new_root_key(), now()
    root = Issuer(make_root(root_key.key, at), root_key.key)
    return Founded(root.certificate, certify(root, issuing_key, at), (root_key, issuing_key))


def certify(root: Issuer, key: NewKey, at: datetime) -> Issuing:
    """The issuing authority of ``key``, under ``root``."""
    certificate = make_issuing(root, key.key.public_key(), at)
    return Issuing(pem([certificate]).decode(), key.place)


def fresh_key(state: AuthorityState, uri: KeyUri | None) -> NewKey:
    """A key for one more issuing authority: where ``uri`` says, or in a file as those before.

    Raises:
        AuthorityError: it belongs to an issuing authority already, or cannot be used.
    """
    if uri is None and state.issuing[-1].key.startswith(SCHEME):
        raise AuthorityError(
            _(
                "the issuing authority's key is in a security module; make another key there "
                "and name it with --issuing-key"
            )
        )
    key = new_issuing_key(uri)
    known = (x509.load_pem_x509_certificate(one.certificate.encode()) for one in state.issuing)
    if any(one.public_key() == key.key.public_key() for one in known):
        raise AuthorityError(
            _("{key} is an issuing authority's already; make another key").format(key=key.place)
        )
    return key


def make_authority(folder: Path, uri: KeyUri | None = None) -> None:
    """Make the fleet's authority in ``folder``: all of it, or nothing.

    Raises:
        AuthorityError: there is one already, or the security module cannot be used.
        ConfigError: it cannot be written.
    """
    if folder.exists():
        raise AuthorityError(_("there is an authority in {folder} already").format(folder=folder))
    made = found(new_issuing_key(uri))
    state = AuthorityState(1, (pem([made.root]).decode(),), (made.issuing,))
    make_state(folder, state, made.keys)
