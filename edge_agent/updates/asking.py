"""The agent's side of a look: start the child, ask it, hear it out, end it for certain."""

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable
from typing import Final

import msgspec

from edge_agent.errors import UpdateBroken
from edge_agent.updates.spoken import ENCODER, MAX_LINE, SAID_DECODER, Ask, Said
from fleet_protocol.texts import _

_SILENCE_S: Final = 600.0
"""Longer than the pauses between attempts; a child that says nothing for so long hangs."""


async def ask(question: Ask, hear: Callable[[Said], None]) -> None:
    """Have a child look, and hand on everything that it says, as it says it.

    Raises:
        UpdateBroken: the child ended in a way that it does not foresee.
    """
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        "-m",
        "edge_agent.updates",
        str(os.getpid()),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=MAX_LINE,
    )
    try:
        await _converse(child, question, hear)
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        # Shielded: a child that is not waited for stays as a zombie.
        status = await asyncio.shield(child.wait())
    if status != 0:
        raise UpdateBroken(
            _("the look at the update server ended with status {status}").format(status=status)
        )


async def _converse(child: asyncio.subprocess.Process, question: Ask, hear: Callable[[Said], None]) -> None:
    if child.stdin is None or child.stdout is None:
        raise AssertionError  # both were asked for
    with contextlib.suppress(ConnectionError):
        child.stdin.write(ENCODER.encode(question))
        await child.stdin.drain()
        child.stdin.close()
    try:
        async with asyncio.timeout(_SILENCE_S) as patience:
            while line := await child.stdout.readline():
                patience.reschedule(asyncio.get_running_loop().time() + _SILENCE_S)
                hear(SAID_DECODER.decode(line))
            await child.wait()
    except (TimeoutError, ValueError, msgspec.MsgspecError) as error:
        raise UpdateBroken(
            _("the look at the update server cannot be understood: {reason}").format(reason=error)
        ) from error
