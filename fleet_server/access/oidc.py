"""The OIDC issuer that the configuration names: its keys, and whom its ID tokens speak of.

Nothing is asked of anybody else: its keys have to lie where it does itself. A token that is not signed by
one of them in one of :data:`ALGORITHMS` is nobody's, whatever it says of itself.
"""

import json
import ssl
from threading import Lock
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import httpx
import jwt
from jwt import PyJWK

from fleet_protocol.texts import _
from fleet_server.errors import IssuerDown, LoginRefused

_TYPES: Final = {"RS256": "RSA", "PS256": "RSA", "ES256": "EC", "EdDSA": "OKP"}
ALGORITHMS: Final = tuple(_TYPES)
"""Signatures alone: a shared secret, or none, would let somebody who knows a public key sign."""

TIMEOUT_S: Final = 5.0

FRESH_S: Final = 3600.0
"""How long keys are believed without asking again: a key that was taken back is good no longer than this."""

COOL_S: Final = 10.0
"""Between two questions because of an unknown key: whoever invents keys does not make us ask for each."""

LEEWAY_S: Final = 30
"""By how much the issuer's clock may differ."""

MOST_BYTES: Final = 262_144
_CLAIMS: Final = ["exp", "iat", "iss", "aud", "sub", "nonce"]


class Endpoints(NamedTuple):
    """Where a person logs in, where the code they get is exchanged, and where the keys are."""

    authorization: str
    token: str
    keys: str


class _Known(NamedTuple):
    """What the issuer said of itself, and when it was asked, in seconds of a monotonic clock."""

    endpoints: Endpoints
    keys: tuple[dict[str, Any], ...]
    at_s: float


class Issuer:
    """One OIDC issuer; asked when its answer is needed, and then remembered for a while."""

    def __init__(self, url: str, client_id: str) -> None:
        """``client_id`` is under which name the issuer knows this fleet."""
        self.url: Final = url
        self.client_id: Final = client_id
        self._known: _Known | None = None
        self._ask_again_s = 0.0
        self._lock: Final = Lock()

    def endpoints(self, now_s: float) -> Endpoints:
        """Where the issuer is reached.

        Raises:
            IssuerDown: it cannot be asked.
        """
        return self._ask(now_s, FRESH_S).endpoints

    def subject(self, id_token: str, nonce: str, now_s: float) -> str:
        """Whom ``id_token`` speaks of, where it was made for this fleet and this ``nonce``, and is good now.

        Raises:
            LoginRefused: it is not.
            IssuerDown: the issuer cannot be asked for its keys.
        """
        try:
            header = jwt.get_unverified_header(id_token)
            algorithm = header.get("alg")
            if algorithm not in ALGORITHMS:
                raise _refused(_("it is signed in a way that is not taken"))
            key = self._key(header.get("kid"), algorithm, now_s)
            claims = jwt.decode(
                id_token,
                key,
                algorithms=[algorithm],
                audience=self.client_id,
                issuer=self.url,
                leeway=LEEWAY_S,
                options={"require": _CLAIMS},
            )
        except jwt.PyJWTError as error:
            raise _refused(str(error)) from error
        return self._subject(claims, nonce)

    def _subject(self, claims: dict[str, Any], nonce: str) -> str:
        party = claims.get("azp", self.client_id)
        is_shared = isinstance(claims["aud"], list) and len(claims["aud"]) > 1
        if party != self.client_id or (is_shared and "azp" not in claims):
            raise _refused(_("it was made for somebody else too"))
        if claims["nonce"] != nonce:
            raise _refused(_("it belongs to another login"))
        subject = claims["sub"]
        if not isinstance(subject, str) or not subject:
            raise _refused(_("it speaks of nobody"))
        return subject

    def _key(self, name: object, algorithm: str, now_s: float) -> PyJWK:
        for oldest_s in (FRESH_S, COOL_S):
            found = [key for key in self._ask(now_s, oldest_s).keys if _fits(key, name, algorithm)]
            if len(found) == 1:
                return PyJWK(found[0], algorithm=algorithm)
        raise _refused(_("the issuer has no such key"))

    def _ask(self, now_s: float, oldest_s: float) -> _Known:
        """What the issuer says of itself, as it was ``oldest_s`` ago at most."""
        known = self._known
        if known is not None and now_s - known.at_s < oldest_s:
            return known
        # Nobody waits for another's question: an issuer that is silent must not take all threads along.
        if now_s < self._ask_again_s or not self._lock.acquire(blocking=False):
            if known is not None:
                return known
            raise IssuerDown(_("the issuer {url} does not answer just now").format(url=self.url))
        try:
            self._ask_again_s = now_s + COOL_S
            self._known = self._fetch(now_s)
            self._ask_again_s = 0.0
            return self._known
        finally:
            self._lock.release()

    def _fetch(self, now_s: float) -> _Known:
        # No proxy from the environment, and nowhere but where the configuration says.
        tls = ssl.create_default_context()
        try:
            with httpx.Client(timeout=TIMEOUT_S, trust_env=False, verify=tls) as client:
                said = _json(client, f"{self.url.rstrip('/')}/.well-known/openid-configuration")
                endpoints = self._endpoints(said)
                keys = tuple(dict(key) for key in _json(client, endpoints.keys)["keys"])
        except (httpx.HTTPError, ValueError, TypeError, KeyError) as error:
            raise IssuerDown(
                _("the issuer {url} cannot be asked ({reason})").format(
                    url=self.url, reason=str(error) or type(error).__name__
                )
            ) from error
        return _Known(endpoints, keys, now_s)

    def _endpoints(self, said: dict[str, Any]) -> Endpoints:
        if said["issuer"] != self.url:
            raise ValueError(_("it calls itself {name!r}").format(name=str(said["issuer"])[:200]))
        found = Endpoints(
            str(said["authorization_endpoint"]), str(said["token_endpoint"]), str(said["jwks_uri"])
        )
        if urlsplit(found.keys)[:2] != urlsplit(self.url)[:2]:
            raise ValueError(_("its keys lie at {url}, not where it does").format(url=found.keys[:200]))
        return found


def _fits(key: dict[str, Any], name: object, algorithm: str) -> bool:
    """Whether ``key`` can be the one; a token that names none is meant for the only one there is."""
    return (
        (name is None or key.get("kid") == name)
        and key.get("use", "sig") == "sig"
        and key.get("alg", algorithm) == algorithm
        and key.get("kty") == _TYPES[algorithm]
    )


def _json(client: httpx.Client, url: str) -> dict[str, Any]:
    content = bytearray()
    with client.stream("GET", url) as response:
        response.raise_for_status()
        for part in response.iter_bytes():
            content += part
            if len(content) > MOST_BYTES:
                raise ValueError(_("it says too much"))
    return dict(json.loads(content))


def _refused(reason: str) -> LoginRefused:
    return LoginRefused(_("the issuer's token is not accepted: {reason}").format(reason=reason))
