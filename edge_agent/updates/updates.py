"""The agent's update task: looks when it is time, when it is hinted at, or when a stick is put in.

A look is asked of the child; what it accepts is handed to the executor, what it refuses becomes a
report and a health code. A hint only makes the next look come sooner.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final, Protocol

import msgspec

from edge_agent.backoff import FullJitter
from edge_agent.clock import Clock
from edge_agent.config import Config
from edge_agent.config import Updates as Settings
from edge_agent.errors import UpdateBroken, UpdateError, UpdateRefused, UpdateUnfit, UpdateUnreachable
from edge_agent.service.health import HealthBoard, as_line
from edge_agent.updates import canceling, receipts
from edge_agent.updates.asking import ask
from edge_agent.updates.attesting import said_by, signed
from edge_agent.updates.executor import Executor
from edge_agent.updates.hearing import Heard
from edge_agent.updates.ledger import DOWNLOADS, Budget
from edge_agent.updates.loading import Loading
from edge_agent.updates.planner import Key
from edge_agent.updates.records import Entry, Journal, Looked, Refusing
from edge_agent.updates.running import Runner
from edge_agent.updates.spoken import (
    Ask,
    Progress,
)
from fleet_protocol.delivery import Delivery
from fleet_protocol.messages import ClockState, Event, Severity, UpdateReport
from fleet_protocol.targets import Target
from fleet_protocol.texts import _
from fleet_protocol.update_states import UpdateState

_LOG: Final = logging.getLogger(__name__)

FIRST_LOOK_S: Final = 30.0
"""The first look comes within this, spread: a district whose power returns starts at one moment."""

_HINT_SPREAD_S: Final = 1.0
_LEAST_PAUSE_S: Final = 2.0
"""Between two looks."""

_SPREAD: Final = 0.1
"""By how much of the interval looks are spread."""

_TICK_S: Final = 1.0
"""How often a probation is looked after."""

_EVENTS: Final[Mapping[UpdateState, tuple[str, Severity]]] = {
    UpdateState.COMMITTED: ("update_committed", Severity.INFO),
    UpdateState.ROLLED_BACK: ("update_rolled_back", Severity.WARNING),
    UpdateState.FAILED: ("update_failed", Severity.WARNING),
}
_REFUSED_EVENT: Final = "update_refused"
_SPENT_EVENT: Final = "update_given_up"


class ReadyRunner(Runner, Protocol):
    """The models, which open while the agent already runs."""

    @property
    def ready(self) -> asyncio.Event:
        """Set once they are open."""


class Updates:
    """Updates of one agent; ``watch`` and ``work`` are its two tasks."""

    def __init__(self, config: Config, settings: Settings, clock: Clock, health: HealthBoard) -> None:
        self._config: Final = config
        self._settings: Final = settings
        self._clock: Final = clock
        self._health: Final = health
        self._executor: Executor | None = None
        self.news: Final = asyncio.Event()
        """Set after every look and every end of an update: there is something to report."""
        self._sooner: Final = asyncio.Event()
        self._moving: Final = asyncio.Event()
        self._one_at_a_time: Final = asyncio.Lock()
        self._loading: Final = Loading(settings.poll_interval_s)
        self._spent: set[str] = set()
        self._hinted = -1
        self._scopes: set[str] = set()
        self._emitted: dict[Key, str] = {}
        self._events: asyncio.Queue[Event] = asyncio.Queue(100)

    def take(self, executor: Executor) -> None:
        """Work with ``executor``, and raise again what it remembers."""
        self._executor = executor
        executor.told = self._tell
        for entry in executor.journal.entries:
            self._raise_codes(entry)
        for refused in executor.journal.looked.refused:
            self._scopes.add(refused.scope)
            self._health.raise_code(UpdateRefused.code, refused.detail, subject=refused.scope)

    @property
    def executor(self) -> Executor:
        """What carries updates out.

        Raises:
            UpdateBroken: the record of updates is not open yet.
        """
        return self._require()

    def hint(self, version: int) -> None:
        """Somebody says that there is something new; looked at soon, believed never."""
        if version != self._hinted:
            self._hinted = version
            self._sooner.set()

    def reports(self) -> list[UpdateReport]:
        """Where the last update of every artifact stands, but for what failed and was taken back.

        A rollout that offers such a one again must not take the old failure for a new one.
        """
        executor = self._executor
        if executor is None:
            return []
        return [self._report(executor, each) for each in executor.journal.entries if not each.withdrawn]

    async def watch(self) -> None:
        """Look again and again."""
        backoff = FullJitter(_LEAST_PAUSE_S, self._settings.retry_cap_s)
        interval = self._settings.poll_interval_s
        await self._pause(random.uniform(0.0, min(interval, FIRST_LOOK_S)))  # noqa: S311 - spreads load
        while True:
            try:
                heard = await self._look(self._question(url=self._settings.url))
            except UpdateUnreachable:
                await self._rest(min(backoff.next_s(), interval))
            except UpdateError as error:
                _LOG.warning("%s", error)
                await self._rest(interval)
            else:
                backoff.reset()
                pause_s = interval * random.uniform(1 - _SPREAD, 1 + _SPREAD)  # noqa: S311
                await self._rest(min(pause_s, self._loading.again_s) if heard.is_whole else 0.0)

    async def work(self, runner: ReadyRunner) -> None:
        """Carry accepted updates out."""
        await runner.ready.wait()
        executor = self._require()
        executor.resume()
        try:
            while True:
                self._moving.clear()
                moved = await executor.advance(runner)
                if moved:
                    self._health.changed.set()
                else:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(_TICK_S if executor.is_watching else None):
                            await self._moving.wait()
        finally:
            runner.forget()
            for installer in executor.installers.values():
                await installer.close()

    async def events(self, record: Callable[[Event], Awaitable[None]]) -> None:
        """Hand on what happens to updates, as events."""
        while True:
            await record(await self._events.get())

    async def apply(self, path: Path) -> list[UpdateReport]:
        """Look into the bundle at ``path``; what it brings is under way when this returns.

        Which receipt it asks for is remembered before anything of it is judged: that it was refused is
        worth a receipt too.

        Raises:
            UpdateRefused: the bundle must not be believed.
            UpdateUnreachable: it cannot be read.
            UpdateBroken: the device's own files are in the way.
            UpdateUnfit: another update has to come to its end first.
        """
        wall_ms = self._clock.wall_ms()
        await asyncio.to_thread(
            receipts.remember, folder_of(self._config), path, self._config.device, wall_ms
        )
        with self._loading.urgent():
            heard = await self._look(self._question(bundle=str(path)))
        if heard.waiting:
            raise UpdateUnfit(
                _("{names}: an update is under way and has to prove itself first; try again after it").format(
                    names=", ".join(target.description.name for target in heard.waiting)
                )
            )
        return self.reports()

    async def cancel(self) -> list[Target]:
        """Stop what is being fetched, until somebody resumes it or it is not ordered any more.

        Raises:
            UpdateBroken: it cannot be written down.
        """
        return await self._mark(canceling.cancel)

    async def resume(self) -> list[Target]:
        """Let what was canceled go on; raises as :meth:`cancel`."""
        return await self._mark(canceling.resume)

    async def _mark(self, mark: Callable[[Path, Journal], list[Target]]) -> list[Target]:
        journal = self._require().journal
        with self._loading.urgent():
            async with self._one_at_a_time:
                marked = mark(folder_of(self._config) / DOWNLOADS, journal)
        self._sooner.set()
        return marked

    async def receipt(self) -> dict[str, object]:
        """The signed receipt that the last bundle asked for, and whether an update is still under way.

        Raises:
            UpdateBroken: no bundle has asked for one.
            IdentityError: key or certificate cannot be used.
        """
        executor = self._require()
        nonce = receipts.wanted(executor.folder)
        said = said_by(self._config, self._clock, executor, self.reports(), nonce)
        return {
            "receipt": await asyncio.to_thread(signed, self._config, said),
            "settled": said.is_settled,
        }

    def _require(self) -> Executor:
        if self._executor is None:
            raise UpdateBroken(_("the record of updates is not open yet; try again in a moment"))
        return self._executor

    async def _rest(self, seconds: float) -> None:
        """Between two looks; never less than a little, whatever is hinted, and however often."""
        await asyncio.sleep(min(_LEAST_PAUSE_S, self._settings.poll_interval_s))
        await self._pause(seconds)

    async def _pause(self, seconds: float) -> None:
        """Wait, but not longer than until something asks for a look, be it during the last one."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._sooner.wait()
                self._sooner.clear()
                await asyncio.sleep(random.uniform(0.0, _HINT_SPREAD_S))  # noqa: S311 - spreads load

    def _question(self, url: str = "", bundle: str = "") -> Ask:
        return question(self._config, self._settings, self._clock, self._require(), url=url, bundle=bundle)

    async def _look(self, asked: Ask) -> Heard:
        async with self._one_at_a_time:
            executor = self._require()
            heard = Heard(executor, self._loading, self._health.changed.set)
            look = ask(asked, heard.hear)
            try:
                if asked.bundle:
                    await look
                else:
                    heard.is_whole = await self._loading.whole(look, self._sooner.is_set)
            finally:
                self._moving.set()
            if heard.done:
                executor.tidy()
        if heard.is_whole:
            self._conclude(executor, heard, of_server=not asked.bundle)
        return heard

    def _conclude(self, executor: Executor, heard: Heard, *, of_server: bool) -> None:
        """Write down and tell what came of a look; what a stick brings says nothing of the server."""
        if heard.problem and not (heard.done or heard.refused):
            # Who was found forging and now says nothing is no better for it.
            heard.refused = list(executor.journal.looked.refused)
        executor.looked(
            Looked(
                wall_ms=self._clock.wall_ms(),
                refused=tuple(heard.refused),
                problem=heard.problem,
                ordered=tuple(heard.orders) if heard.done else executor.journal.looked.ordered,
            )
        )
        for entry in heard.dropped:
            self._clear_codes(entry.target)
            self._loading.end(entry.target.key)
        if heard.dropped and heard.waiting:
            self._sooner.set()  # what it waited for was a shadow that is ended by this very look
        self.news.set()
        self._health.changed.set()
        self._tell_refused(heard.refused)
        self._tell_spent()
        if heard.unreachable:
            if of_server:
                self._health.raise_code(UpdateUnreachable.code, heard.unreachable)
            raise UpdateUnreachable(heard.unreachable)
        if of_server:
            self._health.clear(UpdateUnreachable.code)
        if heard.broken:
            self._health.raise_code(UpdateBroken.code, heard.broken, subject="updates")
            raise UpdateBroken(heard.broken)
        self._health.clear(UpdateBroken.code, subject="updates")
        if heard.refused and not heard.done:
            first = heard.refused[0]
            raise UpdateRefused(first.refusal, first.scope, first.detail)

    def _tell_refused(self, refused: list[Refusing]) -> None:
        """Raise what the last look refused as a whole, and take back what an earlier one did."""
        now = {each.scope: each for each in refused}
        before = self._scopes
        for scope in before - now.keys():
            self._health.clear(UpdateRefused.code, subject=scope)
        for scope, each in now.items():
            self._health.raise_code(UpdateRefused.code, f"{each.refusal}: {each.detail}", subject=scope)
            if scope not in before:
                self._emit(_REFUSED_EVENT, Severity.WARNING, f"{scope}: {each.refusal}: {each.detail}", {})
        self._scopes = set(now)

    def _tell_spent(self) -> None:
        """Raise what the line has spent its budget on, and take back what it may be spent on again."""
        now = {_subject(held.target): held for held in self._loading.spent}
        for subject in self._spent - now.keys():
            self._health.clear(UpdateUnreachable.code, subject=subject)
        for subject, held in now.items():
            self._health.raise_code(UpdateUnreachable.code, as_line(held.detail), subject=subject)
            if subject not in self._spent:
                self._emit(_SPENT_EVENT, Severity.WARNING, f"{held.target.path}: {held.detail}", {})
        self._spent = set(now)

    def _tell(self, entry: Entry) -> None:
        """A new state: report it, raise or clear its code, and where it is an end, tell it as an event."""
        if entry.state is not UpdateState.DOWNLOADING:
            self._loading.end(entry.target.key)
        self._raise_codes(entry)
        self._health.changed.set()
        self._moving.set()
        if entry.state in _EVENTS:
            name, severity = _EVENTS[entry.state]
            if entry.refusal is not None:
                name = _REFUSED_EVENT
            detail = f" ({entry.refusal or ''} {entry.detail})" if entry.refusal or entry.detail else ""
            place = _(" in shadow") if entry.target.in_shadow else ""
            text = f"{entry.target.path} {entry.target.description.version}{place}{detail}"
            if self._emitted.get(entry.target.key) != text:
                self._emit(name, severity, text, {"release": float(entry.target.description.release)})
            self._emitted[entry.target.key] = text
        if entry.is_over:
            self.news.set()
        if entry.state in {UpdateState.COMMITTED, UpdateState.ROLLED_BACK}:
            self._sooner.set()  # something else may have waited for this

    def _emit(self, name: str, severity: Severity, text: str, values: dict[str, float]) -> None:
        with contextlib.suppress(asyncio.QueueFull):
            self._events.put_nowait(Event(0, name, severity, as_line(text), "updates", values))

    def _raise_codes(self, entry: Entry) -> None:
        subject = _subject(entry.target)
        self._clear_codes(entry.target)
        if entry.withdrawn:
            return
        if entry.state is UpdateState.FAILED and entry.refusal is not None:
            self._health.raise_code(UpdateRefused.code, f"{entry.refusal}: {entry.detail}", subject=subject)
        elif entry.state in {UpdateState.FAILED, UpdateState.ROLLED_BACK}:
            self._health.raise_code(UpdateBroken.code, entry.detail, subject=subject)

    def _clear_codes(self, target: Target) -> None:
        for code in (UpdateRefused.code, UpdateBroken.code):
            self._health.clear(code, subject=_subject(target))

    def _report(self, executor: Executor, entry: Entry) -> UpdateReport:
        told = report(executor, entry, self._loading.progress(entry.target.key))
        if entry.state is not UpdateState.DOWNLOADING:
            return told
        return msgspec.structs.replace(told, detail=as_line(self._loading.reason(entry.target.key)))


