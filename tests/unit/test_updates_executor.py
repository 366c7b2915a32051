"""An update carried through its states, what is remembered of it, and what is told."""

import argparse
import asyncio
import contextlib
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from pathlib import Path
from types import SimpleNamespace

import pytest
from msgspec.structs import replace

import firmware_profiles.schema
from edge_agent.check import problems
from edge_agent.config import load
from edge_agent.errors import (
    ConfigError,
    InferenceError,
    ModelRefused,
    UpdateError,
    UpdateRefused,
    UpdateUnfit,
    UpdateUnreachable,
)
from edge_agent.lineup import Choice
from edge_agent.models import Setting
from edge_agent.pipeline.vitals import Vitals
from edge_agent.service.health import HealthBoard
from edge_agent.updates import records
from edge_agent.updates.command import run
from edge_agent.updates.executor import ATTEMPTS, REASONS, Executor, Terms
from edge_agent.updates.records import Installed, Journal
from edge_agent.updates.spoken import Done, Refused, Said, Unreachable
from edge_agent.updates.store import Store
from edge_agent.updates.updates import Updates
from fleet_protocol.manifest import Runtime
from fleet_protocol.messages import UpdateReport
from fleet_protocol.targets import Kind, Refusal, Target
from fleet_protocol.update_states import UpdateState
from tests.support.drafts import HandClock
from tests.support.updating import calm, model_artifact, policy_artifact

S = UpdateState
MODEL, NEWER, POLICY = model_artifact(1), model_artifact(2), policy_artifact(1)
KEY = MODEL.target.key


class Beside:
    """What would run in shadow: does as it is told, and says by which digests it runs."""

    def __init__(self) -> None:
        self.refusing: Exception | None = None
        self.failing: InferenceError | None = None
        self.running: dict[str, str] = {}
        self.opened = 0
        self.seen = Vitals()

    async def examine(self, name: str, choice: Choice, metrics: frozenset[str]) -> None:
        if self.refusing:
            raise self.refusing

    async def bring(self, name: str, choice: Choice | None) -> None:
        if self.failing:
            raise self.failing
        self.running.pop(name, None)
        if choice is not None:
            self.opened += 1
            self.running[name] = choice.sha256

    async def keep(self, digests: AbstractSet[str]) -> None:
        self.running = {name: sha256 for name, sha256 in self.running.items() if sha256 in digests}

    def vitals(self, name: str) -> Vitals:
        return self.seen


class Runner:
    """Does as it is told."""

    def __init__(self) -> None:
        self.shadows = Beside()
        self.refusing: Exception | None = None
        self.failing: InferenceError | None = None
        self.calls: list[str] = []
        self.seen = Vitals()

    async def examine(self, name: str, choice: Choice, metrics: frozenset[str]) -> None:
        self.calls.append("examine")
        if self.refusing:
            raise self.refusing

    async def compile(self, model: str, choice: Choice) -> None:
        self.calls.append("compile")
        if self.refusing:
            raise self.refusing

    async def bring(self, name: str, kind: Kind) -> None:
        self.calls.append("bring")
        if self.failing:
            raise self.failing

    def vitals(self, name: str) -> Vitals:
        return self.seen

    def usual(self, name: str) -> Vitals:
        return self.seen

    def forget(self) -> None:
        """Nothing is held open."""


class Bench:
    def __init__(self, folder: Path, terms: Terms | None = None) -> None:
        self.folder = folder
        self.store = Store(folder)
        self.clock = HandClock()
        self.runner = Runner()
        self.terms = terms or Terms(300.0, 8)
        self.executor = self.reopened()

    def reopened(self) -> Executor:
        self.executor = Executor(self.folder, self.store, self.clock, self.terms, frozenset({"signal"}))
        return self.executor

    def accept(self, *artifacts: object) -> None:
        for artifact in artifacts:
            file = self.store.downloaded(artifact.target.sha256)  # type: ignore[attr-defined]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(artifact.content)  # type: ignore[attr-defined]
            self.executor.accept(artifact.target)  # type: ignore[attr-defined]

    def advance(self) -> None:
        async def all_of_it() -> None:
            while await self.executor.advance(self.runner):
                pass

        asyncio.run(all_of_it())

    def state(self, target: Target = MODEL.target) -> UpdateState | None:
        entry = self.executor.journal.entry(target.key)
        return entry.state if entry else None


