"""The agent's door for whoever stands at the cabinet: JSON-RPC 2.0 over a Unix socket of its owner.

The socket is ``agent.sock`` in the data folder, readable and writable by the agent's user alone: who
may open it may do what that user may. Everything is bounded all the same, so that a broken or a slow
client costs the agent a connection and never a reading.
"""

import asyncio
import contextlib
import logging
import os
import socket
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

from edge_agent.errors import AgentError, BadParameter, LocalError, NotAvailable
from edge_agent.service import json_rpc
from edge_agent.service.json_rpc import MAX_REQUEST, Call, ErrorCode, RpcError
from fleet_protocol.texts import _

_LOG: Final = logging.getLogger(__name__)

FILE_NAME: Final = "agent.sock"

CONNECTIONS: Final = 16
"""Clients at one time; a technician has one or two."""

IDLE_S: Final = 60.0
"""A client that says nothing for so long is gone; the console asks every few seconds."""

WRITE_S: Final = 5.0
"""A client that does not take its answer for so long is let go of."""

Method = Callable[[Mapping[str, Any]], Awaitable[Any]]
"""From the parameters to what JSON can hold. A family of :class:`AgentError` tells why not."""


class LocalApi:
    """Answers ``methods`` on the socket in ``folder`` until cancelled."""

    def __init__(self, folder: Path, methods: Mapping[str, Method]) -> None:
        self._folder = folder
        self._methods = methods
        self._clients: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Serve; a socket that a dead agent left behind is replaced.

        Raises:
            LocalError: there is something else in its place, or the folder refuses a socket.
        """
        async with _listening(self._folder) as listener:
            server = await asyncio.start_unix_server(self._accept, sock=listener, limit=MAX_REQUEST)
            try:
                await server.serve_forever()
            finally:
                server.close()
                for client in self._clients:
                    client.cancel()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = asyncio.create_task(self._serve(reader, writer), name="local client")
        self._clients.add(client)
        client.add_done_callback(self._clients.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if len(self._clients) > CONNECTIONS:
                error = RpcError(ErrorCode.REFUSED, _("too many clients; close another console"))
                await _write(writer, json_rpc.failure(error))
                return
            await self._converse(reader, writer)
        except (TimeoutError, OSError):
            _LOG.debug("a local client is gone")
        finally:
            # Not closed in an orderly way: that would wait for a client that does not read.
            writer.transport.abort()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                async with asyncio.timeout(IDLE_S):
                    line = await reader.readuntil(b"\n")
            except asyncio.IncompleteReadError:
                return
            except asyncio.LimitOverrunError:
                reason = _("a request has at most {limit} bytes").format(limit=MAX_REQUEST)
                await _write(writer, json_rpc.failure(RpcError(ErrorCode.INVALID_REQUEST, reason)))
                return
            answer = await self._answer(line)
            if answer is not None:
                await _write(writer, answer)

    async def _answer(self, line: bytes) -> bytes | None:
        """The line that answers ``line``; none where nobody waits for it."""
        try:
            call = json_rpc.parse(line)
        except RpcError as error:
            return json_rpc.failure(error)
        try:
            content = await self._call(call)
            answer = json_rpc.result(call.reply_to, content)
        except RpcError as error:
            answer = json_rpc.failure(error, call.reply_to)
        return answer if call.is_answered else None

    async def _call(self, call: Call) -> Any:
        method = self._methods.get(call.method)
        if method is None:
            known = ", ".join(sorted(self._methods))
            reason = _("no method {method!r}; there are {known}").format(method=call.method, known=known)
            raise RpcError(ErrorCode.METHOD_NOT_FOUND, reason)
        try:
            return await method(call.params)
        except NotAvailable as error:
            raise RpcError(ErrorCode.NOT_AVAILABLE, str(error)) from error
        except BadParameter as error:
            raise RpcError(ErrorCode.INVALID_PARAMS, str(error)) from error
        except AgentError as error:
            raise RpcError(ErrorCode.REFUSED, str(error)) from error
        except Exception as error:
            _LOG.exception(_("local method {method} failed").format(method=call.method))
            reason = _("a fault of the agent; its log has the trace")
            raise RpcError(ErrorCode.INTERNAL_ERROR, reason) from error


def text_of(params: Mapping[str, Any], name: str) -> str:
    """The parameter ``name``, a text that is not empty and has no control characters.

    Raises:
        BadParameter: it is not.
    """
    value = params.get(name)
    if not isinstance(value, str) or not value or not value.isprintable():
        raise BadParameter(_("give {name!r}, a text").format(name=name))
    return value


@contextlib.asynccontextmanager
async def _listening(folder: Path) -> AsyncIterator[socket.socket]:
    """The socket in ``folder``, bound and not yet open to anybody before only its owner may."""
    path = folder / FILE_NAME
    _remove_stale(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            # A socket's own name holds 107 bytes, less than many a data folder's.
            listener.bind(f"/proc/self/fd/{handle}/{FILE_NAME}")
            path.chmod(0o600)
        except OSError as error:
            raise LocalError(
                _("{path} cannot be made: {reason}").format(path=path, reason=error.strerror)
            ) from error
        finally:
            os.close(handle)
        try:
            yield listener
        finally:
            path.unlink(missing_ok=True)


def _remove_stale(path: Path) -> None:
    """Whoever holds the data folder's lock is the only agent: a socket that is there is a dead one's."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise LocalError(_("{path} is no socket; move it away").format(path=path))
        path.unlink()


async def _write(writer: asyncio.StreamWriter, line: bytes) -> None:
    writer.write(line)
    async with asyncio.timeout(WRITE_S):
        await writer.drain()
