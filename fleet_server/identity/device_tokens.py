"""How a device gets a token for what is private to it over HTTPS, and how the token is checked.

A device signs a short assertion with the key of its certificate, over a nonce from here. The token that
it gets lasts ten minutes and keeps nothing in the database; that its certificate was not revoked
meanwhile is asked at each use. MQTT has no part in it: a broken broker must not stop the update that
would mend it.
"""

import time
from enum import StrEnum
from http import HTTPStatus
from pathlib import Path
from secrets import token_bytes, token_hex
from typing import Final, NamedTuple

import jwt
from sqlalchemy import Engine
from sqlmodel import Session

from fleet_protocol.texts import _
from fleet_server.callers import Paces, Rate, network_of
from fleet_server.clock import wall_ms
from fleet_server.config import LOOPBACK, ServerConfig
from fleet_server.database.models import Certificate
from fleet_server.errors import ConfigError, DeviceRefused
from fleet_server.files import write_durably
from fleet_server.identity.assertions import (
    MOST_AHEAD_S,
    Claimed,
    claimed_serial,
    claims_of,
    decoy_pem,
    is_ours,
    refused,
)
from fleet_server.identity.revoking import is_revoked
from fleet_server.nonces import LIFE_S, Nonces

TOKEN_S: Final = 600
"""How long a token lasts: longer than a look at the director takes."""

TOKEN_PATH: Final = "/v1/device/token"  # noqa: S105 - a path
NONCE_PATH: Final = "/v1/device/nonce"

PER_HOUR: Final = 180_000.0
BURST: Final = 2000.0
"""Requests of one address: 1000 devices at once behind a mobile network's, and 25 of them a second."""

_ALGORITHM: Final = "HS256"
_AUDIENCE: Final = "argan-device"
_KEY_BYTES: Final = 32
_DAY_MS: Final = 86_400_000


class Scope(StrEnum):
    """What a token is for."""

    DEVICE = "device"
    """All that is private to the device."""

    RENEW = "renew"
    """Its certificate has expired: it may get another, and nothing else."""


class DeviceCaller(NamedTuple):
    """A device that has proved itself: with which certificate, for what, and from which address."""

    device: str
    serial: str
    scope: Scope
    source: str


