"""Exchanging the root with overlap: at first the fleet has both, and in the end the new one alone.

In between every device gets, with its next certificate, both roots to trust. What devices meet shows
certificates under the old root until the end, because some of them trust nothing else yet.
"""

from pathlib import Path

import msgspec
from cryptography import x509

from fleet_protocol.texts import _
from fleet_server.authority.files import AuthorityState, Issuing, read_state, write_state
from fleet_server.authority.founding import found, fresh_key
from fleet_server.authority.issuing import issuer_key_id, key_id, pem
from fleet_server.authority.key_store import root_key_path
from fleet_server.errors import AuthorityError
from fleet_signing.key_uri import SCHEME, KeyUri


def is_rolling(state: AuthorityState) -> bool:
    """Whether there are two roots."""
    return len(state.roots) > 1


def begin(folder: Path, uri: KeyUri | None) -> None:
    """Add a new root, and an issuing authority under it whose key ``uri`` names, or a new one.

    Raises:
        AuthorityError: there are two roots already, or the key cannot be used.
    """
    state = read_state(folder)
    if is_rolling(state):
        raise AuthorityError(
            _("a rollover is under way already; see how far: fleet-server authority rollover status")
        )
    made = found(fresh_key(state, uri))
    for key in made.keys:
        key.keep(folder)
    roots = (*state.roots, pem([made.root]).decode())
    write_state(folder, msgspec.structs.replace(state, roots=roots, issuing=(*state.issuing, made.issuing)))


def finish(folder: Path) -> list[str]:
    """Forget the old root and every issuing authority under it; the keys that nobody needs any more.

    What of them is a file in ``folder`` is removed; the rest are named as they are kept elsewhere.

    Raises:
        AuthorityError: there is one root alone.
    """
    state = read_state(folder)
    if not is_rolling(state):
        raise AuthorityError(_("no rollover is under way; begin one: fleet-server authority rollover begin"))
    old = x509.load_pem_x509_certificate(state.roots[0].encode())
    gone = [one for one in state.issuing if _is_under(one, old)]
    kept = tuple(one for one in state.issuing if one not in gone)
    write_state(folder, msgspec.structs.replace(state, roots=state.roots[1:], issuing=kept))
    root_key_path(folder, old).unlink(missing_ok=True)
    for one in gone:
        if not one.key.startswith(SCHEME):
            (folder / one.key).unlink(missing_ok=True)
    return [one.key for one in gone if one.key.startswith(SCHEME)]


def _is_under(entry: Issuing, root: x509.Certificate) -> bool:
    return issuer_key_id(x509.load_pem_x509_certificate(entry.certificate.encode())) == key_id(root)
