"""The agent's own software is switched, with the power cut at every flush and rename: what starts next is the
old or the new version, it gets where it was going, and what failed is given up once.

Slots are empty folders here, and a version is a name; real ones run in tests/integration/test_agent_slots.py.
"""

import asyncio
import json
import os
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path, PurePath

import pytest

from edge_agent import durable
from edge_agent.launcher import record
from edge_agent.launcher.decision import ATTEMPTS, STRIKES, End, ended, to_start
from edge_agent.launcher.record import FITTED, RESTART, Record
from edge_agent.slots import children
from edge_agent.slots.installer import AgentInstaller, Launched, NotLaunched
from edge_agent.slots.room import Room
from edge_agent.slots.spoken import Built, Findings, Outcome
from edge_agent.telemetry.spool import SCHEMA_VERSION
from edge_agent.updates import records
from edge_agent.updates.executor import Executor, Terms
from edge_agent.updates.records import Installed, Journal
from edge_agent.updates.store import Store
from fleet_protocol.agent_build import DOCUMENT
from fleet_protocol.targets import Kind, Target
from fleet_protocol.update_states import UpdateState
from fleet_signing import agent_builds
from fleet_signing.artifacts import Artifact, of_bytes
from tests.support.drafts import HandClock
from tests.support.power import Disk, PowerCut
from tests.unit.test_agent_builds import ARGAN, NATIVE, wheel
from tests.unit.test_updates_executor import Runner

S = UpdateState
ALL_SIGNS = frozenset({"spool", "reading", "link"})


def version(release: int) -> Artifact:
    health = agent_builds.Health(least_s=0.0, deadline_s=60.0)
    content = {ARGAN.replace("0.2.0", f"0.2.{release}"): wheel(), NATIVE: wheel()}
    return of_bytes(Kind.AGENT, agent_builds.pack(content, release, health))


NEW, NEWER = version(1), version(2)


class Life:
    """What an agent of this life shows."""

    def __init__(self, signs: frozenset[str]) -> None:
        self.signs = signs
        self.left = False

    def shown(self) -> frozenset[str]:
        return self.signs

    def faults(self) -> list[str]:
        return []

    async def settle(self) -> None:
        """Nothing is taken here."""

    def leave(self) -> None:
        self.left = True


@dataclass
class Device:
    """One device over several lives: a launcher's decisions, and an agent's executor."""

    root: Path
    findings: dict[str, Findings] = field(default_factory=dict)
    crashing: frozenset[str] = frozenset()
    silent: frozenset[str] = frozenset()
    strikes: int = 0
    ran: list[str] = field(default_factory=list)

    @property
    def slots(self) -> Path:
        return self.root / record.FOLDER

    @property
    def record(self) -> Record:
        return record.read(self.slots)

    def executor(self) -> Executor:
        folder = self.root / "updates"
        return Executor(folder, Store(folder), HandClock(), Terms(0.0, 0), frozenset())

    def next_start(self) -> str:
        """What a launcher starts now."""
        before = self.record
        standing = to_start(before, lambda slot: record.is_whole(self.slots, slot))
        if standing != before:
            record.write(self.slots, standing)
        return standing.current

    def live(self, *artifacts: Artifact, lives: int = 12) -> Executor:
        """One life after the other until nothing moves any more."""
        for _life in range(lives):
            running = self.next_start()
            self.ran.append(running)
            if running in self.crashing:
                self._end(End(1, 0.1))
                continue
            executor, left = asyncio.run(self._life(running, artifacts))
            if left:
                self._end(End(RESTART, 1.0))
            elif running in self.silent and self.record.trying:
                self._end(End(-15, 60.0, overdue=True))
            else:
                return executor
        raise AssertionError(f"no end of it: {self.ran}")

    def _end(self, end: End) -> None:
        then = ended(self.record, end, self.strikes)
        self.strikes = then.strikes
        if then.record != self.record:
            record.write(self.slots, then.record)

    async def _life(self, running: str, artifacts: tuple[Artifact, ...]) -> tuple[Executor, bool]:
        life = Life(frozenset({"spool"}) if running in self.silent else ALL_SIGNS)
        executor, installer = self.agent(life, running)
        for artifact in artifacts:
            self.order(executor, artifact)
        while not life.left and (await executor.advance(Runner()) or _is_testing(executor)):
            pass
        await installer.close()
        return executor, life.left

    def agent(self, life: "Life", running: str) -> tuple[Executor, AgentInstaller]:
        """An agent of the version ``running`` that has just started."""
        executor, store = self.executor(), Store(self.root / "updates")
        room = Room(self.root, self.root / "fitted")
        installer = AgentInstaller(room, store, Launched(self.root, self.root), life, life.leave)  # type: ignore[arg-type]
        installer._running = running  # type: ignore[misc]
        executor.installers = {Kind.AGENT: installer}
        installer.account(executor)
        executor.resume()
        return executor, installer

    def order(self, executor: Executor, artifact: Artifact) -> None:
        """As a look would hand it over: not what runs, what failed here, or what is under way."""
        target = artifact.target
        current = executor.installed.slot(target.key).current
        failed = {each.sha256 for each in executor.installed.failed}
        if target.sha256 in failed or target.key in executor.busy or current == target:
            return
        file = Store(self.root / "updates").downloaded(target.sha256)
        durable.make_folder(file.parent)
        durable.write(file, artifact.content)
        executor.accept(target)


