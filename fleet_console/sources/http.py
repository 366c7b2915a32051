"""Where the commands get their answers: the fleet server's API over HTTP.

The screens ask the same API without waiting for it, in :mod:`fleet_console.sources.fleet`.
"""

import json
import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx

from fleet_console.errors import Absent, ConsoleError, Unreachable, UsageError
from fleet_console.sources import logins
from fleet_console.sources.logins import Login
from fleet_protocol.texts import _

TIMEOUT_S: Final = 20.0
"""A loaded server on a small board takes its time; a technician does not wait longer."""

_PAGE: Final = 1000
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server said, and its clock when it did, in ms since 1970: a laptop's may be wrong."""

    content: Any
    now_ms: int


class Server:
    """An open connection to the API. Made by :meth:`Place.connect`."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def get(self, path: str, **parameters: str | int) -> Answer:
        """What is at ``path``.

        Raises:
            ConsoleError: the server refuses, in its own words.
            Unreachable: it does not answer.
        """
        return self._ask("GET", path, params=parameters)

    def post(self, path: str, body: dict[str, Any]) -> Answer:
        """What became of ``body``; raises as :meth:`get`."""
        return self._ask("POST", path, json=body)

    def put(self, path: str, body: dict[str, Any]) -> Answer:
        """What became of ``body``; raises as :meth:`get`."""
        return self._ask("PUT", path, json=body)

    def delete(self, path: str, **parameters: str) -> Answer:
        """What became of it; raises as :meth:`get`."""
        return self._ask("DELETE", path, params=parameters)

    def send(self, method: str, path: str, document: bytes, **parameters: str) -> Answer:
        """What became of ``document``, JSON that is sent as it is; raises as :meth:`get`."""
        headers = {"Content-Type": "application/json"}
        return self._ask(method, path, content=document, headers=headers, params=parameters)

    def upload(self, path: str, parts: Iterator[bytes], size: int) -> Answer:
        """What became of ``parts``, ``size`` bytes in all; raises as :meth:`get`."""
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        return self._ask("PUT", path, content=parts, headers=headers)

    def read(self, path: str) -> bytes:
        """What is at ``path``, as it is; raises as :meth:`get`."""
        with self._reached():
            response = self._client.get(path)
        if not response.is_success:
            raise ConsoleError(_refusal(response))
        return response.content

    def download(self, path: str, out: Path) -> int:
        """Write what is at ``path`` to ``out``, whole or not at all; its size in bytes.

        Raises:
            ConsoleError: the server refuses, or ``out`` cannot be written.
            Unreachable: it does not answer.
        """
        beside = out.with_name(f".{out.name}.new")
        try:
            with self._reached(), self._client.stream("GET", path) as response:
                if not response.is_success:
                    response.read()
                    raise ConsoleError(_refusal(response))
                with beside.open("wb") as file:
                    for part in response.iter_bytes():
                        file.write(part)
                    file.flush()
                    os.fsync(file.fileno())
            beside.replace(out)
            return out.stat().st_size
        except OSError as error:
            raise ConsoleError(
                _("{path} cannot be written ({reason})").format(path=out, reason=error.strerror)
            ) from error
        finally:
            beside.unlink(missing_ok=True)

    def pages(self, path: str, **parameters: str | int) -> Answer:
        """All items at ``path``, page by page; the clock is that of the last page."""
        items: list[Any] = []
        while True:
            answer = self.get(path, limit=_PAGE, **parameters)
            page = answer.content["items"]
            items += page
            if len(page) < _PAGE:
                return Answer(items, answer.now_ms)
            parameters["after"] = answer.content["next_after"]

    def _ask(self, method: str, path: str, **how: Any) -> Answer:
        with self._reached():
            response = self._client.request(method, path, **how)
        return answer_of(response)

    @contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except httpx.TransportError as error:
            raise unreachable(str(self._client.base_url), error) from error


@dataclass(frozen=True, slots=True)
class Access:
    """Which server, the token that it wants, and whose certificate it has: the system's trust, or ``ca``.

    An empty token is none, for whoever is about to log in.
    """

    url: str
    token: str
    ca: Path | None = None

    @property
    def options(self) -> dict[str, Any]:
        """How an HTTP client is opened to it.

        Raises:
            UsageError: the authority's file cannot be used.
        """
        # No proxy from the environment: the token goes to the named server and nowhere else.
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        return {
            "base_url": self.url,
            "headers": headers,
            "timeout": TIMEOUT_S,
            "trust_env": False,
            "verify": self._tls(),
        }

    def _tls(self) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cafile=self.ca)
        except OSError as error:
            raise UsageError(
                _("the authority in {path} cannot be used: {reason}").format(path=self.ca, reason=error)
            ) from error


@dataclass(frozen=True, slots=True)
class Place:
    """Which server is meant, as the options of a command say it; looked up when it is needed."""

    url: str | None = None
    token_file: Path | None = None
    ca: Path | None = None
    data: Path | None = None

    def access(self) -> Access:
        """The server that runs on the folder ``data``, the one at ``url``, or where somebody is logged in.

        Raises:
            UsageError: none is meant, there is no token for it, or it would travel in the clear.
            Unreachable: no server runs on ``data``.
        """
        if self.data is not None:
            url, token_file, ca = _endpoints(self.data)
            return Access(_private(url), _token_in(token_file), ca)
        if self.url is not None and self.token_file is not None:
            return Access(_private(self.url), _token_in(self.token_file), self.ca)
        login = self.login()
        return Access(_private(login.url), login.token, self.ca or login.ca)

    def login(self) -> Login:
        """Where somebody is logged in: at ``url``, or at the only server there is.

        Raises:
            UsageError: nobody is, or it may be one of several.
        """
        found = [login for login in logins.living() if self.url is None or login.url == self.url.rstrip("/")]
        if self.token_file is None and len(found) == 1:
            return found[0]
        if self.token_file is None and found:
            servers = ", ".join(login.url for login in found)
            raise UsageError(_("which server? Give --server URL: {servers}").format(servers=servers))
        if self.token_file is None and self.url is not None:
            raise UsageError(
                _("you are not logged in at {url}; run: fleet login --server {url}").format(url=self.url)
            )
        raise UsageError(
            _(
                "which server? Give --data DIR on its machine, or --server URL and --token-file FILE,"
                " or log in: fleet login --server URL"
            )
        )

    def stranger(self) -> Access:
        """The server that is meant, without a token, for whoever is about to log in.

        Raises:
            UsageError: none is meant, or a password would travel in the clear.
            Unreachable: no server runs on ``data``.
        """
        if self.data is not None:
            url, _file, ca = _endpoints(self.data)
            return Access(_private(url), "", ca)
        if self.url is None:
            raise UsageError(_("which server? Give --server URL, or --data DIR on its machine"))
        return Access(_private(self.url.rstrip("/")), "", self.ca)

    @contextmanager
    def connect(self) -> Iterator[Server]:
        """An open connection to the server; raises as :meth:`access`."""
        with httpx.Client(**self.access().options) as client:
            yield Server(client)


def _token_in(path: Path) -> str:
    try:
        token = path.read_text("ascii").strip()
    except (OSError, ValueError) as error:
        raise UsageError(_("the token cannot be read: {reason}").format(reason=error)) from error
    if not token or not token.isprintable():
        raise UsageError(_("{path} holds no token; it is one line").format(path=path))
    return token


def _private(url: str) -> str:
    """``url``, where a token that is sent there goes over TLS, or stays on this machine."""
    parts = urlsplit(url)
    if parts.scheme != "https" and parts.hostname not in _LOOPBACK:
        raise UsageError(
            _("{url} is not https: the token could be read on its way; give https://HOST:PORT").format(
                url=url
            )
        )
    return url


def _endpoints(data: Path) -> tuple[str, Path, Path | None]:
    path = data / "endpoints.json"
    try:
        found = json.loads(path.read_text("utf-8"))
        return (
            str(found["api_url"]),
            Path(found["token_file"]),
            Path(found["api_ca"]) if found["api_ca"] else None,
        )
    except FileNotFoundError:
        raise Unreachable(
            _("no server runs on {data}; start it with: fleet-server serve --data {data}").format(data=data)
        ) from None
    except (OSError, ValueError, KeyError) as error:
        raise ConsoleError(_("{path} cannot be read: {reason}").format(path=path, reason=error)) from error


def answer_of(response: httpx.Response) -> Answer:
    """What ``response`` holds.

    Raises:
        Absent: there is nothing under this address.
        ConsoleError: the server refuses, in its own words.
    """
    if response.is_success:
        return Answer(response.json() if response.content else None, _clock(response))
    family = Absent if response.status_code == HTTPStatus.NOT_FOUND else ConsoleError
    raise family(_refusal(response))


def unreachable(url: str, error: Exception) -> Unreachable:
    """That the server at ``url`` does not answer, and why."""
    return Unreachable(
        _("the server at {url} does not answer ({reason}); check that it runs").format(
            url=url, reason=str(error) or type(error).__name__
        )
    )


def _clock(response: httpx.Response) -> int:
    return int(parsedate_to_datetime(response.headers["date"]).timestamp() * 1000)


def _refusal(response: httpx.Response) -> str:
    try:
        problem = response.json()
        return f"{problem['message'].rstrip('.')}. {problem['next_step']}"
    except (ValueError, KeyError, TypeError):
        return _("the server answered {status}; is this the fleet server's address?").format(
            status=response.status_code
        )
