"""Carries an image of the operating system from its test to its end, over restarts of the board.

The next thing is written down before it is done. What an earlier boot has done is not believed but looked
at: which copy of the system runs is asked of the board's own updater each time.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec

from edge_agent.clock import Clock
from edge_agent.config import Os
from edge_agent.errors import UpdateBroken, UpdateError, UpdaterRefused
from edge_agent.updates.installers import SOON_S, Step
from edge_agent.updates.osimage import decision, record, tool
from edge_agent.updates.osimage.decision import Next
from edge_agent.updates.osimage.record import Handover, Phase
from edge_agent.updates.osimage.tool import NotNow
from edge_agent.updates.osimage.updater import Updater
from edge_agent.updates.probation import Verdict
from edge_agent.updates.records import Entry
from edge_agent.updates.store import Store
from fleet_protocol.messages import ClockState
from fleet_protocol.texts import _
from fleet_protocol.update_states import UpdateState

_LOG: Final = logging.getLogger(__name__)
_S = UpdateState

RESTART_S: Final = 600.0
"""A board that was told to restart and did not within this is told again."""

LIVED_S: Final = 60.0
"""An agent that ran for so long under the new system has lived."""

CONFIRMS: Final = 3
"""Times that a tool may refuse to confirm the new system before it is left."""

POLL_S: Final = 5.0
"""Between two questions to the board where nothing can be done but wait."""


class OsInstaller:
    """See :class:`edge_agent.updates.installers.Installer`."""

    def __init__(
        self,
        folder: Path,
        store: Store,
        updater: Updater,
        settings: Os,
        clock: Clock,
        *,
        probation_s: float,
        raised: Callable[[], Collection[str]],
    ) -> None:
        """Keep the record in ``folder``; ``raised`` tells the health codes of now."""
        self._folder: Final = folder
        self._store: Final = store
        self._updater: Final = updater
        self._settings: Final = settings
        self._clock: Final = clock
        self._probation_s: Final = probation_s
        self._raised: Final = raised
        self._task: asyncio.Task[Step] | None = None
        self._says = ""
        self._again_ms = 0.0
        self._restarted_ms: int | None = None
        self._watched_ms: int | None = None
        self._lived_ms = 0
        self._refused = 0

    async def step(self, entry: Entry) -> Step:
        """Go on; what takes long goes on by itself and is asked for again."""
        if self._task is None:
            if self._clock.mono_ms() < self._again_ms:
                return Step(None, entry.detail, spent_s=entry.spent_s)
            self._says = entry.detail
            self._task = asyncio.create_task(self._act(entry))
        await asyncio.wait({self._task}, timeout=SOON_S)
        if not self._task.done():
            return Step(None, self._says, spent_s=entry.spent_s)
        done, self._task = self._task.result(), None
        self._again_ms = self._clock.mono_ms() + POLL_S * 1000 if done.state is None else 0
        return done

    async def close(self) -> None:
        """End the tool that runs; the board keeps what it boots from."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, UpdateError):
                await task

    async def _act(self, entry: Entry) -> Step:
        try:
            match entry.state:
                case _S.TESTING:
                    return await self._test(entry)
                case _S.ACTIVATING:
                    return await self._activate(entry)
                case _S.PROBATION:
                    return await self._watch(entry)
                case _:
                    return await self._bring_back(entry)
        except UpdateError as error:
            # After a start of the board its tool may come up later than the agent; a full disk gets room.
            return Step(None, str(error), spent_s=entry.spent_s)

    async def _test(self, entry: Entry) -> Step:
        try:
            await self._updater.booted()
            await self._updater.examine(self._store.image(entry.target.sha256))
        except UpdaterRefused as error:
            return Step(_S.FAILED, str(error))
        except UpdateError as error:
            return Step(_S.FAILED, str(error), remember=False)
        return Step(_S.ACTIVATING)

    async def _activate(self, entry: Entry) -> Step:
        booted = await self._updater.booted()
        handover = self._known(entry) or await self._begun(entry, booted)
        match decision.judge_boot(handover, booted, self._clock.boot_id):
            case Next.INSTALL:
                return await self._install(entry, handover)
            case Next.RESTART:
                handover = self._with_codes(handover)
                hindrance = decision.hindrance(self._settings, handover.restarts, self._now())
                return await self._restart(handover, hindrance)
            case Next.FELL_BACK:
                return Step(_S.ROLLING_BACK, _("the board started and still runs what it ran before"))
            case Next.ARRIVED:
                return Step(_S.PROBATION)

    async def _begun(self, entry: Entry, booted: str) -> Handover:
        handover = Handover(
            sha256=entry.target.sha256,
            phase=Phase.INSTALLING,
            before=booted,
            boot=self._clock.boot_id,
            marks=dict(await self._updater.marks()),
            codes=tuple(sorted(self._raised())),
        )
        record.save(self._folder, handover)
        return handover

    def _with_codes(self, handover: Handover) -> Handover:
        """What came to ail the board while it waits for its restart is no fault of the new system either."""
        codes = tuple(sorted({*handover.codes, *self._raised()}))
        if codes != handover.codes:
            handover = msgspec.structs.replace(handover, codes=codes)
            record.save(self._folder, handover)
        return handover

    async def _install(self, entry: Entry, handover: Handover) -> Step:
        def told(line: str) -> None:
            self._says = line

        try:
            await self._updater.install(self._store.image(entry.target.sha256), told)
            installed = msgspec.structs.replace(
                handover, phase=Phase.INSTALLED, boot=self._clock.boot_id, restarts=0
            )
            record.save(self._folder, installed)
        except (NotNow, UpdateBroken):
            raise
        except UpdateError as error:
            return Step(_S.ROLLING_BACK, str(error))
        return Step(None, _("is installed"), lived=True)

    async def _restart(self, handover: Handover, hindrance: str) -> Step:
        """Restart the board, unless something is against it or it was just told."""
        now_ms = self._clock.mono_ms()
        if self._restarted_ms is not None and now_ms - self._restarted_ms < RESTART_S * 1000:
            return Step(None, self._says, lived=True)
        if hindrance:
            return Step(None, hindrance, lived=True)
        self._restarted_ms = now_ms
        # Counted before it is done: what restarts again and again must come to an end.
        record.save(self._folder, msgspec.structs.replace(handover, restarts=handover.restarts + 1))
        _LOG.warning(_("the board is restarted for its operating system"))
        ran = await tool.run(self._settings.restart_command)
        if ran.status == 0:
            self._says = _("the board is told to restart")
        else:
            self._says = _("the board cannot be restarted: {words}").format(words=ran.words)
        return Step(None, self._says, lived=True)

    async def _watch(self, entry: Entry) -> Step:
        handover = self._known(entry)
        if handover is None:
            return Step(_S.ROLLING_BACK, _("the record of the image is gone; the bootloader decides"))
        spent_s, lived = self._spent(entry)
        try:
            booted = await self._updater.booted()
            verdict, reason = decision.judge_health(
                self._raised(), handover.codes, spent_s, self._probation_s
            )
        except UpdateError as error:
            booted = ""
            verdict, reason = decision.lasting(str(error), spent_s, self._probation_s)
        if booted == handover.before:
            return Step(_S.ROLLING_BACK, _("the board left the new system by itself"))
        match verdict:
            case Verdict.WAIT:
                return Step(None, reason, spent_s=spent_s, lived=lived)
            case Verdict.FAILED:
                return Step(_S.ROLLING_BACK, reason)
        return await self._confirm(spent_s)

    async def _confirm(self, spent_s: float) -> Step:
        try:
            await self._updater.confirm()
        except UpdateError as error:
            self._refused += 1
            state = _S.ROLLING_BACK if self._refused >= CONFIRMS else None
            return Step(state, str(error), spent_s=spent_s)
        return Step(_S.COMMITTED)

    def _spent(self, entry: Entry) -> tuple[float, bool]:
        """The seconds of probation so far, and whether so many of them passed that the agent has lived."""
        now_ms = self._clock.mono_ms()
        if self._watched_ms is None:
            self._watched_ms = self._lived_ms = now_ms
        spent_s = entry.spent_s + (now_ms - self._watched_ms) / 1000
        self._watched_ms = now_ms
        lived = now_ms - self._lived_ms >= LIVED_S * 1000
        if lived:
            self._lived_ms = now_ms
        return spent_s, lived

    async def _bring_back(self, entry: Entry) -> Step:
        """Have the copy of before started next; restart the board into it where another one runs."""
        handover = self._known(entry)
        if handover is None:
            return Step(_S.ROLLED_BACK, entry.detail)
        try:
            booted = await self._updater.booted()
            handover = await self._left(entry, handover)
        except UpdateError as error:
            _LOG.warning("%s", error)
            return Step(None, f"{handover.reason or entry.detail}; {error}")
        if booted == handover.before:
            return Step(_S.ROLLED_BACK, handover.reason)
        step = await self._restart(handover, self._hindrance_to_leave(handover))
        return replace(step, detail=f"{handover.reason}; {step.detail}")

    async def _left(self, entry: Entry, handover: Handover) -> Handover:
        """Written down, then said to the bootloader; once in every boot."""
        boot = self._clock.boot_id
        if handover.phase is not Phase.LEAVING:
            handover = msgspec.structs.replace(
                handover, phase=Phase.LEAVING, restarts=0, boot="", reason=entry.detail
            )
            record.save(self._folder, handover)
            self._restarted_ms = None
        if handover.boot != boot:
            await self._updater.leave(handover.before, handover.marks)
            handover = msgspec.structs.replace(handover, boot=boot)
            record.save(self._folder, handover)
        return handover

    def _hindrance_to_leave(self, handover: Handover) -> str:
        """Who lets the agent restart the board for a new system lets it go back from there, at any hour."""
        if self._settings.restart == "window" and handover.restarts < decision.RESTARTS:
            return ""
        return decision.hindrance(self._settings, handover.restarts, self._now())

    def _known(self, entry: Entry) -> Handover | None:
        handover = record.load(self._folder)
        return handover if handover and handover.sha256 == entry.target.sha256 else None

    def _now(self) -> datetime | None:
        if self._clock.state() is not ClockState.TRUSTED:
            return None
        return datetime.fromtimestamp(self._clock.wall_ms() / 1000).astimezone()