def _is_testing(executor: Executor) -> bool:
    return any(entry.state is S.TESTING for entry in executor.journal.entries)


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Device:
    root = tmp_path / "data"
    root.mkdir()
    device = Device(root)
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)

    async def built(artifact: Path, slot: Path, _fitted: Path) -> Outcome:
        said = agent_builds.read(artifact.read_bytes())  # noqa: ASYNC240 - nothing else waits here
        (slot / "bin").mkdir(parents=True)
        durable.fill(slot / "bin" / "python", b"a python")
        durable.fill(slot / DOCUMENT, agent_builds.agent_build.encode(said))
        durable.flush(slot / "bin")
        durable.flush(slot)
        return Built(said.name, said.version, said.release)

    async def found(python: str | Path, _config: Path) -> Findings:
        slot = PurePath(python).parts[-3]
        return device.findings.get(slot, Findings("argan", SCHEMA_VERSION, []))

    monkeypatch.setattr(children, "build", built)
    monkeypatch.setattr(children, "findings", found)
    return device


def state(executor: Executor, target: Target = NEW.target) -> tuple[UpdateState, str]:
    entry = executor.journal.entry(target.key)
    assert entry
    return entry.state, entry.detail


def kept(device: Device) -> set[str]:
    return {path.name for path in device.slots.iterdir() if path.is_dir()}


def test_a_good_version_is_switched_to_and_the_one_before_is_kept(device: Device) -> None:
    assert state(device.live(NEW))[0] is S.COMMITTED
    assert device.ran == [FITTED, NEW.target.sha256]
    executor = device.live(NEWER)
    assert state(executor)[0] is S.COMMITTED
    assert device.record == Record(NEWER.target.sha256, NEW.target.sha256)
    assert kept(device) == {NEW.target.sha256, NEWER.target.sha256}
    assert device.ran[-1] == NEWER.target.sha256


