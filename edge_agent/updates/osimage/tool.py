"""Runs the board's own tools: as child processes, for so long and no longer, with what they say.

A tool that writes holds a lock as long as any of its processes lives. An agent that was killed meanwhile
and is back must not begin a second one beside it.
"""

import asyncio
import contextlib
import fcntl
import logging
import os
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge_agent.errors import UpdateBroken, UpdateUnfit
from fleet_protocol.texts import _

_LOG: Final = logging.getLogger(__name__)

ASK_S: Final = 60.0
"""A question to a tool may take so long."""

_LINES: Final = 2000
_LINE_BYTES: Final = 64 * 1024


class NotNow(UpdateUnfit):
    """The tool cannot be asked at present; it can in a moment."""


Told = Callable[[str], None]
"""Is told what the tool says, line by line."""


@dataclass(frozen=True, slots=True)
class Ran:
    """How a tool ended: its exit status, what it answered, and its last lines on both ways."""

    status: int
    answer: str
    lines: tuple[str, ...]

    @property
    def words(self) -> str:
        """What it said last, for a person."""
        return " / ".join(self.lines[-3:]) or _("it says nothing, status {status}").format(status=self.status)


async def run(
    command: Sequence[str], limit_s: float = ASK_S, told: Told | None = None, keep_open: Sequence[int] = ()
) -> Ran:
    """Run ``command`` to its end.

    Raises:
        UpdateUnfit: it is not there, or took longer than ``limit_s`` and was ended.
    """
    environment = os.environ | {"LC_ALL": "C"}  # its words are read, too
    try:
        child = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=_LINE_BYTES,
            pass_fds=keep_open,
            env=environment,
            start_new_session=True,
        )
    except OSError as error:
        raise UpdateUnfit(
            _("{tool} cannot be started: {reason}; install it, or give the board its right profile").format(
                tool=command[0], reason=error.strerror
            )
        ) from None
    try:
        async with asyncio.timeout(limit_s):
            return await _heard(child, told)
    except TimeoutError:
        raise UpdateUnfit(
            _("{tool} took longer than {limit:g} s and was ended").format(tool=command[0], limit=limit_s)
        ) from None
    finally:
        if child.returncode is None:
            # The whole group: SWUpdate writes in processes of its own.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            await asyncio.shield(child.wait())


@contextlib.contextmanager
def alone(lock: Path) -> Iterator[int]:
    """Hold ``lock``; the descriptor is to be inherited by whatever must not run twice.

    Raises:
        NotNow: a tool that an earlier agent started still runs.
        UpdateBroken: the lock cannot be opened.
    """
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise UpdateBroken(
            _("{file} cannot be opened: {reason}").format(file=lock, reason=error.strerror)
        ) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield descriptor
    except BlockingIOError:
        raise NotNow(_("an installation that was begun before is still under way")) from None
    finally:
        os.close(descriptor)


async def _heard(child: asyncio.subprocess.Process, told: Told | None) -> Ran:
    last: deque[str] = deque(maxlen=_LINES)
    answer: deque[str] = deque(maxlen=_LINES)

    async def hear(stream: asyncio.StreamReader | None, *, answers: bool) -> None:
        while stream is not None and (line := await _line(stream)) is not None:
            if answers:
                answer.append(line)
            if line.strip():
                last.append(line.strip())
                if told is not None:
                    _LOG.info("%s", line.rstrip())
                    told(line.strip())

    await asyncio.gather(hear(child.stdout, answers=True), hear(child.stderr, answers=False))
    return Ran(await child.wait(), "".join(answer), tuple(last))


async def _line(stream: asyncio.StreamReader) -> str | None:
    """The next line; of one that is too long the rest is dropped, None at the end."""
    try:
        line = await stream.readline()
    except ValueError:
        line = b"\n"
    return line.decode("utf-8", "replace") if line else None
