"""Where metadata and artifacts come from: the update server by HTTPS, or a bundle on a stick.

Nothing here is trusted: what comes is verified by whoever asks. Both have the layout of the server's
addresses: ``image/metadata/…``, ``image/targets/…``, ``director/<device>/metadata/…``.
"""

import contextlib
import http.client
import ssl
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, Protocol
from urllib.parse import quote, urlsplit

from edge_agent import AGENT
from edge_agent.backoff import FullJitter
from edge_agent.errors import UpdateUnreachable
from edge_agent.link.https import ANSWER_S, CHUNK, FAILURES, connect, reason
from fleet_protocol.texts import _

_ATTEMPTS: Final = 3
_FIRST_WAIT_S: Final = 0.5
_LONGEST_WAIT_S: Final = 5.0

_OK: Final = 200
_PARTIAL: Final = 206
_NOT_SATISFIABLE: Final = 416

_MAX_MEMBERS: Final = 10_000
_HEADERS: Final = frozenset(
    {
        tarfile.XHDTYPE,
        tarfile.XGLTYPE,
        tarfile.SOLARIS_XHDTYPE,
        tarfile.GNUTYPE_LONGNAME,
        tarfile.GNUTYPE_LONGLINK,
    }
)
_MAX_HEADER: Final = 8 * 1024
"""Bytes of what tar writes before a member about it: a long name, of which a bundle has some."""

_PRIVATE: Final = "director/"
"""What is given to its device alone; the rest is signed and public."""


class NotThere(UpdateUnreachable):
    """The source answers that it has no such file; ``status`` is HTTP's word for it."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Part:
    """A file from byte ``start`` on. ``total`` is the length that the source claims, if it does."""

    start: int
    total: int | None
    etag: str
    chunks: Iterator[bytes]


class Source(Protocol):
    """A place to look at."""

    def document(self, path: str) -> Iterator[bytes]:
        """The metadata file ``path``, in pieces.

        Raises:
            NotThere: it is not there.
            UpdateUnreachable: the source does not answer, also in the middle of the pieces.
        """

    def part(self, path: str, start: int, etag: str, piece: int = CHUNK) -> Part:
        """The file ``path`` from ``start`` on, or from 0 where it is not what ``etag`` named any more.

        At most ``piece`` bytes are read at once.

        Raises:
            NotThere: it is not there.
            UpdateUnreachable: the source does not answer, also in the middle of the pieces.
        """

    def close(self) -> None:
        """Give back what is open."""


class Https:
    """The update server at one address, over one connection at a time; no proxy, no redirection.

    ``prove`` gives the token that shows whose director's word is asked for; once a look, and only for that.
    """

    def __init__(self, url: str, context: ssl.SSLContext, prove: Callable[[], str] | None = None) -> None:
        self._base: Final = urlsplit(url).path.rstrip("/")
        self._connection: Final = connect(url, context)
        self._response: http.client.HTTPResponse | None = None
        self._prove: Final = prove
        self._token = ""

    def document(self, path: str) -> Iterator[bytes]:
        """See :class:`Source`; tried a few times before the first piece."""
        backoff = FullJitter(_FIRST_WAIT_S, _LONGEST_WAIT_S)
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                response = self._get(path, {})
            except NotThere:
                raise
            except UpdateUnreachable:
                if attempt == _ATTEMPTS:
                    raise
                time.sleep(backoff.next_s())
            else:
                return self._chunks(path, response, time.monotonic() + ANSWER_S)
        raise AssertionError(path)

    def part(self, path: str, start: int, etag: str, piece: int = CHUNK) -> Part:
        """See :class:`Source`; trying again is the caller's."""
        headers = {"Range": f"bytes={start}-", "If-Range": etag} if start and etag else {}
        try:
            response = self._get(path, headers)
        except NotThere as error:
            if error.status != _NOT_SATISFIABLE:
                raise
            response = self._get(path, {})
        begun = start if response.status == _PARTIAL else 0
        length = response.length
        return Part(
            begun,
            None if length is None else begun + length,
            response.headers.get("ETag", ""),
            self._chunks(path, response, None, piece),
        )

    def close(self) -> None:
        """See :class:`Source`."""
        self._connection.close()
        if self._response is not None:
            self._response.close()

    def _get(self, path: str, headers: dict[str, str]) -> http.client.HTTPResponse:
        if self._response is not None and not self._response.isclosed():
            self.close()  # nobody read it to its end
        headers = {"User-Agent": AGENT, **self._proof(path), **headers}
        try:
            self._connection.request("GET", f"{self._base}/{quote(path, safe='/%')}", headers=headers)
            response = self._response = self._connection.getresponse()
        except FAILURES as error:
            self._connection.close()
            raise self._unreachable(error) from error
        if response.status in {_OK, _PARTIAL}:
            return response
        self._skip(response)
        raise NotThere(
            _("the update server answers {status} to {path}").format(status=response.status, path=path),
            response.status,
        )

    def _proof(self, path: str) -> dict[str, str]:
        if self._prove is None or not path.startswith(_PRIVATE):
            return {}
        self._token = self._token or self._prove()
        return {"Authorization": f"Bearer {self._token}"}

    def _skip(self, response: http.client.HTTPResponse) -> None:
        """Keep the connection over a short error page: every look asks for a root that is not there."""
        try:
            if response.length is not None and response.length <= CHUNK:
                response.read()
                return
        except FAILURES:
            pass
        self._connection.close()

    def _chunks(
        self, path: str, response: http.client.HTTPResponse, deadline: float | None, piece: int = CHUNK
    ) -> Iterator[bytes]:
        done = False
        try:
            while chunk := response.read1(piece):
                yield chunk
                if deadline is not None and time.monotonic() > deadline:
                    raise UpdateUnreachable(_("{path} comes too slowly").format(path=path))
            done = not response.length
        except FAILURES as error:
            raise self._unreachable(error) from error
        finally:
            # http.client takes the next request only once this response is closed.
            response.close()
            if not done:
                self._connection.close()
        if not done:
            raise UpdateUnreachable(_("the connection broke within {path}").format(path=path))

    def _unreachable(self, error: Exception) -> UpdateUnreachable:
        return UpdateUnreachable(
            _("the update server at {host}:{port} cannot be reached: {reason}").format(
                host=self._connection.host, port=self._connection.port, reason=reason(error)
            )
        )


