"""The children that build and try a slot, bounded: in time, in what they may say, and ended for certain."""

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import Final

import msgspec

from edge_agent.errors import UpdateBroken, UpdateFailed
from edge_agent.service.health import as_line
from edge_agent.slots.spoken import BUILD_DECODER, FINDINGS_DECODER, MAX_ANSWER, Findings, Outcome
from fleet_protocol.texts import _

BUILD_S: Final = 900.0
"""Seconds for a build: a slow card writes a hundred megabytes, a slow processor compiles them."""

TEST_S: Final = 300.0
"""Seconds for a self-test; models may be large."""

_LAST_WORDS: Final = 2000


async def build(artifact: Path, slot: Path, fitted: Path) -> Outcome:
    """Have a child make ``slot``.

    Raises:
        UpdateBroken: it ended in a way that it does not foresee.
    """
    places = (str(artifact), str(slot), str(fitted))
    said, complaint = await _run(
        BUILD_S, sys.executable, "-P", "-m", "edge_agent.slots", str(os.getpid()), *places
    )
    try:
        return BUILD_DECODER.decode(said)
    except msgspec.MsgspecError:
        raise UpdateBroken(_("the slot cannot be built: {reason}").format(reason=complaint)) from None


async def findings(python: str | Path, config: Path) -> Findings:
    """What the software of ``python`` finds when it tries itself.

    Raises:
        UpdateFailed: it does not get so far.
    """
    said, complaint = await _run(
        TEST_S, str(python), "-I", "-B", "-m", "edge_agent.slots.selftest", "--config", str(config)
    )
    try:
        return FINDINGS_DECODER.decode(said)
    except msgspec.MsgspecError:
        raise UpdateFailed(
            _("the self-test did not come to its end: {reason}").format(reason=complaint)
        ) from None


async def _run(within_s: float, *command: str) -> tuple[bytes, str]:
    """What a child says, and the last line of its complaint."""
    child = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    if child.stdout is None or child.stderr is None:
        raise AssertionError  # both were asked for
    complaint = ""
    try:
        async with asyncio.timeout(within_s):
            said, errors = await asyncio.gather(_bounded(child.stdout), _bounded(child.stderr))
            await child.wait()
        complaint = as_line((errors[-_LAST_WORDS:].decode(errors="replace").strip().splitlines() or [""])[-1])
    except TimeoutError:
        said, complaint = b"", _("it took longer than {seconds:.0f} s").format(seconds=within_s)
    finally:
        # The whole group: a model's worker may hang where its starter does not.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        await asyncio.shield(child.wait())
    return said, complaint or _("it ended with code {code}").format(code=child.returncode)


async def _bounded(stream: asyncio.StreamReader) -> bytes:
    """Everything that comes; of more than is allowed the end is kept."""
    kept = b""
    while chunk := await stream.read(MAX_ANSWER):
        kept = (kept + chunk)[-MAX_ANSWER:]
    return kept
