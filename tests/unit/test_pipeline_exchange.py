"""A model takes another's place between two samples: nothing is lost, nothing is answered twice."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from edge_agent.config import Model as ModelConfig
from edge_agent.errors import ModelRefused, UpdateUnfit
from edge_agent.escalation.desk import Desk
from edge_agent.escalation.doubts import Doubts
from edge_agent.escalation.phrasing import Phrasing
from edge_agent.inference.session import Session, open_session
from edge_agent.lineup import Choice
from edge_agent.models import Models, Setting
from edge_agent.pipeline.pipeline import Model, Pipeline, Processed
from edge_agent.sensors.base import MetricSpec, Sample
from edge_agent.service.health import HealthBoard
from edge_agent.updates.records import Installed
from edge_agent.updates.store import Store
from fleet_protocol import manifest as mf
from fleet_protocol import messages as ms
from fleet_protocol import policy as pl
from fleet_protocol.targets import Kind, Target, describe_model
from fleet_signing.artifacts import of_policy
from tests.support import models
from tests.support.drafts import HandClock
from tests.support.escalating import table
from tests.support.updating import model_folder, policy_artifact, without_encoder

SIGNAL = MetricSpec("signal", "1", ms.MetricKind.GAUGE)
FLOW = MetricSpec("flow", "l/s", ms.MetricKind.GAUGE)
STEP_MS = 1000
WINDOW = 64

Change = Callable[[mf.Manifest], mf.Manifest]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[..., Session]]:
    sessions: list[Session] = []

    def open_release(release: int, change: Change | None = None) -> Session:
        folder = model_folder(tmp_path / f"{release}-{len(sessions)}", release, change)
        sessions.append(open_session(folder, isolation="none", runtime=models.INSTALLED[0]))
        return sessions[-1]

    yield open_release
    for session in sessions:
        session.close()


@pytest.fixture
def health() -> HealthBoard:
    return HealthBoard(HandClock())


def policy(session: Session, release: int, when: str = "score >= 0.0", **rule: float) -> pl.CompiledPolicy:
    content = policy_artifact(release, when, **rule).content
    return pl.CompiledPolicy(pl.parse(content), session.manifest)


def feed(pipeline: Pipeline, first: int, last: int, *, times: int = 1) -> list[Processed]:
    """Samples ``first`` to ``last``, ``times`` a step, each handed over by itself."""
    found = []
    for place in range(first, last):
        for part in range(times):
            at = place * STEP_MS + part * STEP_MS // times
            value = float((place + part) % 7)
            found.append(pipeline.process([Sample(SIGNAL, value, ms.Quality.GOOD, at)], at))
    return found


def answers(found: list[Processed]) -> list[tuple[str, float]]:
    return [(each.version, each.score) for step in found for each in step.inferences]


@pytest.mark.parametrize("times", [1, 4], ids=["one sample a step", "in the middle of a bucket"])
def test_every_window_is_answered_once_and_as_if_there_had_been_no_exchange(
    opened: Callable[..., Session], health: HealthBoard, times: int
) -> None:
    undisturbed = Pipeline([Model(opened(1), None)], health)
    wanted = [score for _version, score in answers(feed(undisturbed, 0, 120, times=times))]
    pipeline = Pipeline([Model(opened(1), None)], health)
    found = feed(pipeline, 0, 90, times=times)
    for part in range(times // 2):  # half a bucket more
        at = 90 * STEP_MS + part * STEP_MS // times
        sample = Sample(SIGNAL, float((90 + part) % 7), ms.Quality.GOOD, at)
        found.append(pipeline.process([sample], at))
    pipeline.replace(Model(opened(2), None))
    for part in range(times // 2, times):
        at = 90 * STEP_MS + part * STEP_MS // times
        sample = Sample(SIGNAL, float((90 + part) % 7), ms.Quality.GOOD, at)
        found.append(pipeline.process([sample], at))
    found += feed(pipeline, 91, 120, times=times)
    assert [score for _version, score in answers(found)] == pytest.approx(wanted)
    assert {version for version, _score in answers(found)} == {"1.1", "1.2"}


def other_shape(metric: str = "signal", step_s: float = 1.0) -> Change:
    def change(manifest: mf.Manifest) -> mf.Manifest:
        half = WINDOW // 2
        features = (
            mf.Feature(metric=metric, kind=mf.FeatureKind.STANDARD, length=half),
            mf.Feature(metric="signal", kind=mf.FeatureKind.PROFILE, length=half, cycles=1),
        )
        return msgspec.structs.replace(manifest, features=features, step_s=step_s)

    return change


def test_another_layout_is_filled_from_what_the_one_before_has_seen(
    opened: Callable[..., Session], health: HealthBoard
) -> None:
    pipeline = Pipeline([Model(opened(1), None)], health)
    feed(pipeline, 0, 80)
    pipeline.replace(Model(opened(2, other_shape()), None))
    assert len(answers(feed(pipeline, 80, 81))) == 1, "it sees at once"


def test_a_metric_that_nobody_looked_at_has_to_fill_first(
    opened: Callable[..., Session], health: HealthBoard
) -> None:
    pipeline = Pipeline([Model(opened(1), None)], health)
    feed(pipeline, 0, 80)
    pipeline.replace(Model(opened(2, other_shape("flow")), None))
    seen = []
    for place in range(80, 80 + WINDOW):
        at = place * STEP_MS
        both = [Sample(spec, 1.0, ms.Quality.GOOD, at) for spec in (SIGNAL, FLOW)]
        seen += answers([pipeline.process(both, at)])
    assert len(seen) == WINDOW // 2, "after the 32 steps of its own window"


def test_another_step_begins_anew(opened: Callable[..., Session], health: HealthBoard) -> None:
    pipeline = Pipeline([Model(opened(1), None)], health)
    feed(pipeline, 0, 80)
    pipeline.replace(Model(opened(2, other_shape(step_s=2.0)), None))
    assert not answers(feed(pipeline, 80, 100))


def test_a_new_policy_tells_nobody_twice(opened: Callable[..., Session], health: HealthBoard) -> None:
    session = opened(1)
    pipeline = Pipeline([Model(session, policy(session, 1, cooldown_s=1e6))], health)
    first = feed(pipeline, 0, 80)
    assert sum(len(each.events) for each in first) == 1
    pipeline.replace(Model(session, policy(session, 2, "score >= 0.001", cooldown_s=1e6)))
    assert not any(each.events for each in feed(pipeline, 80, 100))


def test_after_a_restart_a_successor_goes_on_where_its_predecessor_was(
    opened: Callable[..., Session], health: HealthBoard
) -> None:
    """The power went after the switch and before the windows were saved again."""
    before = Pipeline([Model(opened(1), None)], health)
    feed(before, 0, 80)
    after = Pipeline([Model(opened(2, other_shape()), None)], health)
    after.restore(before.memory(), 0)
    assert len(answers(feed(after, 80, 82))) == 2
    assert after.vitals("autoencoder").answers == 2, "what the one before did is not its own"
    again = Pipeline([Model(opened(2, other_shape()), None)], health)
    again.restore(after.memory(), 0)
    assert again.vitals("autoencoder").answers == 2


# Models: opening, examining, exchanging, with real worker processes.


class Rig:
    """Models over one fitted model and a store."""

    def __init__(self, folder: Path, health: HealthBoard) -> None:
        self.store = Store(folder / "updates")
        self.installed = Installed()
        fitted = model_folder(folder / "fitted", 1)
        config = ModelConfig(folder=fitted, runtime=models.INSTALLED[0])
        clock = HandClock()
        setting = Setting(1.0, clock, Desk(clock, health))
        self.models = Models([config], health, setting, self.store, lambda: self.installed)
        self.reports: list[ms.ModelReport] = []
        self.pipeline: Pipeline | None = None

    def use(self, pipeline: Pipeline, reports: list[ms.ModelReport]) -> None:
        self.pipeline, self.reports = pipeline, reports

    def put(self, release: int, change: Change | None = None) -> Choice:
        """A release in the store, as if it had been added."""
        sha256 = f"{release:064x}"
        model_folder(self.store.place(sha256), release, change)
        return Choice(self.store.place(sha256), sha256)

    def install(self, choice: Choice) -> None:
        manifest = mf.parse((choice.path / "manifest.json").read_bytes())
        path = f"models/autoencoder/{manifest.release}.tar"
        self.installed = self.installed.switched(Target(path, 1, choice.sha256, describe_model(manifest)))


METRICS = frozenset({"signal"})


def test_what_was_examined_takes_over_and_what_ran_is_given_back(tmp_path: Path, health: HealthBoard) -> None:
    rig = Rig(tmp_path, health)

    async def exchange() -> list[int]:
        await rig.models.run(rig.use)
        releases = [rig.reports[0].release]
        choice = rig.put(2)
        await rig.models.examine("autoencoder", choice, METRICS)
        assert rig.reports[0].release == 1, "examined beside what runs"
        rig.install(choice)
        await rig.models.bring("autoencoder", Kind.MODEL)
        releases.append(rig.reports[0].release)
        rig.installed = Installed()
        await rig.models.bring("autoencoder", Kind.MODEL)
        releases.append(rig.reports[0].release)
        return releases

    try:
        assert asyncio.run(exchange()) == [1, 2, 1]
    finally:
        rig.models.close()


@pytest.mark.parametrize(
    ("change", "wrong", "error"),
    [(None, True, ModelRefused), (other_shape("flow"), False, UpdateUnfit)],
    ids=["golden inputs fail", "no sensor for it"],
)
def test_what_is_not_fit_is_not_taken(
    tmp_path: Path, health: HealthBoard, change: Change | None, wrong: bool, error: type[Exception]
) -> None:
    rig = Rig(tmp_path, health)

    async def examine() -> None:
        await rig.models.run(rig.use)
        choice = rig.put(2, change)
        if wrong:
            models.replace_file(choice.path, "model.tflite", without_encoder())
        with pytest.raises(error):
            await rig.models.examine("autoencoder", choice, METRICS)
        assert rig.reports[0].release == 1

    try:
        asyncio.run(examine())
    finally:
        rig.models.close()


def test_an_installed_model_that_does_not_open_leaves_the_one_before(
    tmp_path: Path, health: HealthBoard
) -> None:
    rig = Rig(tmp_path, health)
    for release in (2, 3):
        rig.install(rig.put(release))
    (rig.store.place(f"{3:064x}") / "model.tflite").write_bytes(b"")

    async def start() -> None:
        await rig.models.run(rig.use)

    try:
        asyncio.run(start())
        assert rig.reports[0].release == 2
        assert "model.refused" in {each.code for each in health.reports()}
    finally:
        rig.models.close()


# Policies: what is raised for the one before does not outlive it, and a fallback is no success.


def put_policy(rig: Rig, release: int, more: str = "") -> Target:
    artifact = of_policy(policy_artifact(release).content + more.encode())
    file = rig.store.policy(artifact.target.sha256)
    file.parent.mkdir(parents=True)
    file.write_bytes(artifact.content)
    rig.installed = rig.installed.switched(artifact.target)
    return artifact.target


def test_a_policy_that_cannot_be_used_is_told_and_is_no_success(tmp_path: Path, health: HealthBoard) -> None:
    rig = Rig(tmp_path, health)

    async def exchange() -> None:
        put_policy(rig, 1)
        await rig.models.run(rig.use)
        newer = put_policy(rig, 2)
        rig.store.policy(newer.sha256).write_bytes(b"rotten")
        with pytest.raises(ModelRefused, match="another version runs"):
            await rig.models.bring("autoencoder", Kind.POLICY)
        assert rig.reports[0].policy == "watch 1.1"
        assert [each.code for each in health.reports()] == ["policy.refused"]
        await rig.models.bring("autoencoder", Kind.MODEL)
        rig.installed = rig.installed.taken_back(newer)
        await rig.models.bring("autoencoder", Kind.POLICY)
        assert not health.reports()

    try:
        asyncio.run(exchange())
    finally:
        rig.models.close()


@pytest.mark.parametrize("gone", ["the table", "the model"])
def test_what_was_said_of_a_calibration_goes_with_it(
    opened: Callable[..., Session], health: HealthBoard, gone: str
) -> None:
    session, clock = opened(1), HandClock()
    content = policy_artifact(1).content + table("0" * 64).encode()
    compiled = pl.CompiledPolicy(pl.parse(content), session.manifest)
    escalation = compiled.policy.escalation
    assert escalation is not None
    desk = Desk(clock, health)
    doubts = Doubts(session.digest, escalation, Phrasing(session.manifest), desk, clock, health)
    pipeline = Pipeline([Model(session, compiled, doubts)], health)
    feed(pipeline, 0, 80)
    assert [each.code for each in health.reports()] == ["escalation.uncalibrated"]
    if gone == "the table":
        pipeline.replace(Model(session, policy(session, 2)))
    else:
        pipeline.remove("autoencoder")
    feed(pipeline, 80, 100)
    assert not health.reports()
