"""A model in shadow: what is compared, what it may take, and how its order runs its course on a device."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import pytest

from edge_agent.config import load
from edge_agent.errors import ModelRefused, UpdateUnfit
from edge_agent.inference.session import Answer, Session, open_session
from edge_agent.pipeline.comparison import Comparison
from edge_agent.pipeline.distribution import LEAST, MOVED, distance, has_moved, histogram
from edge_agent.pipeline.memory import Memory, decode, encode
from edge_agent.pipeline.pipeline import Model, Pipeline
from edge_agent.pipeline.shadow import Shadow, Told
from edge_agent.pipeline.vitals import Pulse, Vitals
from edge_agent.sensors.base import MetricSpec, Sample
from edge_agent.service.health import HealthBoard
from edge_agent.updates import records
from edge_agent.updates.budget import Pace, require_memory, require_time
from edge_agent.updates.executor import ATTEMPTS
from edge_agent.updates.planner import Install, Refuse, Situation, plan
from edge_agent.updates.probation import Verdict, judge
from edge_agent.updates.telling import tell
from edge_agent.updates.updates import folder_of
from fleet_protocol.messages import ClockState, Inference, MetricKind, Quality, TimeBase
from fleet_protocol.targets import Kind, Mode, Refusal, Standing, Target
from fleet_protocol.update_states import UpdateState as S
from tests.support import models
from tests.support.drafts import HandClock
from tests.support.updating import calm, in_shadow, model_artifact, model_folder, policy_artifact
from tests.unit.test_updates_executor import SETTINGS, Bench

SIGNAL = MetricSpec("signal", "1", MetricKind.GAUGE)
STEP_MS = 1000


def answer(label: str, score: float, latency_us: int = 100) -> Answer:
    return Answer(label, score, 1.0, latency_us)


# The comparison.


def test_only_windows_that_both_answered_are_compared_in_whichever_order_they_come() -> None:
    comparison = Comparison()
    comparison.against("digest", "1.0")
    comparison.acted(1, answer("ok", 0.25, 100))
    comparison.answered(1, answer("leak", 0.75, 300))
    comparison.answered(3, answer("ok", 0.5, 300))
    comparison.acted(2, answer("ok", 0.25))
    comparison.acted(3, answer("ok", 0.5, 100))
    found = comparison.read()
    assert (found.windows, found.agreement, found.mean, found.largest) == (2, 0.5, 0.25, 0.5)
    assert [(each.acting, each.shadow, each.windows) for each in found.pairs] == [("ok", "leak", 1)]
    assert found.medians_us == (100, 300)
    comparison.against("another", "1.1")
    assert comparison.read().windows == 0, "what was compared with another one is over"


# The pipeline.


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[[int], Session]]:
    sessions: list[Session] = []

    def open_release(release: int) -> Session:
        folder = model_folder(tmp_path / str(release), release)
        sessions.append(open_session(folder, isolation="none", runtime=models.INSTALLED[0]))
        return sessions[-1]

    yield open_release
    for session in sessions:
        session.close()


class Elsewhere:
    """Asks at once, or later, or never, and keeps what would be reported."""

    def __init__(self, session: Session, *, busy: bool = False) -> None:
        self.session = session
        self.busy = busy
        self.asked = 0
        self.noted: list[tuple[Inference, int]] = []
        self.shadow = Shadow(session, 1.0, self.ask, lambda each, at: self.noted.append((each, at)))

    def ask(self, windows: Sequence[memoryview], told: Told) -> bool:
        if self.busy:
            return False
        self.asked += 1
        told(self.session.infer(windows))
        return True


def feed(pipeline: Pipeline, first: int, last: int) -> list[Inference]:
    found: list[Inference] = []
    for step in range(first, last):
        at = step * STEP_MS
        sample = Sample(SIGNAL, float(step % 7), Quality.GOOD, at)
        found += pipeline.process([sample], at).inferences
    return found


def test_a_shadow_sees_the_same_windows_from_its_first_step_on_and_is_no_answer_of_the_device(
    opened: Callable[[int], Session],
) -> None:
    pipeline = Pipeline([Model(opened(1), None)], HealthBoard(HandClock()))
    feed(pipeline, 0, 100)
    beside = Elsewhere(opened(2))
    pipeline.join(beside.shadow)
    own = feed(pipeline, 100, 130)
    assert not any(each.shadow for each in own)
    assert {each.version for each in own} == {"1.1"}
    assert [(each.version, each.shadow) for each, _at in beside.noted] == [("1.2", True)] * len(own)
    assert [each.score for each, _at in beside.noted] == [each.score for each in own], "the same windows"
    assert beside.shadow.report().windows == len(own) == 30
    assert beside.shadow.report().agreement == 1.0
    pipeline.part("autoencoder")
    feed(pipeline, 130, 140)
    assert len(beside.noted) == 30


def test_a_shadow_that_is_too_busy_misses_windows_and_costs_nobody_else_one(
    opened: Callable[[int], Session],
) -> None:
    pipeline = Pipeline([Model(opened(1), None)], HealthBoard(HandClock()))
    beside = Elsewhere(opened(2), busy=True)
    pipeline.join(beside.shadow)
    own = feed(pipeline, 0, 100)
    report = beside.shadow.report()
    assert (len(own) > 30, report.missed, report.failures) == (True, len(own), len(own))
    assert judge(beside.shadow.pulse.read(), Vitals(), 0.0, least_s=9.0, least_windows=9)[0] is Verdict.FAILED


def test_what_a_shadow_has_seen_and_compared_outlives_a_restart(opened: Callable[[int], Session]) -> None:
    board = HealthBoard(HandClock())
    before = Pipeline([Model(opened(1), None)], board)
    before.join(Elsewhere(opened(2)).shadow)
    feed(before, 0, 100)
    base = TimeBase("0" * 16, 100 * STEP_MS, 1, ClockState.TRUSTED)
    memory = decode(encode(Memory(1, base, before.memory())))
    after = Pipeline([Model(opened(1), None)], board)
    after.restore(memory.models, 0)
    assert encode(Memory(1, base, after.memory())) == encode(memory), "kept while the shadow is not back yet"
    beside = Elsewhere(opened(2))
    after.join(beside.shadow)
    windows = beside.shadow.report().windows
    assert windows > 30
    feed(after, 100, 110)
    assert beside.shadow.report().windows == windows + 10
    assert beside.asked == 10, "no window waits to fill anew"


# Time and memory.


def test_a_model_that_takes_half_of_its_step_is_unfit_and_a_shadow_gets_what_is_left() -> None:
    require_time("leak", Pace(400.0, 1000.0))
    with pytest.raises(UpdateUnfit, match=r"an answer takes 0\.6 ms here, and 0\.5 of the 1 ms"):
        require_time("leak", Pace(600.0, 1000.0))
    require_time("leak", Pace(200.0, 1000.0), [Pace(200.0, 1000.0)])
    with pytest.raises(UpdateUnfit):
        require_time("leak", Pace(400.0, 1000.0), [Pace(200.0, 1000.0)])


def test_what_takes_more_memory_than_the_profile_allows_is_unfit_unless_it_takes_no_more_than_today() -> None:
    require_memory("leak", 256, 200, 256)
    require_memory("leak", 300, 310, 256)
    with pytest.raises(UpdateUnfit, match="would take 300 MiB with it, the profile allows 256"):
        require_memory("leak", 300, 290, 256)


# The distribution.


def test_the_distance_is_by_how_much_the_mean_score_has_to_be_moved() -> None:
    low, high = histogram([0.05] * 70), histogram([0.95] * 70)
    assert distance(low, low) == 0.0
    assert distance(low, high) == pytest.approx(0.9)
    assert distance(low, histogram([0.05, 0.15] * 35)) == pytest.approx(0.05)
    assert histogram([-3.0, 12.0]) == (1, 0, 0, 0, 0, 0, 0, 0, 0, 1)
    assert has_moved(high, low) == pytest.approx(0.9)
    assert has_moved(histogram([0.95] * (LEAST - 1)), low) is None, "too few say nothing"
    assert has_moved((), ()) is None


def test_a_version_that_falls_silent_in_the_middle_of_an_alarm_does_not_stay() -> None:
    before, now = Pulse(), Pulse()
    for _window in range(LEAST):
        before.answered(0.95, 100, alarm=True)
        now.answered(0.02, 100, alarm=False)
    verdict, reason = judge(now.read(), before.usual(), 0.0, least_s=0.0, least_windows=8)
    assert verdict is Verdict.FAILED
    assert f"0.90 from those before, on the scale from 0 to 1; {MOVED} is allowed" in reason
    assert judge(before.read(), before.usual(), 0.0, least_s=0.0, least_windows=8)[0] is Verdict.PASSED


# The order's course.

ACTING, NEWER, POLICY = model_artifact(1), model_artifact(2), policy_artifact(1)
BESIDE = in_shadow(NEWER.target)


def accept_in_shadow(bench: Bench) -> None:
    file = bench.store.downloaded(BESIDE.sha256)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(NEWER.content)
    bench.executor.accept(BESIDE)
    bench.advance()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A device on which release 1 acts, and release 2 runs in shadow and has proved that it lives."""
    bench = Bench(tmp_path)
    bench.accept(ACTING)
    bench.advance()
    bench.runner.seen = bench.runner.shadows.seen = calm(20)
    bench.clock.advance(301_000)
    bench.advance()
    accept_in_shadow(bench)
    bench.clock.advance(301_000)
    bench.advance()
    return bench