def test_slots_are_removed_beside_the_loop_that_reads_the_sensors(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove, removed = durable.remove, []

    def watched(path: Path) -> None:
        if path.parent == device.slots:
            removed.append(path)
            assert threading.current_thread() is not threading.main_thread()
        remove(path)

    monkeypatch.setattr(durable, "remove", watched)
    device.crashing = frozenset({NEW.target.sha256})
    assert state(device.live(NEW))[0] is S.ROLLED_BACK
    device.findings[NEWER.target.sha256] = Findings("argan", SCHEMA_VERSION + 1, [])
    assert state(device.live(NEWER))[0] is S.FAILED
    assert {path.name.rpartition("-")[2] for path in removed} == {NEW.target.sha256, NEWER.target.sha256}


@pytest.mark.parametrize(
    ("fault", "reason"), [("crashing", "started 3 times"), ("silent", "did not prove itself within 60 s")]
)
def test_a_bad_version_is_left_and_never_tried_again(device: Device, fault: str, reason: str) -> None:
    device.live(NEW)
    setattr(device, fault, frozenset({NEWER.target.sha256}))
    executor = device.live(NEWER)
    assert state(executor)[0] is S.ROLLED_BACK
    assert reason in state(executor)[1]
    assert device.ran.count(NEWER.target.sha256) == (ATTEMPTS if fault == "crashing" else 1)
    assert [each.sha256 for each in executor.installed.failed] == [NEWER.target.sha256]
    assert executor.installed.slot(NEW.target.key).current == NEW.target
    assert kept(device) == {NEW.target.sha256}
    ran = len(device.ran)
    device.live(NEWER)
    assert device.ran[ran:] == [NEW.target.sha256]


@pytest.mark.parametrize(
    ("new", "said"),
    [
        (Findings("argan", SCHEMA_VERSION + 1, []), "writes the spool in schema"),
        (Findings("argan", SCHEMA_VERSION, ["tuf cannot be loaded"]), "tuf cannot be loaded"),
    ],
)
def test_a_version_that_fails_its_own_test_is_never_started(device: Device, new: Findings, said: str) -> None:
    device.findings[NEW.target.sha256] = new
    executor = device.live(NEW)
    assert state(executor)[0] is S.FAILED
    assert said in state(executor)[1]
    assert device.ran == [FITTED]
    assert kept(device) == set()


def test_what_is_wrong_here_anyway_is_not_held_against_a_version(device: Device) -> None:
    ill = Findings("argan", SCHEMA_VERSION, ["a sensor has no file"])
    device.findings[NEW.target.sha256] = ill
    device.findings[Path(sys.executable).parts[-3]] = ill
    assert state(device.live(NEW))[0] is S.COMMITTED


def test_a_version_that_had_proved_itself_and_then_keeps_dying_is_told_as_rolled_back(device: Device) -> None:
    device.live(NEW)
    device.crashing = frozenset({NEW.target.sha256})
    executor = device.live()
    assert state(executor)[0] is S.ROLLED_BACK
    assert f"ended {STRIKES} times" in state(executor)[1]
    assert [each.sha256 for each in executor.installed.failed] == [NEW.target.sha256]


def test_without_a_launcher_a_version_waits_however_often_the_agent_starts(device: Device) -> None:
    async def start(executor: Executor, *artifacts: Artifact) -> Executor:
        executor.installers = {Kind.AGENT: NotLaunched()}
        executor.resume()
        for artifact in artifacts:
            device.order(executor, artifact)
        while await executor.advance(Runner()):
            pass
        return executor

    asyncio.run(start(device.executor(), NEW))
    for _start in range(6):
        executor = asyncio.run(start(device.executor()))
        assert state(executor)[0] is S.TESTING
        assert "edge-agent launch" in state(executor)[1]
    assert state(device.live())[0] is S.COMMITTED, "and goes on once there is one"


def test_a_slot_that_the_medium_lost_is_no_fault_of_its_version(device: Device) -> None:
    device.live(NEW)
    durable.remove(device.slots / NEW.target.sha256)
    executor = device.live()
    assert (state(executor)[0], executor.installed.failed) == (S.ROLLED_BACK, ())
    assert state(device.live(NEW))[0] is S.COMMITTED, "and it may come again"


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["", "crashing", "silent"])
def test_cut_at_every_act_of_a_switch(device: Device, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    new, old = NEW.target.sha256, FITTED
    bad = frozenset({new}) if fault else frozenset()
    total = _acts(_fresh(device, 0, fault, bad), monkeypatch)
    assert total > 30, "there is something to cut"
    # A version that fails is given up by the same acts; there fewer cuts are enough.
    for at in range(0, total, 4 if fault else 1):
        for lucky in (False, True) if at % 3 == 0 else (False,):
            mine = _fresh(device, 1 + 2 * at + lucky, fault, bad)
            disk = Disk(mine.root)
            with disk.watched(monkeypatch, at), pytest.raises(PowerCut):
                mine.live(NEW)
            disk.keep() if lucky else disk.lose()
            assert mine.next_start() in {old, new}, f"after a cut at {at}"
            executor = mine.live(NEW)
            expected = S.ROLLED_BACK if fault else S.COMMITTED
            assert state(executor)[0] is expected, f"after a cut at {at}"
            assert mine.record.current == (old if fault else new)


def _fresh(device: Device, number: int, fault: str, bad: frozenset[str]) -> Device:
    root = device.root.parent / f"data-{number}"
    root.mkdir()
    fresh = Device(root)
    if fault:
        setattr(fresh, fault, bad)
    return fresh


def _acts(device: Device, monkeypatch: pytest.MonkeyPatch) -> int:
    disk = Disk(device.root)
    with disk.watched(monkeypatch):
        device.live(NEW)
    return disk.acts


def test_records_of_a_newer_version_are_read_as_far_as_this_one_understands(device: Device) -> None:
    """A device that came back must not lose what it knew, nor try again what failed."""
    device.live(NEW)
    device.crashing = frozenset({NEWER.target.sha256})
    executor = device.live(NEWER)
    for name in (records.INSTALLED, records.JOURNAL):
        file = device.root / "updates" / name
        content = json.loads(file.read_text())
        content["later"] = {"a": 1}
        for each in (*content.get("entries", ()), *content.get("failed", ()), *content.get("slots", ())):
            each["later"] = True
        for key in ("entries", "slots", "failed"):
            if key in content:
                content[key].append({"kind": "quantum", "target": {}, "name": "x"})
        file.write_text(json.dumps(content))
    folder = device.root / "updates"
    assert records.load(folder, Installed) == executor.installed
    assert records.load(folder, Journal) == executor.journal


def test_a_long_test_of_a_new_version_holds_nobody(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """The executor goes on with models and policies while a slot is built."""
    go_on = asyncio.Event()
    quick = children.build

    async def slow(artifact: Path, slot: Path, fitted: Path) -> Outcome:
        await go_on.wait()
        return await quick(artifact, slot, fitted)

    monkeypatch.setattr(children, "build", slow)

    async def life() -> list[UpdateState]:
        executor, installer = device.agent(Life(ALL_SIGNS), FITTED)
        device.order(executor, NEW)
        for _turn in range(4):
            await executor.advance(Runner())
        before = state(executor)[0]
        go_on.set()
        while _is_testing(executor):
            await executor.advance(Runner())
        await installer.close()
        return [before, state(executor)[0]]

    assert asyncio.run(life()) == [S.TESTING, S.ACTIVATING]
