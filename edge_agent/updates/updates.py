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

from edge_agent.backoff import FullJitter
from edge_agent.clock import Clock
from edge_agent.config import Config
from edge_agent.config import Updates as Settings
from edge_agent.errors import UpdateBroken, UpdateError, UpdateRefused, UpdateUnfit, UpdateUnreachable
from edge_agent.service.health import HealthBoard, as_line
from edge_agent.updates.asking import ask
from edge_agent.updates.executor import Executor, Runner
from edge_agent.updates.planner import Key
from edge_agent.updates.records import Entry, Looked, Refusing
from edge_agent.updates.spoken import (
    Accepted,
    Ask,
    Broken,
    Done,
    Progress,
    Refused,
    Said,
    Unreachable,
    Waiting,
)
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
        self._sooner: Final = asyncio.Event()
        self._moving: Final = asyncio.Event()
        self._one_at_a_time: Final = asyncio.Lock()
        self._progress: dict[Key, int] = {}
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
                await self._look(self._question(url=self._settings.url))
            except UpdateUnreachable:
                await self._rest(min(backoff.next_s(), interval))
            except UpdateError as error:
                _LOG.warning("%s", error)
                await self._rest(interval)
            else:
                backoff.reset()
                await self._rest(interval * random.uniform(1 - _SPREAD, 1 + _SPREAD))  # noqa: S311

    async def work(self, runner: ReadyRunner) -> None:
        """Carry accepted updates out."""
        await runner.ready.wait()
        executor = self._require()
        executor.resume()
        try:
            while True:
                self._moving.clear()
                moved = await executor.advance(runner)
                if not moved:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(_TICK_S if executor.busy else None):
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

        Raises:
            UpdateRefused: the bundle must not be believed.
            UpdateUnreachable: it cannot be read.
            UpdateBroken: the device's own files are in the way.
            UpdateUnfit: another update has to come to its end first.
        """
        heard = await self._look(self._question(bundle=str(path)))
        if heard.waiting:
            raise UpdateUnfit(
                _("{names}: an update is under way and has to prove itself first; try again after it").format(
                    names=", ".join(target.description.name for target in heard.waiting)
                )
            )
        return self.reports()

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

    async def _look(self, asked: Ask) -> "Heard":
        async with self._one_at_a_time:
            executor = self._require()
            heard = Heard(executor, self._progress, self._health.changed.set)
            try:
                await ask(asked, heard.hear)
            finally:
                self._moving.set()
        self._conclude(executor, heard, of_server=not asked.bundle)
        return heard

    def _conclude(self, executor: Executor, heard: "Heard", *, of_server: bool) -> None:
        """Write down and tell what came of a look; what a stick brings says nothing of the server."""
        if heard.problem and not (heard.done or heard.refused):
            # Who was found forging and now says nothing is no better for it.
            heard.refused = list(executor.journal.looked.refused)
        executor.looked(
            Looked(wall_ms=self._clock.wall_ms(), refused=tuple(heard.refused), problem=heard.problem)
        )
        for entry in heard.dropped:
            self._clear_codes(entry.target)
        self._health.changed.set()
        self._tell_refused(heard.refused)
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

    def _tell(self, entry: Entry) -> None:
        """A new state: report it, raise or clear its code, and where it is an end, tell it as an event."""
        self._progress.pop(entry.target.key, None)
        self._raise_codes(entry)
        self._health.changed.set()
        self._moving.set()
        if entry.state in _EVENTS:
            name, severity = _EVENTS[entry.state]
            if entry.refusal is not None:
                name = _REFUSED_EVENT
            detail = f" ({entry.refusal or ''} {entry.detail})" if entry.refusal or entry.detail else ""
            text = f"{entry.target.path} {entry.target.description.version}{detail}"
            if self._emitted.get(entry.target.key) != text:
                self._emit(name, severity, text, {"release": float(entry.target.description.release)})
            self._emitted[entry.target.key] = text
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
        return report(executor, entry, self._progress.get(entry.target.key, 0))


class Heard:
    """What a look says, handed on to the executor as it comes."""

    def __init__(self, executor: Executor, progress: dict[Key, int], changed: Callable[[], None]) -> None:
        self._executor: Final = executor
        self._progress: Final = progress
        self._changed: Final = changed
        self.refused: list[Refusing] = []
        self.dropped: list[Entry] = []
        self.waiting: list[Target] = []
        self.unreachable = ""
        self.broken = ""
        self.done = False

    @property
    def problem(self) -> str:
        """Why the look was not whole."""
        return self.broken or self.unreachable

    def hear(self, said: Said) -> None:
        """Take one line.

        Raises:
            UpdateBroken: it cannot be written down.
        """
        match said:
            case Progress(target, done):
                self._executor.begin(target)
                self._progress[target.key] = done
                self._changed()
            case Accepted(target):
                self._executor.accept(target)
            case Waiting(target):
                entry = self._executor.journal.entry(target.key)
                if entry is None or entry.target != target:
                    self.waiting.append(target)
            case Refused(refusal, scope, detail, None):
                self.refused.append(Refusing(scope, refusal, detail))
            case Refused(refusal, _scope, detail, target) if target is not None:
                self._executor.refuse(target, refusal, detail)
            case Unreachable(detail):
                self.unreachable = detail
            case Broken(detail):
                self.broken = detail
            case Done(ordered):
                self.done = True
                self.dropped = self._executor.settle(ordered)


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
    )


def folder_of(config: Config) -> Path:
    """Where everything of updates lies."""
    return config.data / "updates"


def report(executor: Executor, entry: Entry, done: int) -> UpdateReport:
    """``entry`` as it is reported."""
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
        installed=current.description.release if current else 0,
        done=done if loading else 0,
        size=entry.target.length if loading else 0,
        refusal=entry.refusal.value if entry.refusal else "",
        detail=entry.detail,
    )


def _subject(target: Target) -> str:
    """The same for every release, so that a better one takes back what was said of a worse."""
    return f"{target.description.kind} {target.description.name}"
