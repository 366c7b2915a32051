"""The folder of the fleet's authority: which roots and issuing authorities there are, and their keys.

``authority.json`` is the truth, replaced as a whole; ``ca.pem`` repeats the roots for whoever has to
trust them. Keys lie in files of their own, which nothing ever writes over; a key that is not here
(a root's on a stick, an issuing authority's in a security module) has none.
"""

import hashlib
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Final

import msgspec

from fleet_protocol.texts import _
from fleet_server.authority.key_store import NewKey
from fleet_server.errors import AuthorityError
from fleet_server.files import make_folder, write_durably
from fleet_signing.files import flush_folder

STATE_FILE: Final = "authority.json"
ROOTS_FILE: Final = "ca.pem"

_OLD_KEY: Final = "ca.key"


class Issuing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An issuing authority: its certificate in PEM, and where its key is.

    ``key`` is a file's name in the folder, or an RFC 7512 URI of a key in a security module.
    """

    certificate: str
    key: str


class AuthorityState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything but the keys. ``roots`` (PEM) and ``issuing`` stand from the oldest to the newest."""

    format: Annotated[int, msgspec.Meta(ge=1, le=1)]
    roots: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    issuing: Annotated[tuple[Issuing, ...], msgspec.Meta(min_length=1)]


def read_state(folder: Path) -> AuthorityState:
    """What ``folder`` holds.

    Raises:
        AuthorityError: it is missing, damaged, or of a version that is served no more.
    """
    path = folder / STATE_FILE
    if not path.exists() and (folder / _OLD_KEY).exists():
        raise AuthorityError(
            _(
                "the fleet's authority in {folder} is of an older version, without an issuing authority; "
                "move the data folder away, start with a new one and add every device again"
            ).format(folder=folder)
        )
    try:
        return msgspec.json.decode(path.read_bytes(), type=AuthorityState)
    except (OSError, msgspec.MsgspecError) as error:
        raise unusable(folder, str(error)) from error


def write_state(folder: Path, state: AuthorityState) -> None:
    """Replace what ``folder`` holds; a power cut leaves the old or the new.

    Raises:
        ConfigError: it cannot be written.
    """
    write_durably(folder / STATE_FILE, msgspec.json.format(msgspec.json.encode(state)) + b"\n")
    write_durably(folder / ROOTS_FILE, "".join(state.roots).encode(), 0o644)


def make_state(folder: Path, state: AuthorityState, keys: Iterable[NewKey]) -> None:
    """Make ``folder``, which is not there, with all of it or not at all: beside, and then renamed."""
    beside = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(beside, ignore_errors=True)
    make_folder(beside)
    for key in keys:
        key.keep(beside)
    write_state(beside, state)
    beside.rename(folder)
    flush_folder(folder.parent)


def trust_sha256(state: AuthorityState) -> str:
    """The digest of what devices get as their roots, in hexadecimal."""
    return hashlib.sha256("".join(state.roots).encode()).hexdigest()


def unusable(folder: Path, reason: str) -> AuthorityError:
    """The error of a folder that is not whole."""
    return AuthorityError(
        _(
            "the fleet's authority in {folder} cannot be used ({reason}); restore the folder from a backup. "
            "Without it every device must be added again"
        ).format(folder=folder, reason=reason)
    )