def test_probation_lasts_its_time_and_its_windows_over_a_restart(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.accept(MODEL)
    bench.advance()
    assert bench.state() is S.PROBATION
    bench.runner.seen = calm(20)
    bench.clock.advance(200_000)
    bench.advance()
    bench.clock.advance(5_000_000)  # switched off meanwhile
    bench.reopened().resume()
    bench.advance()
    assert bench.state() is S.PROBATION
    bench.clock.advance(99_000)
    bench.advance()
    assert bench.state() is S.PROBATION
    bench.clock.advance(2_000)
    bench.advance()
    assert bench.state() is S.COMMITTED


def test_a_policy_waits_for_its_model_to_prove_itself(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.accept(POLICY, MODEL)
    bench.advance()
    assert (bench.state(), bench.state(POLICY.target)) == (S.PROBATION, S.VERIFIED)
    bench.runner.seen = calm(20)
    bench.clock.advance(301_000)
    bench.advance()
    assert (bench.state(), bench.state(POLICY.target)) == (S.COMMITTED, S.PROBATION)


def test_what_ends_the_agent_again_and_again_is_given_up_and_remembered(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.accept(MODEL)
    bench.runner.refusing = KeyboardInterrupt()  # type: ignore[assignment]
    for _start in range(ATTEMPTS):
        with pytest.raises(KeyboardInterrupt):
            bench.advance()
        bench.reopened().resume()
    assert bench.state() is S.FAILED
    assert [each.sha256 for each in bench.executor.installed.failed] == [MODEL.target.sha256]


def test_restarts_in_a_probation_that_lives_do_not_count(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.accept(MODEL)
    bench.advance()
    for turn in range(3 * ATTEMPTS):
        bench.reopened().resume()
        bench.runner.seen = calm(turn + 1)
        bench.advance()
        assert bench.state() is S.PROBATION
    for _turn in range(ATTEMPTS):
        bench.reopened().resume()
    assert bench.state() is S.ROLLING_BACK
    bench.advance()
    assert bench.state() is S.ROLLED_BACK


def test_a_version_that_does_not_come_up_is_taken_back(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.accept(MODEL)
    bench.runner.failing = ModelRefused("no")
    bench.advance()
    entry = bench.executor.journal.entry(KEY)
    assert entry is not None
    assert entry.state is S.ROLLED_BACK
    assert bench.executor.installed.slot(KEY).current is None


def test_what_does_not_fit_yet_is_not_held_against_it_and_not_fetched_again(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.accept(POLICY)
    bench.runner.refusing = UpdateUnfit("no such model runs here")
    bench.advance()
    assert bench.state(POLICY.target) is S.FAILED
    assert not bench.executor.installed.failed
    assert bench.store.has(POLICY.target.sha256)
    bench.runner.refusing = None
    bench.executor.accept(POLICY.target)
    bench.advance()
    assert bench.state(POLICY.target) is S.PROBATION


def test_a_refusal_is_written_once_and_dropped_when_it_is_not_ordered_any_more(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    told: list[UpdateState] = []
    bench.executor.told = lambda entry: told.append(entry.state)
    for _look in range(3):
        bench.executor.refuse(MODEL.target, Refusal.ROLLBACK, "release 1; 2 was accepted here before")
    assert told == [S.FAILED]
    assert records.load(tmp_path, Journal).entries[0].refusal is Refusal.ROLLBACK
    assert not bench.executor.settle([(Kind.MODEL, "autoencoder", MODEL.target.sha256)])
    (dropped,) = bench.executor.settle([])
    assert dropped.target == MODEL.target
    (kept,) = bench.executor.journal.entries
    assert kept == replace(dropped, withdrawn=True), "a rollout takes back what failed; the reason stays"
    assert not bench.executor.settle([]), "told once"
    bench.executor.sweep()
    assert not bench.store.has(MODEL.target.sha256), "the reason is kept, not the artifact"


def test_of_what_failed_and_is_not_ordered_any_more_a_few_reasons_are_kept(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    for number in range(REASONS + 3):
        bench.clock.advance(1000)
        target = policy_artifact(1, name=f"watch_{number}").target
        bench.executor.refuse(target, Refusal.NOT_PUBLISHED, "")
        bench.executor.settle([])
    names = [entry.target.description.name for entry in bench.executor.journal.entries]
    assert names == [f"watch_{number}" for number in range(3, REASONS + 3)]
    assert not reports(bench.executor, tmp_path), "a rollout that offers it again sees no failure yet"
    bench.executor.refuse(target, Refusal.NOT_PUBLISHED, "")
    assert [each.name for each in reports(bench.executor, tmp_path)] == [target.description.name]
    assert [entry.withdrawn for entry in bench.executor.journal.entries].count(False) == 1


def test_failures_of_other_artifacts_do_not_make_one_forgotten() -> None:
    installed = Installed().with_failed(MODEL.target).with_failed(NEWER.target)
    for number in range(40):
        installed = installed.with_failed(policy_artifact(1, name=f"watch_{number}").target)
    digests = {each.sha256 for each in installed.failed}
    assert NEWER.target.sha256 in digests
    assert MODEL.target.sha256 not in digests, "a release below one that was accepted is refused anyway"
    assert len(digests) == 41


def reports(executor: Executor, folder: Path) -> list[UpdateReport]:
    """What the device reports of its updates."""
    file = folder / "agent.toml"
    file.write_text(SETTINGS)
    config = load(file)
    assert config.updates is not None
    task = Updates(config, config.updates, HandClock(), HealthBoard(HandClock()))
    task.take(executor)
    return task.reports()


def test_a_failure_keeps_its_reason_when_it_is_refused_later_as_failed_here(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.accept(MODEL)
    bench.runner.refusing = ModelRefused("golden inputs fail")
    bench.advance()
    bench.executor.refuse(MODEL.target, Refusal.FAILED_HERE, "")
    entry = bench.executor.journal.entry(KEY)
    assert entry is not None
    assert (entry.detail, entry.refusal) == ("golden inputs fail", None)


def test_what_was_rolled_back_and_is_offered_again_says_that_it_is_refused(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.accept(MODEL)
    bench.runner.failing = ModelRefused("it does not open")
    bench.advance()
    assert bench.state(MODEL.target) is S.ROLLED_BACK
    told: list[UpdateState] = []
    bench.executor.told = lambda entry: told.append(entry.state)
    for _look in range(3):
        bench.executor.refuse(MODEL.target, Refusal.FAILED_HERE, "")
    entry = bench.executor.journal.entry(KEY)
    assert entry is not None
    assert (told, entry.refusal) == ([S.ROLLED_BACK], Refusal.FAILED_HERE)
    assert "it does not open" in entry.detail
    bench.executor.settle([])
    entry = bench.executor.journal.entry(KEY)
    assert entry is not None
    assert (entry.state, entry.refusal) == (S.ROLLED_BACK, None)


# Configuration.


@pytest.mark.parametrize(
    "change",
    [
        ('url = "https://fleet.example:8443/v1/updates"', 'url = "http://fleet.example/v1/updates"'),
        ('url = "https://fleet.example:8443/v1/updates"', 'url = "https://user@fleet.example"'),
        ("poll_interval_s = 3600.0", "poll_interval_s = 0.0"),
        ("probation_windows = 8", "probation_windows = -1"),
    ],
)
def test_a_configuration_of_updates_that_cannot_be(tmp_path: Path, change: tuple[str, str]) -> None:
    text = """\
device = "gw-7"
data = "data"
[broker]
host = "localhost"
ca = "ca.pem"
certificate = "cert.pem"
key = "key.pem"
[updates]
url = "https://fleet.example:8443/v1/updates"
image_root = "image-root.json"
director_root = "director-root.json"
poll_interval_s = 3600.0
probation_windows = 8
"""
    file = tmp_path / "agent.toml"
    file.write_text(text)
    settings = load(file).updates
    assert settings is not None
    assert settings.image_root == tmp_path / "image-root.json"
    missing = [str(problem) for problem in problems(file) if "[updates]" in str(problem)]
    assert len(missing) == 2, "check names both roots that are not there"
    file.write_text(text.replace(*change))
    with pytest.raises(ConfigError):
        load(file)


def test_restarts_while_a_policy_waits_for_its_model_do_not_count_against_it(tmp_path: Path) -> None:
    """It was not begun once: what is counted is how often an act was begun without coming to an end."""
    bench = Bench(tmp_path)
    bench.accept(POLICY, MODEL)
    bench.advance()
    for turn in range(3 * ATTEMPTS):
        bench.reopened().resume()
        bench.runner.seen = calm(turn + 1)
        bench.advance()
        assert (bench.state(), bench.state(POLICY.target)) == (S.PROBATION, S.VERIFIED)


# The two tasks of the agent.

SETTINGS = """\
device = "gw-7"
profile = "tflite-64"
data = "data"
[broker]
host = "localhost"
ca = "ca.pem"
certificate = "cert.pem"
key = "key.pem"
[updates]
url = "https://fleet.example:8443/v1/updates"
image_root = "image-root.json"
director_root = "director-root.json"
poll_interval_s = 3600.0
"""


@pytest.mark.parametrize("error", [UpdateUnreachable("nobody"), UpdateRefused(Refusal.FORGED, "image", "")])
def test_hints_do_not_make_it_look_without_a_pause_when_looks_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: UpdateError
) -> None:
    file = tmp_path / "agent.toml"
    file.write_text(SETTINGS)
    config = load(file)
    assert config.updates is not None
    for name, seconds in (("FIRST_LOOK_S", 0.0), ("_HINT_SPREAD_S", 0.0), ("_LEAST_PAUSE_S", 0.3)):
        monkeypatch.setattr(f"edge_agent.updates.updates.{name}", seconds)
    task = Updates(config, config.updates, HandClock(), HealthBoard(HandClock()))
    looks = 0

    async def look(_asked: object) -> None:
        nonlocal looks
        looks += 1
        task.hint(looks)
        raise error

    monkeypatch.setattr(task, "_look", look)
    monkeypatch.setattr(task, "_question", lambda **_where: None)

    async def watch() -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await task.watch()

    asyncio.run(watch())
    assert 2 <= looks <= 4


def test_without_the_agent_a_stick_is_tried_as_the_boards_profile_allows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "agent.toml"
    file.write_text(SETTINGS)
    settings = []

    class Seen(Exception):  # noqa: N818 - ends what is not looked at
        pass

    def see(_configs: object, _health: object, setting: Setting, *_more: object) -> None:
        settings.append(setting)
        raise Seen

    monkeypatch.setattr("edge_agent.models.Models", see)
    with pytest.raises(Seen):
        run(argparse.Namespace(action="from", config=file, file=tmp_path / "stick.tar", receipt=None))
    profile = firmware_profiles.schema.load("tflite-64")
    assert list(settings[0].runtimes) == list(profile.runtimes.allowed)
    assert settings[0].runtimes != tuple(Runtime)


FORGED = Refused(Refusal.FORGED, "image", "signed by nobody")
SILENT = Unreachable("nobody answers")


@pytest.mark.parametrize(
    ("looks", "codes"),
    [
        (["server", SILENT], {"update.unreachable"}),
        (["server", FORGED, "server", SILENT], {"update.refused", "update.unreachable"}),
        (["server", FORGED, "server", SILENT, "server", Done([])], set()),
        (["stick", SILENT], set()),
        (["server", SILENT, "stick", Done([])], {"update.unreachable"}),
    ],
    ids=["silence", "forged, then silence", "all is well again", "a broken stick", "a good stick"],
)
def test_what_looks_leave_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, looks: list[Said | str], codes: set[str]
) -> None:
    file = tmp_path / "agent.toml"
    file.write_text(SETTINGS)
    config = load(file)
    assert config.updates is not None
    health = HealthBoard(HandClock())
    task = Updates(config, config.updates, HandClock(), health)
    task.take(Executor(tmp_path, Store(tmp_path), HandClock(), Terms(1.0, 1), frozenset()))
    monkeypatch.setattr(task, "_question", lambda url="", bundle="": SimpleNamespace(bundle=bundle))

    async def all_of_them() -> None:
        for where, said in zip(looks[::2], looks[1::2], strict=True):

            async def ask(_question: object, hear: Callable[[object], None], said: object = said) -> None:
                hear(said)

            monkeypatch.setattr("edge_agent.updates.updates.ask", ask)
            with contextlib.suppress(UpdateError):
                if where == "stick":
                    await task.apply(tmp_path / "stick.tar")
                else:
                    await task._look(task._question(url="https://fleet.example"))

    asyncio.run(all_of_them())
    assert {each.code for each in health.reports()} == codes
