"""The power is cut again and again at the same act of an update: the device comes back with the old or new
version, never with neither, and stays with one of them.

The runtime is left out: what runs is whatever the line-up names first and the store still holds whole.
Every act is cut in tests/unit/test_updates_cut_everywhere.py.
"""

import asyncio
import itertools
import os
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from edge_agent import durable
from edge_agent.config import Model
from edge_agent.errors import InferenceError, ModelRefused
from edge_agent.inference.bundle import read_bundle
from edge_agent.lineup import Choice, line_up
from edge_agent.pipeline.vitals import Vitals
from edge_agent.updates.executor import Executor, Terms
from edge_agent.updates.store import Store, read_policy
from fleet_protocol.targets import Kind, Target
from fleet_protocol.update_states import UpdateState
from fleet_signing.artifacts import Artifact
from tests.support.drafts import HandClock
from tests.support.power import Disk, PowerCut
from tests.support.updating import in_shadow, model_artifact, model_folder, policy_artifact

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

NEW, NEWER, POLICY = model_artifact(2), model_artifact(3), policy_artifact(2)
FITTED = 1

WELL = Vitals(answers=8, latencies_us=(100,) * 8)
ILL = Vitals(answers=8, failures=4, latencies_us=(100,) * 8)


@dataclass
class Beside:
    """Runs in shadow what the store still has whole."""

    running: dict[str, str] = field(default_factory=dict)

    async def examine(self, name: str, choice: Choice, metrics: frozenset[str]) -> None:
        whole(choice)

    async def bring(self, name: str, choice: Choice | None) -> None:
        self.running.pop(name, None)
        if choice is not None:
            whole(choice)
            self.running[name] = choice.sha256

    async def keep(self, digests: AbstractSet[str]) -> None:
        self.running = {name: sha256 for name, sha256 in self.running.items() if sha256 in digests}

    def vitals(self, name: str) -> Vitals:
        return WELL


@dataclass
class Bench:
    """Runs what the line-up names, as far as the store still has it whole."""

    configs: list[Model]
    store: Store
    executor: Executor
    bad: frozenset[str] = frozenset()
    ill: frozenset[str] = frozenset()
    running: dict[str, Choice] = field(default_factory=dict)
    shadows: Beside = field(default_factory=Beside)

    def boot(self) -> None:
        for fitting in line_up(self.configs, self.executor.installed, self.store):
            self._run(fitting.name)

    async def examine(self, name: str, choice: Choice, metrics: frozenset[str]) -> None:
        whole(choice)
        if choice.sha256 in self.bad:
            raise ModelRefused("its golden inputs fail")

    async def compile(self, model: str, choice: Choice) -> None:
        read_policy(choice.path, choice.sha256)

    async def bring(self, name: str, kind: Kind) -> None:
        self._run(name)

    def vitals(self, name: str) -> Vitals:
        return ILL if self.running[name].sha256 in self.ill else WELL

    def usual(self, name: str) -> Vitals:
        return self.vitals(name)

    def forget(self) -> None:
        """Nothing is held open."""

    def _run(self, name: str) -> None:
        (fitting,) = (
            each for each in line_up(self.configs, self.executor.installed, self.store) if each.name == name
        )
        for policy in fitting.policies:
            read_policy(policy.path, policy.sha256)
        whole(fitting.models[0])
        self.running[name] = fitting.models[0]


def whole(choice: Choice) -> None:
    bundle = read_bundle(choice.path)
    for entry in bundle.manifest.files:
        bundle.read(entry.name)


@dataclass
class Device:
    """One device over several lives on one disk."""

    root: Path
    fitted: Path
    disk: Disk
    bad: frozenset[str] = frozenset()
    ill: frozenset[str] = frozenset()

    def life(self, *artifacts: Artifact) -> Bench:
        """Start, take what is ordered as a look would hand it over, and go on until nothing moves."""
        return asyncio.run(self._life(artifacts))

    def start(self) -> Bench:
        """Start only."""
        store = Store(self.root / "updates")
        metrics = frozenset({"signal"})
        executor = Executor(self.root / "updates", store, HandClock(), Terms(0.0, 0), metrics)
        bench = Bench([Model(folder=self.fitted)], store, executor, self.bad, self.ill)
        bench.boot()
        return bench

    async def _life(self, artifacts: tuple[Artifact, ...]) -> Bench:
        bench = self.start()
        executor = bench.executor
        executor.resume()
        for artifact in artifacts:
            target = artifact.target
            failed = target.sha256 in {each.sha256 for each in executor.installed.failed}
            current = executor.installed.slot(target.key).current
            if failed or target.key in executor.busy or (current and current.sha256 == target.sha256):
                continue
            self._download(bench.store, artifact)
            executor.accept(target)
        while await executor.advance(bench):
            pass
        return bench

    def _download(self, store: Store, artifact: Artifact) -> None:
        file = store.downloaded(artifact.target.sha256)
        durable.make_folder(file.parent)
        durable.write(file, artifact.content)


