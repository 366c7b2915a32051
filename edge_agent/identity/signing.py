"""The one place where the device's key signs what it says over HTTPS or on a stick: JWS, compact, ES256."""

from pathlib import Path
from typing import Final

from edge_agent.errors import IdentityError
from fleet_protocol.texts import _

ALGORITHM: Final = "ES256"


def sign(content: bytes, key: Path, serial: str, kind: str) -> str:
    """``content`` as a JWS of the type ``kind``, signed by ``key``, of the certificate numbered ``serial``.

    Raises:
        IdentityError: the key cannot be used.
    """
    import jwt  # only here: an agent signs seldom

    try:
        return jwt.api_jws.encode(content, key.read_bytes(), ALGORITHM, headers={"kid": serial, "typ": kind})
    except (OSError, ValueError, TypeError, jwt.PyJWTError) as error:
        raise IdentityError(
            _("{file} cannot sign ({reason}); enroll the device again").format(file=key, reason=error)
        ) from error