class _Member(tarfile.TarInfo):
    """A member of a bundle; what is said about it is read into memory, and so has to be short."""

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        # The standard library's own place for this: "subclasses may override it".
        if self.type in _HEADERS and self.size > _MAX_HEADER:
            raise tarfile.ReadError(_("a header of {size} bytes").format(size=self.size))
        return super()._proc_member(tar)  # type: ignore[misc,no-any-return]


class Bundle:
    """A tar on a stick with everything for one device; only plain files in it are seen."""

    def __init__(self, file: Path) -> None:
        """Open ``file``.

        Raises:
            UpdateUnreachable: it cannot be read, or is no tar.
        """
        self._file: Final = file
        try:
            self._tar: Final = tarfile.open(file, "r:", tarinfo=_Member)  # noqa: SIM115 - closed by close
            members = [member for member, _number in zip(self._tar, range(_MAX_MEMBERS), strict=False)]
        except (OSError, tarfile.TarError, ValueError, RecursionError) as error:
            # Headers about headers about headers are what the recursion comes from.
            raise self._unreadable(error) from None
        self._members: Final = {member.name: member for member in members if member.isreg()}

    def document(self, path: str) -> Iterator[bytes]:
        """See :class:`Source`."""
        _member, file = self._open(path)
        return self._chunks(file)

    def part(self, path: str, start: int, etag: str, piece: int = CHUNK) -> Part:  # noqa: ARG002 - copied whole
        """See :class:`Source`."""
        member, file = self._open(path)
        return Part(0, member.size, "", self._chunks(file))

    def close(self) -> None:
        """See :class:`Source`."""
        self._tar.close()

    def _open(self, path: str) -> tuple[tarfile.TarInfo, IO[bytes]]:
        member = self._members.get(path)
        file = self._tar.extractfile(member) if member else None
        if member is None or file is None:
            raise NotThere(_("{file} holds no {path}").format(file=self._file.name, path=path), 404)
        return member, file

    def _chunks(self, file: IO[bytes]) -> Iterator[bytes]:
        try:
            with file:
                while chunk := file.read(CHUNK):
                    yield chunk
        except (OSError, tarfile.TarError, ValueError) as error:
            raise self._unreadable(error) from None

    def _unreadable(self, error: Exception) -> UpdateUnreachable:
        return UpdateUnreachable(
            _("{file} cannot be read as a bundle: {reason}").format(file=self._file, reason=error)
        )


@contextlib.contextmanager
def closing(source: Source) -> Iterator[Source]:
    """``source``, closed at the end."""
    try:
        yield source
    finally:
        source.close()