@pytest.fixture(autouse=True)
def no_waiting_for_a_real_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)


@pytest.fixture
def device(tmp_path: Path) -> Device:
    fitted = model_folder(tmp_path / "fitted", FITTED)
    root = tmp_path / "data"
    root.mkdir()
    return Device(root, fitted, Disk(root))


def releases(bench: Bench) -> int:
    """The release that runs."""
    return read_bundle(bench.running["autoencoder"].path).manifest.release


def acts(device: Device, patch: pytest.MonkeyPatch, *artifacts: Artifact) -> int:
    """How many flushes and renames an undisturbed update takes, before and after each."""
    with device.disk.watched(patch):
        device.life(*artifacts)
    return device.disk.acts


def cut(device: Device, patch: pytest.MonkeyPatch, at: int, *artifacts: Artifact) -> bool:
    """One life that ends at act ``at``; whether the power was cut before it came to its end."""
    with device.disk.watched(patch, at):
        try:
            device.life(*artifacts)
        except PowerCut:
            return True
    return False


def fresh(device: Device, number: int) -> Device:
    root = device.root.parent / f"data-{number}"
    root.mkdir()
    return Device(root, device.fitted, Disk(root), device.bad, device.ill)


def test_an_update_without_a_cut(device: Device) -> None:
    bench = device.life(NEW, POLICY)
    assert releases(bench) == 2
    states = {entry.state for entry in bench.executor.journal.entries}
    assert states == {UpdateState.COMMITTED}
    bench = device.life(NEWER)
    assert releases(bench) == 3
    kept = {path.name for path in (device.root / "updates" / "artifacts").iterdir()}
    assert kept == {each.target.sha256 for each in (NEW, NEWER, POLICY)}, "and the one before is retained"
    assert not list((device.root / "updates" / "downloads").iterdir()) or kept


def test_cut_at_every_act_of_a_shadow(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """What acts is never touched, and the shadow gets there; ended by a look that is cut, it ends later."""
    shadow = replace(NEW, target=in_shadow(NEW.target))
    total = acts(fresh(device, -1), monkeypatch, shadow)
    assert total > 40, "there is something to cut"
    for number, (at, lucky) in enumerate(itertools.product(range(total), (False, True))):
        mine = fresh(device, number)
        assert cut(mine, monkeypatch, at, shadow)
        mine.disk.keep() if lucky else mine.disk.lose()
        assert releases(mine.start()) == FITTED, f"after a cut at {at}"
        bench = mine.life(shadow)
        assert releases(bench) == FITTED
        assert bench.shadows.running == {"autoencoder": NEW.target.sha256}
    with mine.disk.watched(monkeypatch, 2), pytest.raises(PowerCut):
        bench.executor.settle([])
    mine.disk.lose()
    bench = mine.life()
    bench.executor.settle([])
    asyncio.run(bench.executor.advance(bench))
    assert not bench.shadows.running
    assert not bench.executor.installed.slots


def test_cut_again_and_again_at_the_same_act(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """What ends the agent each time is given up: it comes back with one of the two and stays there."""
    total = acts(fresh(device, -2), monkeypatch, NEW)
    for at in range(0, total, 3):
        mine = fresh(device, 5000 + at)
        for _turn in range(8):
            cut(mine, monkeypatch, at, NEW)
            mine.disk.lose()
            assert releases(mine.start()) in {FITTED, 2}
        bench = mine.life(NEW)
        entry = bench.executor.journal.entry(NEW.target.key)
        assert entry is not None
        assert entry.is_over
        expected = 2 if entry.state is UpdateState.COMMITTED else FITTED
        assert releases(bench) == expected


def test_an_artifact_whose_bytes_were_lost_is_not_run_and_what_ran_before_is(device: Device) -> None:
    device.life(NEW)
    (device.root / "updates" / "artifacts" / NEW.target.sha256 / "model.tflite").write_bytes(b"")
    with pytest.raises(InferenceError):
        device.start()
    store = Store(device.root / "updates")
    executor = Executor(device.root / "updates", store, HandClock(), Terms(0.0, 0), frozenset())
    (fitting,) = line_up([Model(folder=device.fitted)], executor.installed, store)
    assert [choice.sha256 for choice in fitting.models] == [NEW.target.sha256, ""]


def test_targets_of_this_test_differ() -> None:
    targets: set[Target] = {NEW.target, NEWER.target, POLICY.target}
    assert len({target.sha256 for target in targets}) == 3