class TokenDesk:
    """Gives out nonces and tokens, and recognizes them; one for a process."""

    def __init__(self, engine: Engine, config: ServerConfig) -> None:
        self._engine: Final = engine
        self._tenant: Final = config.tenant
        self._grace_ms: Final = config.grace_days * _DAY_MS
        self._hosts: Final = frozenset({config.device_host.lower(), *LOOPBACK})
        self._key: Final = read_token_key(config.token_key)
        self._decoy: Final = decoy_pem()
        self._nonces: Final = Nonces()
        self._sources: Final = Paces(Rate(PER_HOUR / 3600, BURST))

    def nonce(self, source: str) -> dict[str, object]:
        """A new nonce for whoever asks, and what time it is.

        Raises:
            DeviceRefused: ``source`` asks too often.
        """
        self.admit(source)
        return {"nonce": self._nonces.make(time.monotonic()), "now_ms": wall_ms(), "expires_in": int(LIFE_S)}

    def token(self, assertion: str, source: str) -> dict[str, object]:
        """A token for the device that signed ``assertion``.

        Raises:
            DeviceRefused: it proves nothing, or the certificate counts no more.
        """
        self.admit(source)
        row, claimed = self._proved(assertion)
        scope = self.scope_of(row)
        now_s = wall_ms() // 1000
        content = {
            "aud": _AUDIENCE, "sub": row.device, "serial": row.serial, "scope": scope.value,
            "iat": now_s, "exp": now_s + TOKEN_S, "jti": token_hex(8),
        }  # fmt: skip
        self.spend(claimed.nonce)
        return {
            "access_token": jwt.encode(content, self._key, _ALGORITHM),
            "token_type": "Bearer",
            "expires_in": TOKEN_S,
            "scope": scope.value,
        }

    def caller(self, token: str, source: str, scopes: frozenset[Scope]) -> DeviceCaller:
        """Who shows ``token``, which has to be for one of ``scopes``.

        Raises:
            DeviceRefused: it is none of ours, has ended, is for something else, or its certificate
                was revoked.
        """
        try:
            content = jwt.decode(
                token, self._key, algorithms=[_ALGORITHM], audience=_AUDIENCE, options={"verify_iat": False}
            )
        except jwt.PyJWTError:
            raise unauthorized(_("the token is not valid, or has ended")) from None
        caller = DeviceCaller(content["sub"], content["serial"], Scope(content["scope"]), source)
        if is_revoked(self._certificate(caller.serial)):
            raise unauthorized(_("the certificate behind the token was revoked"))
        if caller.scope not in scopes:
            raise DeviceRefused(
                HTTPStatus.FORBIDDEN,
                "insufficient_scope",
                _("the certificate has expired; the token is good for renewing it, and nothing else"),
                _("Renew the certificate first: edge-agent identity renew."),
            )
        return caller

    def spend(self, nonce: str) -> None:
        """Use up a nonce that was given out here.

        Raises:
            DeviceRefused: it is not fresh, or was used before.
        """
        if not self._nonces.use(nonce, time.monotonic()):
            raise _stale_nonce()

    def admit(self, source: str) -> None:
        """Let ``source`` ask.

        Raises:
            DeviceRefused: it asks too often.
        """
        if not self._sources.allows(network_of(source), time.monotonic()):
            raise DeviceRefused(
                HTTPStatus.TOO_MANY_REQUESTS,
                "temporarily_unavailable",
                _("too many requests from this address"),
                _("Wait a minute and try again."),
            )

    def _proved(self, assertion: str) -> tuple[Certificate, Claimed]:
        """The certificate whose key signed ``assertion``; a stranger's is checked at the same cost."""
        row = self._certificate(claimed_serial(assertion))
        claimed = claims_of(assertion, self._decoy if row is None else row.pem)
        if row is None or claimed.device != row.device:
            raise refused()
        if not is_ours(claimed.audience, self._hosts, TOKEN_PATH):
            raise refused(
                _("the assertion was made for {audience}").format(audience=claimed.audience[:120]),
                _("Give the agent the address that this server goes by: [server] url."),
            )
        if claimed.ends_s > wall_ms() // 1000 + MOST_AHEAD_S:
            raise refused(
                _("the assertion would last too long"), _("Count it from the time that came with the nonce.")
            )
        if not self._nonces.is_fresh(claimed.nonce, time.monotonic()):
            raise _stale_nonce()
        return row, claimed

    def scope_of(self, row: Certificate) -> Scope:
        """What the key of the certificate ``row`` is good for now.

        Raises:
            DeviceRefused: for nothing: it was revoked, or expired too long ago.
        """
        if is_revoked(row):
            raise refused(
                _("the certificate was revoked"), _("Ask who runs the fleet; then enroll the device again.")
            )
        late_ms = wall_ms() - row.not_after_ms
        if late_ms > self._grace_ms:
            raise refused(
                _("the certificate expired {days} days ago, and the grace is {grace} days").format(
                    days=late_ms // _DAY_MS, grace=self._grace_ms // _DAY_MS
                ),
                _("Enroll the device again."),
            )
        return Scope.RENEW if late_ms > 0 else Scope.DEVICE

    def _certificate(self, serial: str) -> Certificate | None:
        with Session(self._engine) as session:
            return session.get(Certificate, (self._tenant, serial))


def provide_token_key(path: Path) -> None:
    """See to it that there is a key that tokens are sealed with."""
    if not path.exists():
        write_durably(path, token_bytes(_KEY_BYTES), 0o600)


def unauthorized(message: str, *, code: str = "invalid_token") -> DeviceRefused:
    """The answer to who does not show a token that counts; no ``code`` for who shows none."""
    return DeviceRefused(
        HTTPStatus.UNAUTHORIZED, code, message, _("Get a token at {path}.").format(path=TOKEN_PATH)
    )


def _stale_nonce() -> DeviceRefused:
    return refused(
        _("the nonce is not fresh, or was used before"),
        _("Get another at {path}.").format(path=NONCE_PATH),
    )


def read_token_key(path: Path) -> bytes:
    """The key that tokens are sealed with.

    Raises:
        ConfigError: there is none that can be used.
    """
    try:
        key = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            _("{path} cannot be read ({reason}); start the server, which makes it").format(
                path=path, reason=error.strerror
            )
        ) from error
    if len(key) != _KEY_BYTES:
        raise ConfigError(
            _("{path} is no key; remove it, and the next start makes another").format(path=path)
        )
    return key