def ordered(*targets: Target) -> list[tuple[Kind, str, str]]:
    return [(*target.key, target.sha256) for target in targets]


def test_acting_and_shadow_of_one_name_live_side_by_side(bench: Bench) -> None:
    assert (bench.state(ACTING.target), bench.state(BESIDE)) == (S.COMMITTED, S.COMMITTED)
    assert bench.runner.shadows.running == {"autoencoder": BESIDE.sha256}
    slots = {slot.current.key: slot.current.sha256 for slot in bench.executor.installed.slots if slot.current}
    assert slots == {ACTING.target.key: ACTING.target.sha256, BESIDE.key: BESIDE.sha256}
    assert bench.executor.is_watching
    bench.executor.sweep()
    assert bench.store.has(BESIDE.sha256)


def test_the_history_tells_what_acted_from_what_ran_in_shadow(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    told = [(each.subject, each.mode) for each in bench.executor.history.entries if each.state is S.COMMITTED]
    assert told == [(ACTING.target.path, Mode.ACT), (BESIDE.path, Mode.SHADOW)]
    (bench.folder / "agent.toml").write_text(SETTINGS)
    config = load(bench.folder / "agent.toml")
    records.save(folder_of(config), bench.executor.history)
    tell(config, "history", as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert ["  in shadow  " in line for line in lines] == [False, False, True, True]


def test_what_is_not_ordered_in_shadow_any_more_ends(bench: Bench) -> None:
    assert not bench.executor.settle(ordered(ACTING.target, BESIDE))
    (ended,) = bench.executor.settle(ordered(ACTING.target))
    assert ended.target == BESIDE
    bench.advance()
    assert not bench.runner.shadows.running
    assert bench.state(BESIDE) is None
    assert bench.state(ACTING.target) is S.COMMITTED
    assert not bench.store.has(BESIDE.sha256)
    assert not bench.executor.is_watching


def test_a_shadow_whose_model_acts_before_its_order_is_known_to_be_over_ends_all_the_same(
    bench: Bench,
) -> None:
    bench.accept(NEWER)  # while the same look still fetches something else
    bench.advance()
    bench.clock.advance(301_000)
    bench.advance()
    assert bench.state(NEWER.target) is S.COMMITTED
    bench.executor.settle(ordered(NEWER.target))
    bench.advance()
    assert not bench.runner.shadows.running


def test_a_shadow_that_fails_long_after_its_probation_ends_and_is_not_taken_again(bench: Bench) -> None:
    bench.runner.shadows.seen = Vitals(answers=20, failures=4)
    bench.advance()
    assert bench.state(BESIDE) is S.ROLLED_BACK
    assert not bench.runner.shadows.running
    assert bench.state(ACTING.target) is S.COMMITTED
    (failed,) = bench.executor.installed.failed
    assert (failed.name, failed.sha256) == ("autoencoder", BESIDE.sha256), "nor may the same bytes act"


def test_a_shadow_that_ends_the_agent_again_and_again_is_given_up(bench: Bench) -> None:
    bench.runner.shadows.seen = Vitals()
    for _start in range(ATTEMPTS):
        bench.reopened().resume()
    bench.advance()
    assert bench.state(BESIDE) is S.ROLLED_BACK
    assert bench.state(ACTING.target) is S.COMMITTED


def test_restarts_of_a_shadow_that_lives_do_not_count(bench: Bench) -> None:
    for turn in range(3 * ATTEMPTS):
        bench.reopened().resume()
        bench.runner.shadows.seen = calm(30 + turn)
        bench.advance()
    assert bench.state(BESIDE) is S.COMMITTED


def test_a_shadow_that_does_not_open_ends_alone(bench: Bench) -> None:
    bench.runner.shadows.failing = ModelRefused("no")
    bench.reopened().resume()
    bench.runner.shadows.failing = ModelRefused("its files have changed")

    async def advance() -> None:
        await bench.executor.advance(bench.runner)

    asyncio.run(advance())
    assert bench.state(BESIDE) is S.ROLLING_BACK
    bench.runner.shadows.failing = None
    bench.advance()
    assert bench.state(BESIDE) is S.ROLLED_BACK
    assert bench.state(ACTING.target) is S.COMMITTED


def test_what_there_is_no_room_for_is_tried_again_and_not_held_against_it(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.runner.shadows.refusing = UpdateUnfit("no memory is left for it")
    accept_in_shadow(bench)
    assert bench.state(BESIDE) is S.FAILED
    assert not bench.executor.installed.failed
    bench.runner.shadows.refusing = None
    accept_in_shadow(bench)
    assert bench.state(BESIDE) is S.PROBATION


def situation(target: Target, standing: Standing) -> Situation:
    return Situation("gw-7", {}, frozenset(), {target.key: standing}, lambda _description: [])


def test_a_shadow_is_planned_under_a_place_of_its_own_and_only_for_a_model() -> None:
    targets = [directed(ACTING.target), directed(BESIDE)]
    image = {target.path: target for target in (ACTING.target, NEWER.target)}
    steps = plan(targets, image, situation(BESIDE, Standing()))
    assert [type(step) for step in steps] == [Install, Install]
    (refused,) = plan([directed(in_shadow(POLICY.target))], {}, situation(BESIDE, Standing()))
    assert isinstance(refused, Refuse)
    assert (refused.refusal, refused.detail) == (Refusal.MALFORMED, "only a model can run in shadow")


def directed(target: Target) -> Target:
    """As the director names it, for this device."""
    description = msgspec.structs.replace(target.description, device="gw-7")
    return Target(target.path, target.length, target.sha256, description)
