"""Passwords: hashed with Argon2id, and verified with the same work whether there is one or not.

Three passes over 64 MiB with one lane, above what OWASP asks for: a fifth of a second of a processor.
"""

from functools import cache
from typing import Final

from argon2 import PasswordHasher, Type
from argon2.exceptions import InvalidHashError, VerificationError

from fleet_protocol.texts import _
from fleet_server.errors import PasswordRefused

PASSES: Final = 3
MEMORY_KIB: Final = 65_536
LANES: Final = 1

SHORTEST: Final = 12
"""Characters; nothing else is asked of a password (NIST SP 800-63B): length is what counts."""

LONGEST: Final = 256
"""Characters; no password manager makes more, and nobody lets the server hash a book."""

_HASHER: Final = PasswordHasher(PASSES, MEMORY_KIB, LANES, type=Type.ID)


def hashed(password: str, person: str) -> str:
    """What the database keeps of ``password``.

    Raises:
        PasswordRefused: it is too short, too long, or the name of the person.
    """
    if not SHORTEST <= len(password) <= LONGEST:
        raise PasswordRefused(
            _("a password has {shortest} to {longest} characters").format(shortest=SHORTEST, longest=LONGEST)
        )
    if password.casefold() == person.casefold():
        raise PasswordRefused(_("a password is not the person's name"))
    return _HASHER.hash(password)


def is_right(kept: str, password: str) -> bool:
    """Whether ``password`` is the one of the hash ``kept``; as slow where ``kept`` is empty."""
    try:
        _HASHER.verify(kept or _nobodys(), password)
    except (VerificationError, InvalidHashError):
        return False
    return bool(kept)


@cache
def _nobodys() -> str:
    """A hash of the same kind, for whoever has none: time shall not tell who exists."""
    return _HASHER.hash("")
