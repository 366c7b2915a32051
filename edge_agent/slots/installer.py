"""The update of the agent's own software, state by state.

Activating writes the launcher's record and has the agent stop; the launcher starts the new version, in
which this goes on. Whichever version runs reads the same record and the same journal, and so knows
what has become of the switch.
"""

import asyncio
import contextlib
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge_agent.errors import UpdateBroken, UpdateError, UpdateFailed, UpdateRefused
from edge_agent.slots import children
from edge_agent.slots.build import described
from edge_agent.slots.room import Room
from edge_agent.slots.signs import Signs
from edge_agent.telemetry.spool import SCHEMA_VERSION
from edge_agent.updates.executor import Executor
from edge_agent.updates.installers import SOON_S, Step
from edge_agent.updates.records import Entry
from edge_agent.updates.store import Store
from fleet_protocol.agent_build import Health
from fleet_protocol.errors import ManifestError
from fleet_protocol.targets import Kind, Target
from fleet_protocol.texts import _
from fleet_protocol.update_states import UpdateState

_S = UpdateState


@dataclass(frozen=True, slots=True)
class Launched:
    """How the launcher started this agent: its configuration, and the packages of the base installation."""

    config: Path
    fitted: Path


class NotLaunched:
    """Stands in where no launcher could start a new version: it waits for one, and says so."""

    async def step(self, entry: Entry) -> Step:
        """See :class:`~edge_agent.updates.installers.Installer`."""
        detail = _("waits for an agent that was started with 'edge-agent launch'")
        return Step(None, detail, lived=entry.attempts > 1)

    async def close(self) -> None:
        """Nothing is under way."""


class AgentInstaller:
    """Updates of the software of which this process is one version.

    ``leave`` stops this process in an orderly way, to be started anew.
    """

    def __init__(
        self, room: Room, store: Store, launched: Launched, signs: Signs, leave: Callable[[], None]
    ) -> None:
        self._room: Final = room
        self._store: Final = store
        self._launched: Final = launched
        self._signs: Final = signs
        self._leave: Final = leave
        self._running: Final = room.slot_of(sys.prefix)
        self._began_s: Final = time.monotonic()
        self._seen: frozenset[str] = frozenset()
        self._testing: asyncio.Task[Step] | None = None

    async def step(self, entry: Entry) -> Step:
        """See :class:`~edge_agent.updates.installers.Installer`."""
        try:
            match entry.state:
                case _S.TESTING:
                    return await self._test_beside(entry.target)
                case _S.ACTIVATING:
                    return self._activate(entry.target)
                case _S.PROBATION:
                    return await self._watch(entry)
                case _:
                    return await self._roll_back(entry)
        except UpdateError as error:
            # The record cannot be read or written now; what runs goes on, and the launcher minds the time.
            return Step(None, str(error))

    async def close(self) -> None:
        """End the test that is under way."""
        task, self._testing = self._testing, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, UpdateError):
                await task

    def account(self, executor: Executor) -> None:
        """Write down what was installed and does not run any more: the launcher gave it up."""
        for slot in executor.installed.slots:
            target = slot.current
            if slot.kind is not Kind.AGENT or target is None or target.sha256 == self._running:
                continue
            if target.key not in executor.busy:
                standing = self._room.record()
                executor.lost(target, standing.reason, blamed=standing.failed == target.sha256)

    async def _test_beside(self, target: Target) -> Step:
        """Test beside what else the executor does: a slow card takes minutes for a slot."""
        if self._testing is None:
            self._testing = asyncio.create_task(self._test(target))
        await asyncio.wait({self._testing}, timeout=SOON_S)
        if not self._testing.done():
            return Step(None)
        task, self._testing = self._testing, None
        return task.result()

    async def _test(self, target: Target) -> Step:
        """Build the slot, and have the new version try itself."""
        try:
            await self._room.add(target, self._store.build(target.sha256))
            await self._try(target)
        except (UpdateRefused, UpdateFailed) as error:
            await asyncio.to_thread(self._room.sweep)
            return Step(_S.FAILED, str(error))
        except UpdateBroken as error:
            return Step(_S.FAILED, str(error), remember=False)
        return Step(_S.ACTIVATING)

    async def _try(self, target: Target) -> None:
        """What is wrong here anyway is not held against the new version.

        Raises:
            UpdateFailed: it finds fault, or could not give way to this one again.
        """
        new = await children.findings(self._room.python(target.sha256), self._launched.config)
        if new.spool_schema != SCHEMA_VERSION:
            raise UpdateFailed(
                _(
                    "it writes the spool in schema {new}; this one reads {own} alone and could not come back"
                ).format(new=new.spool_schema, own=SCHEMA_VERSION)
            )
        if new.problems:
            own = await children.findings(sys.executable, self._launched.config)
            if worse := [problem for problem in new.problems if problem not in own.problems]:
                raise UpdateFailed("; ".join(worse))

    def _activate(self, target: Target) -> Step:
        standing = self._room.record()
        if self._running == target.sha256:
            return Step(_S.PROBATION)
        if standing.failed == target.sha256:
            return Step(_S.ROLLING_BACK, standing.reason)
        if standing.current != target.sha256:
            deadline_s = self._health(target).deadline_s
            expected = tuple(sorted(self._signs.shown()))
            self._room.write(standing.switched(target.sha256, deadline_s, expected))
        self._leave()
        return Step(None, _("the agent starts anew"))

    async def _watch(self, entry: Entry) -> Step:
        """Commit once it has shown what the version before had; the launcher minds the time."""
        target, standing = entry.target, self._room.record()
        if self._running != target.sha256:
            return Step(_S.ROLLING_BACK, standing.reason)
        await self._signs.settle()
        self._seen |= self._signs.shown()
        spent_s = time.monotonic() - self._began_s
        if faults := self._signs.faults():
            return Step(None, "; ".join(faults), spent_s=spent_s)
        if missing := [sign for sign in standing.expected if sign not in self._seen]:
            detail = _("still without: {signs}").format(signs=", ".join(missing))
            return Step(None, detail, spent_s=spent_s)
        if spent_s < self._health(target).least_s:
            return Step(None, spent_s=spent_s, lived=entry.attempts > 1)
        if standing.trying:
            self._room.write(standing.committed())
        # Thousands of small files: a card takes seconds for them, and the sensors are read meanwhile.
        await asyncio.to_thread(self._room.sweep)
        return Step(_S.COMMITTED)

    async def _roll_back(self, entry: Entry) -> Step:
        """Back to what ran before: by way of the launcher where this process is what is given up."""
        standing, sha256 = self._room.record(), entry.target.sha256
        if standing.current == sha256:
            standing = standing.fallen(entry.detail)
            self._room.write(standing)
        if self._running == sha256:
            self._leave()
            return Step(None, entry.detail)
        await asyncio.to_thread(self._room.sweep)
        return Step(_S.ROLLED_BACK, standing.reason if standing.failed == sha256 else entry.detail)

    def _health(self, target: Target) -> Health:
        try:
            return described(self._room.place(target.sha256)).health
        except ManifestError as error:
            raise UpdateFailed(str(error)) from error
