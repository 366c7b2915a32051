"""Deltas between published artifacts of one name: made when the first device asks, kept for the others.

Whoever asks need not say who they are, so that what they can cost is bounded: one delta is made at a
time, of two releases that were published, in a child with bounds, and never twice. A pair that is not
worth it is remembered too. What is kept has a limit; what was made first goes first.
"""

import asyncio
import contextlib
import logging
import subprocess
import sys
from pathlib import Path
from typing import Final

from sqlalchemy import Engine
from sqlmodel import Session

from fleet_protocol.texts import _
from fleet_server.database.models import Artifact
from fleet_server.files import make_folder
from fleet_server.updates.artifacts import ArtifactStore
from fleet_server.updates.delta_work import NOT_WORTH_IT

MAX_PAIR: Final = 64 << 20
"""Bytes of both artifacts together: no device of the profiles has more memory to spare for one."""

SHARE: Final = 0.9
"""A delta with more than this share of the artifact saves too little."""

KEPT: Final = 1 << 30
"""Bytes of deltas on the disk."""

WAIT_S: Final = 20.0
"""For how long a device is kept waiting; less than it waits for an answer."""

_MAKE_S: Final = 300.0
_WAITING: Final = 16
"""Pairs that wait to be made; who asks for more fetches the whole artifact."""

log: Final = logging.getLogger(__name__)

Pair = tuple[str, str]
"""The SHA-256 of the older and of the newer artifact."""


class NotYet(Exception):  # noqa: N818 - an answer, no failure
    """It is being made, or waits to be; whoever needs the artifact now fetches it whole."""


class Deltas:
    """The deltas in ``folder`` between what lies in ``artifacts``. Of one event loop."""

    def __init__(self, folder: Path, artifacts: ArtifactStore, engine: Engine, tenant: str) -> None:
        self._folder: Final = folder
        self._artifacts: Final = artifacts
        self._engine: Final = engine
        self._tenant: Final = tenant
        self._making: dict[Pair, asyncio.Task[None]] = {}
        self._one_at_a_time: Final = asyncio.Lock()

    async def provide(self, pair: Pair) -> Path | None:
        """The file with the delta of ``pair``; None where there is none to be had.

        Raises:
            NotYet: it takes longer than anybody waits.
        """
        if self._kept(pair).is_file():
            return self._kept(pair)
        if self._useless(pair).exists() or not await asyncio.to_thread(self._is_pair, pair):
            return None
        task = self._making.get(pair)
        if task is None:
            if len(self._making) >= _WAITING:
                raise NotYet
            task = self._making[pair] = asyncio.create_task(self._make(pair))
            task.add_done_callback(lambda _task: self._making.pop(pair))
        try:
            async with asyncio.timeout(WAIT_S):
                await asyncio.shield(task)
        except TimeoutError:
            raise NotYet from None
        return self._kept(pair) if self._kept(pair).is_file() else None

    def _is_pair(self, pair: Pair) -> bool:
        """Whether both were published under one name, the newer above the older, and are not too large."""
        with Session(self._engine) as session:
            old, new = (session.get(Artifact, (self._tenant, each)) for each in pair)
        if old is None or new is None or (old.kind, old.name) != (new.kind, new.name):
            return False
        return old.release < new.release and old.size + new.size <= MAX_PAIR

    async def _make(self, pair: Pair) -> None:
        async with self._one_at_a_time:
            await asyncio.to_thread(make_folder, self._folder)
            old, new = map(self._artifacts.path, pair)
            most = int(SHARE * new.stat().st_size)
            arguments = [str(old), str(new), str(self._kept(pair)), str(most)]
            command = [sys.executable, "-P", "-m", "fleet_server.updates.delta_work", *arguments]
            # One of asyncio's own waits for ever where the server is stopped while it starts.
            child = subprocess.Popen(command)  # noqa: ASYNC220 - takes a millisecond
            status = None
            try:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    status = await asyncio.to_thread(child.wait, _MAKE_S)
            finally:
                child.kill()
                child.wait()
            if status != 0:
                await asyncio.to_thread(self._useless(pair).touch)
            if status not in {0, NOT_WORTH_IT}:
                log.warning(
                    _("the delta from {old} to {new} was not made: status {status}").format(
                        old=pair[0][:12], new=pair[1][:12], status=status
                    )
                )
            await asyncio.to_thread(self._sweep, self._kept(pair))

    def _sweep(self, newest: Path) -> None:
        """Remove what was made first until the rest is within :data:`KEPT`."""
        files = [(file.stat(), file) for file in self._folder.glob("*.zst") if file != newest]
        files.sort(key=lambda each: each[0].st_mtime_ns, reverse=True)
        left = KEPT - (newest.stat().st_size if newest.exists() else 0)
        for status, file in files:
            left -= status.st_size
            if left < 0:
                file.unlink(missing_ok=True)

    def _kept(self, pair: Pair) -> Path:
        return self._folder / f"{pair[0]}-{pair[1]}.zst"

    def _useless(self, pair: Pair) -> Path:
        return self._folder / f"{pair[0]}-{pair[1]}.none"
