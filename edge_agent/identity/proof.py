"""How this device proves itself over HTTPS: it signs a short assertion with its key, and gets a token.

The assertion counts its time from what the server says that it is, so that a device whose clock is
wrong can prove itself all the same; that it is fresh, the server's nonce tells.
"""

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlencode

import msgspec

from edge_agent.errors import ServerUnreachable
from edge_agent.identity.device_server import FORM, DeviceServer
from edge_agent.identity.signing import sign
from fleet_protocol.texts import _

NONCE_PATH: Final = "/v1/device/nonce"
TOKEN_PATH: Final = "/v1/device/token"  # noqa: S105 - a path

_GRANT: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_LIFE_S: Final = 60
_TYPE: Final = "JWT"


class Nonce(NamedTuple):
    """What the server wants signed, and what time it is there, in ms since 1970."""

    nonce: str
    now_ms: int


@dataclass(frozen=True, slots=True)
class Prover:
    """A device, its certificate's serial number in hexadecimal, and the file of its key."""

    device: str
    serial: str
    key: Path

    def token(self, server: DeviceServer) -> str:
        """A token of ``server`` for what is private to this device.

        Raises:
            ServerUnreachable: it does not answer.
            ServerRefused: it does not believe this device.
            IdentityError: the key cannot be used.
        """
        assertion = self._assertion(server.url + TOKEN_PATH, ask_nonce(server))
        form = urlencode({"grant_type": _GRANT, "assertion": assertion}).encode()
        token = server.post(TOKEN_PATH, form, FORM).get("access_token")
        if not isinstance(token, str):
            raise ServerUnreachable(_("the server gives no token that can be read"))
        return token

    def _assertion(self, audience: str, fresh: Nonce) -> str:
        now_s = fresh.now_ms // 1000
        claims = {
            "iss": self.device, "sub": self.device, "aud": audience, "iat": now_s, "exp": now_s + _LIFE_S,
            "jti": secrets.token_hex(16), "nonce": fresh.nonce,
        }  # fmt: skip
        return sign(msgspec.json.encode(claims), self.key, self.serial, _TYPE)


def ask_nonce(server: DeviceServer) -> Nonce:
    """A nonce of ``server``, and its time.

    Raises:
        ServerUnreachable: it does not answer, or in another way.
        ServerRefused: it says no.
    """
    answer = server.post(NONCE_PATH, b"{}")
    nonce, now_ms = answer.get("nonce"), answer.get("now_ms")
    if not (isinstance(nonce, str) and isinstance(now_ms, int)):
        raise ServerUnreachable(_("the server gives no nonce that can be read"))
    return Nonce(nonce, now_ms)
