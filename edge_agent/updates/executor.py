"""Carries updates through their states: the next state is on the disk before its act begins.

Every act can be done again: after a power cut the journal says which one was under way, and it is
begun anew. ``installed.json`` is the one switch between old and new; it is replaced whole, so the
device comes back with one of the two. What is begun too often without an end is given up.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from msgspec.structs import replace

from edge_agent.clock import Clock
from edge_agent.errors import InferenceError, UpdateBroken, UpdateRefused, UpdateUnfit
from edge_agent.lineup import Choice
from edge_agent.pipeline.vitals import Vitals
from edge_agent.service.health import as_line
from edge_agent.updates import history, records
from edge_agent.updates.installers import Installer
from edge_agent.updates.planner import Key
from edge_agent.updates.probation import Verdict, judge
from edge_agent.updates.records import Entry, History, Installed, Journal, Looked
from edge_agent.updates.running import Runner
from edge_agent.updates.store import Store
from fleet_protocol.messages import ClockState
from fleet_protocol.targets import Kind, Refusal, Target
from fleet_protocol.texts import _
from fleet_protocol.update_states import FINAL, UpdateState, may_follow

_LOG: Final = logging.getLogger(__name__)

ATTEMPTS: Final = 3
"""Begun so often without coming to an end, an act is what ends the agent; it is not begun again."""

REASONS: Final = 16
"""Failures that are still told though nobody orders them any more: who asks why comes after a rollout
has taken back what failed."""

_S = UpdateState
_SWITCHING: Final = frozenset({_S.ACTIVATING, _S.PROBATION, _S.ROLLING_BACK})
_RUN: Final = frozenset({Kind.MODEL, Kind.POLICY})
"""Kinds that the runner runs from where they are stored."""

_STORING: Final = frozenset({_S.VERIFIED, _S.STAGED})
_RESTING: Final = frozenset({_S.IDLE, _S.DOWNLOADING})
"""States in which the executor has nothing to do: a look moves them on."""


@dataclass(frozen=True, slots=True)
class Terms:
    """The terms of probation: seconds and answers, both of them."""

    least_s: float
    least_windows: int


class Executor:
    """The updates of one device. One caller at a time advances it."""

    def __init__(
        self,
        folder: Path,
        store: Store,
        clock: Clock,
        terms: Terms,
        metrics: frozenset[str],
    ) -> None:
        """Read what was written down.

        Raises:
            UpdateBroken: what cannot be read cannot be set aside either.
        """
        self.folder: Final = folder
        self._store: Final = store
        self._clock: Final = clock
        self._terms: Final = terms
        self._metrics: Final = metrics
        self.journal = records.load(folder, Journal)
        self.installed = records.load(folder, Installed)
        self.installers: Mapping[Kind, Installer] = {}
        """What carries artifacts on that no model runs; without one they wait."""
        self.history = records.load(folder, History)
        self.told: Callable[[Entry], None] = lambda _entry: None
        """Is told every new state."""
        self._watched: dict[Key, int] = {}
        """Probations of this process, each with the monotonic ms of the last look."""

    @property
    def is_watching(self) -> bool:
        """Whether something has to be looked after though nobody asks."""
        return bool(self.busy or self._in_shadow())

    @property
    def busy(self) -> list[Key]:
        """What has an update under way beyond its download."""
        return [
            entry.target.key
            for entry in self.journal.entries
            if not entry.is_over and entry.state not in _RESTING
        ]

    def begin(self, target: Target) -> None:
        """The download of ``target`` has begun."""
        entry = self.journal.entry(target.key)
        if entry is None or (entry.is_over or entry.target != target):
            self._enter(target, _S.DOWNLOADING)

    def accept(self, target: Target) -> None:
        """``target`` is downloaded and verified; from here on it takes its course."""
        self.begin(target)
        entry = self.journal.entry(target.key)
        if entry is not None and entry.state is _S.DOWNLOADING:
            self._move(entry, _S.VERIFIED)

    def refuse(self, target: Target, refusal: Refusal, detail: str) -> None:
        """``target`` must not be accepted. Told once, not with every look."""
        entry = self.journal.entry(target.key)
        if entry is not None and entry.target == target and entry.is_over:
            if entry.state is _S.ROLLED_BACK and entry.refusal is None:
                self._tell(replace(entry, refusal=refusal))
                return
            again = entry.refusal is refusal or refusal is Refusal.FAILED_HERE
            if again and entry.state in {_S.FAILED, _S.ROLLED_BACK}:
                if entry.withdrawn:
                    self._tell(replace(entry, withdrawn=False))
                return
        if target.key not in self.busy:
            self._enter(target, _S.FAILED, refusal=refusal, detail=as_line(detail))

    def settle(self, ordered: Iterable[tuple[Kind, str, str]]) -> list[Entry]:
        """Drop what was refused, failed or begun and is not ordered any more; what was dropped.

        Of what failed the last few reasons are kept; what was rolled back stays, without the refusal to
        try it again.
        """
        wanted = set(ordered)
        self._forgive(wanted)
        ended = self._end_shadows(wanted)
        idle = [
            entry
            for entry in self.journal.entries
            if entry.state in {_S.FAILED, _S.DOWNLOADING}
            and (*entry.target.key, entry.target.sha256) not in wanted
        ]
        failed = sorted(
            (entry for entry in idle if entry.state is _S.FAILED), key=lambda entry: entry.since_wall_ms
        )
        told = {entry.target.key for entry in failed[-REASONS:]}
        entries = tuple(
            replace(entry, withdrawn=True) if entry in idle else entry
            for entry in self.journal.entries
            if entry not in idle or entry.target.key in told
        )
        if entries != self.journal.entries:
            self._write(replace(self.journal, entries=entries))
        return [entry for entry in idle if not entry.withdrawn] + ended

    def _end_shadows(self, wanted: AbstractSet[tuple[Kind, str, str]]) -> list[Entry]:
        """Take out what runs in shadow and is not ordered any more; whose update that ends.

        The next act then stops it. Nothing is begun for it, so a power cut in between is no matter.
        """
        self._install(self.installed.without_shadows(wanted))
        ended = [
            entry
            for entry in self.journal.entries
            if entry.target.in_shadow
            and entry.state not in {_S.FAILED, _S.DOWNLOADING}
            and (*entry.target.key, entry.target.sha256) not in wanted
        ]
        for entry in ended:
            self._watched.pop(entry.target.key, None)
            self._write(self.journal.without(entry.target.key))
        if ended:
            self.sweep()
        return ended

    def _forgive(self, wanted: AbstractSet[tuple[Kind, str, str]]) -> None:
        for entry in self.journal.entries:
            is_refused = entry.state is _S.ROLLED_BACK and entry.refusal is not None
            if is_refused and (*entry.target.key, entry.target.sha256) not in wanted:
                self._write(self.journal.with_entry(replace(entry, refusal=None)))

    def looked(self, looked: Looked) -> None:
        """Write down what a look brought, if it is another than before."""
        before = self.journal.looked
        if replace(looked, wall_ms=before.wall_ms) != before:
            for refused in looked.refused:
                if refused not in before.refused:
                    self._note(history.noted_refusal(self.history, refused, *self._time()))
            self._write(replace(self.journal, looked=looked))

    def resume(self) -> None:
        """Count that what is under way is begun again; give up what was begun too often."""
        self._watched.clear()
        # What waits behind another update of its model was not begun, and is not to blame.
        for entry in [*self._due(), *self._in_shadow()]:
            if entry.attempts < ATTEMPTS or entry.state is _S.ROLLING_BACK:
                self._write(self.journal.with_entry(replace(entry, attempts=entry.attempts + 1)))
                continue
            detail = _("begun {count} times without an end").format(count=entry.attempts)
            if entry.state in _SWITCHING or entry.state is _S.COMMITTED:
                self._move(entry, _S.ROLLING_BACK, detail=detail)
            else:
                self._fail(entry, detail, remember=True)

    def lost(self, target: Target, detail: str, *, blamed: bool) -> None:
        """``target`` was installed and does not run any more; ``blamed``: it failed here."""
        installed = self.installed.taken_back(target)
        self._install(installed.with_failed(target) if blamed else installed)
        self._enter(target, _S.ROLLED_BACK, detail=as_line(detail))

    async def advance(self, runner: Runner) -> bool:
        """Begin the next act of every update that has one; whether anything moved."""
        moved = False
        for entry in self._due():
            if self._is_ended(entry):
                continue
            if entry.target.description.kind in _RUN or entry.state in _STORING:
                moved |= await _ACTS[entry.state](self, entry, runner)
            elif installer := self.installers.get(entry.target.description.kind):
                moved |= await self._go_on(entry, installer)
        beside = {slot.current.sha256 for slot in self.installed.slots if slot.current and slot.in_shadow}
        await runner.shadows.keep(beside)
        for entry in self._in_shadow():
            moved |= await self._watch(entry, runner)
        return moved

    def sweep(self) -> None:
        """Remove artifacts that nothing refers to; one that only does not fit yet is kept for later."""
        try:
            self._store.sweep(self._wanted())
        except UpdateBroken as error:
            _LOG.warning("%s", error)

    def tidy(self) -> None:
        """Remove what was fetched of orders that were withdrawn or replaced. No look may be under way."""
        try:
            self._store.tidy(self._wanted())
        except UpdateBroken as error:
            _LOG.warning("%s", error)

    def _wanted(self) -> set[str]:
        failed = {each.sha256 for each in self.installed.failed}
        wanted = {
            target.sha256
            for slot in self.installed.slots
            for target in (slot.current, slot.previous)
            if target is not None and target.description.kind is not Kind.OS
        }
        wanted |= {
            entry.target.sha256
            for entry in self.journal.entries
            if not entry.is_over
            or (entry.state is _S.FAILED and entry.refusal is None and not entry.withdrawn)
            if entry.target.sha256 not in failed
        }
        return wanted

    def _due(self) -> list[Entry]:
        """What may move now: models before policies, and of one model's one switch at a time."""
        active = [entry for entry in self.journal.entries if entry.target.key in self.busy]
        active.sort(key=lambda entry: (entry.state not in _SWITCHING, entry.target.description.kind))
        due: dict[tuple[str, bool], Entry] = {}
        for entry in active:
            due.setdefault((model_of(entry.target), entry.target.in_shadow), entry)
        return list(due.values())

    def _in_shadow(self) -> list[Entry]:
        """What goes on in shadow after its probation: it stays on trial."""
        return [
            entry for entry in self.journal.entries if entry.target.in_shadow and entry.state is _S.COMMITTED
        ]

    async def _stage(self, entry: Entry, _runner: Runner) -> bool:
        try:
            await asyncio.to_thread(self._store.add, entry.target)
        except UpdateRefused as error:
            # The very bytes are wrong: they would be as wrong after another download.
            self._fail(entry, error.detail, remember=True, refusal=error.refusal)
        except UpdateBroken as error:
            self._fail(entry, str(error), remember=False)
        else:
            self._move(entry, _S.STAGED)
        return True

    async def _begin_test(self, entry: Entry, _runner: Runner) -> bool:
        self._move(entry, _S.TESTING)
        return True

    async def _test(self, entry: Entry, runner: Runner) -> bool:
        target, model = entry.target, model_of(entry.target)
        try:
            if target.description.kind is Kind.MODEL:
                choice = Choice(self._store.place(target.sha256), target.sha256)
                examine = runner.shadows.examine if target.in_shadow else runner.examine
                await examine(model, choice, self._metrics)
            else:
                await runner.compile(model, Choice(self._store.policy(target.sha256), target.sha256))
        except InferenceError as error:
            self._fail(entry, str(error), remember=True)
        except UpdateUnfit as error:
            self._fail(entry, str(error), remember=False)
        else:
            # Nothing follows from what a shadow says: that it says otherwise is no failure, but the finding.
            before = Vitals() if target.in_shadow else runner.usual(model)
            self._move(entry, _S.ACTIVATING, before=before)
        return True

    async def _activate(self, entry: Entry, runner: Runner) -> bool:
        self._install(self.installed.switched(entry.target))
        try:
            await self._bring(entry.target, runner)
        except InferenceError as error:
            self._move(entry, _S.ROLLING_BACK, detail=as_line(str(error)))
        else:
            self._move(entry, _S.PROBATION)
        return True

    async def _watch(self, entry: Entry, runner: Runner) -> bool:
        key, model, now_ms = entry.target.key, model_of(entry.target), self._clock.mono_ms()
        if key not in self._watched:
            self._watched[key] = now_ms
            try:
                await self._bring(entry.target, runner)
            except InferenceError as error:
                self._move(entry, _S.ROLLING_BACK, detail=as_line(str(error)))
                return True
        if self._is_ended(entry):
            return True
        vitals = runner.shadows.vitals(model) if entry.target.in_shadow else runner.vitals(model)
        spent_s = entry.spent_s + (now_ms - self._watched[key]) / 1000
        seen = replace(entry, vitals=vitals, spent_s=spent_s)
        self._watched[key] = now_ms
        return self._conclude(seen, lived=vitals.answers != entry.vitals.answers)

    def _conclude(self, seen: Entry, *, lived: bool) -> bool:
        verdict, reason = judge(
            seen.vitals,
            seen.before,
            seen.spent_s,
            least_s=self._terms.least_s,
            least_windows=self._terms.least_windows,
        )
        stays = seen.state is _S.COMMITTED
        if verdict is Verdict.PASSED and not stays:
            self._move(seen, _S.COMMITTED)
            self.sweep()
        elif verdict is Verdict.FAILED:
            self._move(seen, _S.ROLLING_BACK, detail=as_line(reason))
        elif lived and not (stays and seen.attempts == 1):
            # It lives: another restart would not be the first of a row.
            self._write(self.journal.with_entry(replace(seen, attempts=1)))
        else:
            self.journal = self.journal.with_entry(seen)
        return verdict is Verdict.FAILED or (verdict is Verdict.PASSED and not stays)

    async def _roll_back(self, entry: Entry, runner: Runner) -> bool:
        self._install(self.installed.taken_back(entry.target).with_failed(entry.target))
        detail = entry.detail
        try:
            await self._bring(entry.target, runner)
        except InferenceError as error:
            detail = as_line(f"{detail}; {error}")
        self._move(entry, _S.ROLLED_BACK, detail=detail)
        self.sweep()
        return True

    async def _go_on(self, entry: Entry, installer: Installer) -> bool:
        """One step of an artifact that its kind's installer carries on."""
        step = await installer.step(entry)
        detail = as_line(step.detail)
        if step.state is None:
            seen = replace(entry, spent_s=step.spent_s, detail=detail)
            seen = replace(seen, attempts=1) if step.lived else seen
            if detail != entry.detail:
                self._tell(seen)
            elif step.lived:
                self._write(self.journal.with_entry(seen))
            else:
                self.journal = self.journal.with_entry(seen)
            return False
        match step.state:
            case _S.FAILED:
                self._fail(entry, step.detail, remember=step.remember)
                return True
            case _S.PROBATION:
                self._install(self.installed.switched(entry.target))
            case _S.ROLLED_BACK:
                self._install(self.installed.taken_back(entry.target).with_failed(entry.target))
        self._move(entry, step.state, detail=detail)
        if step.state in FINAL:
            self.sweep()
        return True

    async def _bring(self, target: Target, runner: Runner) -> None:
        """Make what is installed in the place of ``target`` run now; raises as the runner does."""
        if not target.in_shadow:
            await runner.bring(*_place_of(target))
            return
        current = self.installed.slot(target.key).current
        choice = Choice(self._store.place(current.sha256), current.sha256) if current else None
        await runner.shadows.bring(model_of(target), choice)

    def _is_ended(self, entry: Entry) -> bool:
        """Whether a look has ended what ran in shadow while an act of it was under way."""
        now = self.journal.entry(entry.target.key)
        return entry.target.in_shadow and (now is None or now.target != entry.target)

    def _fail(self, entry: Entry, detail: str, *, remember: bool, refusal: Refusal | None = None) -> None:
        if remember:
            self._install(self.installed.with_failed(entry.target))
        self._move(entry, _S.FAILED, detail=as_line(detail), refusal=refusal)
        self.sweep()

    def _enter(self, target: Target, state: UpdateState, **known: Any) -> None:
        entry = Entry(target=target, state=state, since_wall_ms=self._clock.wall_ms(), attempts=1, **known)
        self._tell(entry)

    def _move(self, entry: Entry, state: UpdateState, **changes: Any) -> None:
        if not may_follow(entry.state, state):
            raise AssertionError(f"{entry.state} -> {state}")  # a fault of this module
        self._watched.pop(entry.target.key, None)
        if not self._is_ended(entry):
            self._tell(
                replace(entry, state=state, since_wall_ms=self._clock.wall_ms(), attempts=1, **changes)
            )

    def _tell(self, entry: Entry) -> None:
        self._note(history.noted(self.history, entry, *self._time()))
        self._write(self.journal.with_entry(entry))
        described = entry.target.description
        _LOG.info(
            _("update of {kind} {name} to release {release}{mode}: {state}. {detail}").format(
                kind=described.kind,
                mode=_(" in shadow") if entry.target.in_shadow else "",
                name=described.name,
                release=described.release,
                state=entry.state,
                detail=entry.detail,
            )
        )
        self.told(entry)

    def _install(self, installed: Installed) -> None:
        if installed != self.installed:
            records.save(self.folder, installed)
            self.installed = installed

    def _time(self) -> tuple[int, ClockState]:
        return self._clock.wall_ms(), self._clock.state()

    def _note(self, after: History) -> None:
        """Write the history down, which is done before the journal says the same."""
        if after is not self.history:
            records.save(self.folder, after)
            self.history = after

    def _write(self, journal: Journal) -> None:
        records.save(self.folder, journal)
        self.journal = journal


def model_of(target: Target) -> str:
    """The name of the model that runs, or that a policy is read with."""
    described = target.description
    return described.name if described.kind is Kind.MODEL else described.requires.model


def _place_of(target: Target) -> tuple[str, Kind]:
    return model_of(target), target.description.kind


_Act = Callable[[Executor, Entry, Runner], Awaitable[bool]]

_ACTS: Final[dict[UpdateState, _Act]] = {
    _S.VERIFIED: Executor._stage,  # noqa: SLF001 - the table of its own acts
    _S.STAGED: Executor._begin_test,  # noqa: SLF001
    _S.TESTING: Executor._test,  # noqa: SLF001
    _S.ACTIVATING: Executor._activate,  # noqa: SLF001
    _S.PROBATION: Executor._watch,  # noqa: SLF001
    _S.ROLLING_BACK: Executor._roll_back,  # noqa: SLF001
}