def question(
    config: Config, settings: Settings, clock: Clock, executor: Executor, *, url: str = "", bundle: str = ""
) -> Ask:
    """What to ask a look on behalf of ``config``'s device, as things stand."""
    trusted = clock.state() is ClockState.TRUSTED
    return Ask(
        device=config.device,
        folder=str(folder_of(config)),
        image_root=str(settings.image_root),
        director_root=str(settings.director_root),
        url=url,
        ca=str(config.broker.ca),
        server=config.server_url or "",
        certificate=str(config.broker.certificate),
        key=str(config.broker.key),
        bundle=bundle,
        now_ms=clock.wall_ms() if trusted else 0,
        check_dates=trusted,
        profile=config.profile,
        having=[
            (slot.kind, slot.name, slot.current.sha256) for slot in executor.installed.slots if slot.current
        ],
        busy=executor.busy,
        failed=[(each.kind, each.name, each.sha256) for each in executor.installed.failed],
        bases=[
            (slot.kind, slot.name, target.sha256)
            for slot in executor.installed.slots
            for target in (slot.current, slot.previous)
            if target
        ],
        terms=Delivery(max_kib_per_s=settings.max_kib_per_s, windows=settings.windows),
        time_zone=settings.time_zone,
        budget=Budget(settings.budget_times, settings.budget_s, settings.budget_period_s),
        delta_mib=settings.delta_memory_mib,
    )


def folder_of(config: Config) -> Path:
    """Where everything of updates lies."""
    return config.data / "updates"


def report(executor: Executor, entry: Entry, progress: Progress | None) -> UpdateReport:
    """``entry`` as it is reported; ``progress`` where it is being fetched."""
    described = entry.target.description
    current = executor.installed.slot(entry.target.key).current
    loading = entry.state is UpdateState.DOWNLOADING
    return UpdateReport(
        kind=described.kind.value,
        name=described.name,
        release=described.release,
        version=described.version,
        state=entry.state.value,
        since_wall_ms=entry.since_wall_ms,
        mode=described.mode.value,
        installed=current.description.release if current else 0,
        done=progress.done if loading and progress else 0,
        size=(progress.size if progress else entry.target.length) if loading else 0,
        fetched=progress.fetched if loading and progress else 0,
        refusal=entry.refusal.value if entry.refusal else "",
        detail=entry.detail,
    )


def _subject(target: Target) -> str:
    """The same for every release, so that a better one takes back what was said of a worse."""
    place = _(" in shadow") if target.in_shadow else ""
    return f"{target.description.kind} {target.description.name}{place}"
