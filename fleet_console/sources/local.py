"""The screens' source on site: one agent's Unix socket, JSON-RPC 2.0, a connection for each question."""

import asyncio
import itertools
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from fleet_console.errors import ConsoleError, Unreachable
from fleet_console.sources.base import Ability
from fleet_console.sources.views import (
    Conclusion,
    Device,
    DevicePage,
    Event,
    Finding,
    Link,
    Reading,
    Report,
    Seen,
    Value,
    Written,
    health_in_words,
    numbers,
    read,
)
from fleet_protocol.texts import _

TIMEOUT_S: Final = 10.0
"""A status takes milliseconds; an agent that needs longer hangs."""

WORK_S: Final = 900.0
"""What does something on the device may last: an update is tested and a bundle written to a worn card."""

MOST_BYTES: Final = 8 * 1024 * 1024
"""Of one answer: 500 metrics with their histories are under one megabyte."""


class Agent:
    """An agent as a source; see :class:`fleet_console.sources.base.OnSiteSource`."""

    abilities: Final = frozenset({Ability.ON_SITE})

    def __init__(self, path: Path) -> None:
        self.name: Final = str(path)
        self._path: Final = path
        self._ids = itertools.count(1)

    async def close(self) -> None:
        """Nothing stays open."""

    async def device(self, device: str) -> Seen[DevicePage]:  # noqa: ARG002 - there is but one
        """The agent's own page."""
        status = await self._ask("status", TIMEOUT_S)
        now_ms = int(status["wall_ms"])
        return Seen(_page(status, now_ms), now_ms)

    async def events(self) -> Seen[tuple[Event, ...]]:
        """The last events, the newest first."""
        answer = await self._ask("events", TIMEOUT_S)
        items = [
            each | {"device": "", "time_ms": answer["now_ms"] - each["age_ms"]} for each in answer["items"]
        ]
        return Seen(read(list(reversed(items)), tuple[Event, ...]), answer["now_ms"])

    async def doctor(self) -> Seen[tuple[Finding, ...]]:
        """What the agent's own checks find."""
        answer = await self._ask("doctor", WORK_S)
        return Seen(read(answer["items"], tuple[Finding, ...]), 0)

    async def read_sensor(self, sensor: str) -> Seen[tuple[Reading, ...]]:
        """Read a sensor now."""
        answer = await self._ask("sensor.read", WORK_S, name=sensor)
        return Seen(read(answer["items"], tuple[Reading, ...]), 0)

    async def apply_update(self, path: str) -> Seen[None]:
        """Apply the update in a file on the device."""
        await self._ask("update.apply", WORK_S, path=path)
        return Seen(None, 0)

    async def write_bundle(self, path: str) -> Seen[Written]:
        """Write a support bundle to a file on the device."""
        return Seen(read(await self._ask("bundle", WORK_S, path=path), Written), 0)

    async def _ask(self, method: str, timeout_s: float, **params: Any) -> Any:
        """The result of one call.

        Raises:
            Unreachable: nobody answers at the socket.
            ConsoleError: the agent refuses, in its own words.
        """
        request = {"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": params}
        try:
            async with asyncio.timeout(timeout_s):
                line = await self._exchange(msgspec.json.encode(request) + b"\n")
        except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError) as error:
            raise self._unreachable(error) from error
        return _result(line)

    async def _exchange(self, request: bytes) -> bytes:
        reader, writer = await asyncio.open_unix_connection(sock=_connected(self._path), limit=MOST_BYTES)
        try:
            writer.write(request)
            await writer.drain()
            return await reader.readuntil(b"\n")
        finally:
            writer.close()

    def _unreachable(self, error: Exception) -> Unreachable:
        if isinstance(error, PermissionError):
            return Unreachable(
                _("{path} may be opened by the agent's user alone; use sudo").format(path=self._path)
            )
        reason = str(error) or type(error).__name__
        return Unreachable(
            _("no agent answers at {path} ({reason}); check that it runs").format(
                path=self._path, reason=reason
            )
        )


def _connected(path: Path) -> socket.socket:
    """A socket connected to ``path``, which may be longer than a socket's own name can be."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            connection.connect(f"/proc/self/fd/{folder}/{path.name}")
        finally:
            os.close(folder)
        connection.setblocking(False)
    except BaseException:
        connection.close()
        raise
    return connection


def _result(line: bytes) -> Any:
    try:
        answer = msgspec.json.decode(line)
        if "error" in answer:
            raise ConsoleError(str(answer["error"]["message"]))
        return answer["result"]
    except (msgspec.MsgspecError, KeyError, TypeError) as error:
        raise ConsoleError(_("the answer is no JSON-RPC: {reason}").format(reason=error)) from error


def _page(status: Mapping[str, Any], now_ms: int) -> DevicePage:
    """The agent's status in the shape of a device's page."""
    link = read(status["link"], Link)
    device = Device(
        id=status["device"],
        site=None,
        profile=status["profile"],
        state="online" if link.up else "offline",
        heard_ms=now_ms,
        health=health_in_words(status["health"]),
    )
    history = status["history"]
    return DevicePage(
        device=device,
        report=read(status, Report),
        reported_ms=now_ms,
        values=tuple(
            read(
                each
                | {
                    "time_ms": now_ms - each["age_ms"],
                    "history": numbers(history.get(each["metric"], ())),
                },
                Value,
            )
            for each in status["values"]
        ),
        conclusions=tuple(
            read(each | {"time_ms": now_ms - each["age_ms"]}, Conclusion) for each in status["inferences"]
        ),
        link=link,
    )
