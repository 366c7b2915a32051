"""Logging in at an OIDC issuer: the authorization code flow with PKCE, over a redirect to this machine.

The code comes back to a port that only this machine reaches, and is worth nothing without the verifier
that never left this process.
"""

import base64
import hashlib
import secrets
import ssl
import threading
import time
import webbrowser
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, Final
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx

from fleet_console.errors import ConsoleError
from fleet_protocol.texts import _

PATIENCE_S: Final = 300.0
"""How long a person may take at the issuer's page."""

TIMEOUT_S: Final = 20.0


def id_token(offer: dict[str, Any], tell: Callable[[str], None]) -> str:
    """The ID token of whoever logs in at the issuer of ``offer``; ``tell`` says where they do.

    Raises:
        ConsoleError: nobody did, or the issuer refuses.
    """
    state, verifier = secrets.token_urlsafe(16), secrets.token_urlsafe(48)
    with _Listener(state) as listener:
        query = urlencode(
            {
                "response_type": "code",
                "scope": "openid",
                "client_id": offer["client_id"],
                "redirect_uri": listener.url,
                "state": state,
                "nonce": offer["nonce"],
                "code_challenge": _challenge(verifier),
                "code_challenge_method": "S256",
            }
        )
        where = f"{offer['authorization_endpoint']}?{query}"
        tell(_("Log in here: {url}").format(url=where))
        threading.Thread(target=webbrowser.open, args=(where,), daemon=True).start()
        code = listener.wait()
        return _exchange(offer, code, verifier, listener.url)


def _challenge(verifier: str) -> str:
    digest = hashlib.sha256(verifier.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _exchange(offer: dict[str, Any], code: str, verifier: str, redirect: str) -> str:
    body = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": redirect,
        "client_id": offer["client_id"],
        "code_verifier": verifier,
    }
    try:
        tls = ssl.create_default_context()
        answer = httpx.post(
            offer["token_endpoint"], data=body, timeout=TIMEOUT_S, trust_env=False, verify=tls
        )
        return str(answer.raise_for_status().json()["id_token"])
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        # Not the answer itself: it can hold tokens.
        raise ConsoleError(
            _("the issuer gave no ID token ({reason}); ask who runs it").format(reason=type(error).__name__)
        ) from error


class _Listener(HTTPServer):
    """Waits for the one redirect that carries ``state``, whatever else comes."""

    def __init__(self, state: str) -> None:
        super().__init__(("127.0.0.1", 0), _Redirect)
        self.state: Final = state
        self.answer: dict[str, str] | None = None
        self.timeout = 1.0

    @property
    def url(self) -> str:
        """Where the issuer sends people back to."""
        return f"http://127.0.0.1:{self.server_port}/"

    def wait(self) -> str:
        """The code.

        Raises:
            ConsoleError: nobody came in time, or the issuer refused.
        """
        ends_s = time.monotonic() + PATIENCE_S
        while self.answer is None:
            if time.monotonic() > ends_s:
                raise ConsoleError(_("nobody logged in at the issuer; try again"))
            self.handle_request()
        if "code" not in self.answer:
            reason = self.answer.get("error", "?")[:200]
            raise ConsoleError(_("the issuer let nobody in: {reason}").format(reason=reason))
        return self.answer["code"]


class _Redirect(BaseHTTPRequestHandler):
    server: _Listener
    timeout = TIMEOUT_S

    def do_GET(self) -> None:
        """Take the issuer's answer, and tell the person that they can go."""
        query = {key: values[0] for key, values in parse_qs(urlsplit(self.path).query).items()}
        is_it = secrets.compare_digest(query.get("state", "").encode(), self.server.state.encode())
        if is_it:
            self.server.answer = query
        content = _("You can close this page and go on in the terminal.\n").encode() if is_it else b""
        self.send_response(200 if is_it else 404)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the name of its base
        """Say nothing: the address holds the code."""
