"""OIDC issuers for tests: the mock of PyPI as a server of its own, and one that signs whatever it is told."""

import base64
import hashlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from tests.support.waiting import free_port, wait_until

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


_PUBLIC = """
from oidc_provider_mock import _app
from oidc_provider_mock.__main__ import run
_app.AuthorizationCodeGrant.TOKEN_ENDPOINT_AUTH_METHODS = ["none"]
run()
"""
"""The mock, for programs that can keep no secret, as a command line is one."""


@contextmanager
def mock_issuer() -> Iterator[str]:
    """``oidc-provider-mock`` on a free port; its address."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-c", _PUBLIC, "--port", str(port), "--require-nonce", "true"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: _answers(url), "the issuer", 30)
        yield url
    finally:
        process.terminate()
        process.wait(10)


def consent(where: str, subject: str) -> httpx.Response:
    """Log in as ``subject`` at the page ``where`` of the mock; where it sends a browser then."""
    answer = httpx.post(where, data={"sub": subject}, trust_env=False, timeout=30)
    assert answer.status_code == 302, answer.text
    return answer


class SigningIssuer:
    """Signs ID tokens with keys that it publishes, as long as it has them; counts who asks."""

    def __init__(self) -> None:
        self.keys: dict[str, Key] = {}
        self.asked: list[str] = []
        self.overrides: dict[str, str] = {}
        self.codes: dict[str, dict[str, str]] = {}
        self.has_names = True
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked.append(self.path)
                known = {"/.well-known/openid-configuration": issuer.configuration, "/jwks": issuer.jwks}
                content = json.dumps(known[self.path]()).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def do_POST(self) -> None:
                given = self.rfile.read(int(self.headers["Content-Length"])).decode()
                content = issuer.exchange({key: one for key, (one,) in parse_qs(given).items()})
                self.send_response(200 if content else 400)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def authorize(self, where: str) -> str:
        """Where a browser is sent that logs in at the page ``where``."""
        asked = {key: one for key, (one,) in parse_qs(urlsplit(where).query).items()}
        self.codes[f"code-{len(self.codes)}"] = asked
        return f"{asked['redirect_uri']}?code=code-{len(self.codes) - 1}&state={asked['state']}"

    def exchange(self, given: dict[str, str]) -> bytes:
        """The answer of the token endpoint; a code is worth something with its verifier alone (RFC 7636)."""
        asked = self.codes.pop(given["code"])
        digest = hashlib.sha256(given["code_verifier"].encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        if challenge != asked["code_challenge"] or given["redirect_uri"] != asked["redirect_uri"]:
            return b""
        return json.dumps({"id_token": self.sign("first", nonce=asked["nonce"])}).encode()

    def configuration(self) -> dict[str, str]:
        return {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/jwks",
        } | self.overrides

    def jwks(self) -> dict[str, Any]:
        return {
            "keys": [public_jwk(key, name if self.has_names else None) for name, key in self.keys.items()]
        }

    def sign(self, name: str, algorithm: str = "RS256", **claims: Any) -> str:
        """An ID token as it has to be, but for ``claims``; None takes one out."""
        now = int(time.time())
        whole = {"iss": self.url, "aud": "fleet", "sub": "s-1", "iat": now, "exp": now + 60} | claims
        content = {key: value for key, value in whole.items() if value is not None}
        headers = {"kid": name} if self.has_names else None
        return jwt.encode(content, self.keys[name], algorithm=algorithm, headers=headers)


def public_jwk(key: Key, name: str | None) -> dict[str, Any]:
    public = key.public_key()
    if isinstance(public, rsa.RSAPublicKey):
        jwk = dict(RSAAlgorithm.to_jwk(public, as_dict=True))
    else:
        jwk = dict(ECAlgorithm.to_jwk(public, as_dict=True))
    return jwk | {"use": "sig"} | ({"kid": name} if name else {})


def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/.well-known/openid-configuration", trust_env=False).is_success
    except httpx.TransportError:
        return False
