"""Clock, backoff, health board, supervisor, poller, replay: the small parts of the core."""

import asyncio
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from edge_agent.backoff import FullJitter
from edge_agent.clock import BELIEVABLE_MS, BUILD_MS, Clock, boot_id
from edge_agent.config import Replay
from edge_agent.errors import SensorEnded, SensorRefused, SensorTimeout
from edge_agent.sensors.base import MetricSpec, Sample
from edge_agent.sensors.poller import Poller
from edge_agent.sensors.replay import ReplaySensor
from edge_agent.service.health import HealthBoard
from edge_agent.supervisor import Supervisor
from edge_agent.tasks import together
from fleet_protocol.health import CATALOG
from fleet_protocol.messages import ClockState, Quality
from tests.support.drafts import FLOW, PRESSURE, HandClock


class TestClock:
    @pytest.mark.parametrize(
        ("wall_ms", "state"),
        [
            (-1000, ClockState.UNTRUSTED),
            (0, ClockState.UNTRUSTED),
            (BUILD_MS - 1, ClockState.UNTRUSTED),
            (BUILD_MS, ClockState.TRUSTED),
            (BUILD_MS + BELIEVABLE_MS, ClockState.TRUSTED),
            (BUILD_MS + BELIEVABLE_MS + 1, ClockState.UNTRUSTED),
            (10**15, ClockState.UNTRUSTED),
        ],
    )
    def test_what_can_be_believed(self, wall_ms: int, state: ClockState) -> None:
        clock = HandClock(wall_ms=wall_ms)
        assert clock.now().clock is state
        assert clock.now().wall_ms >= 0

    def test_a_jump_is_told_once_and_slewing_is_none(self) -> None:
        clock = HandClock()
        clock.advance(60_000)
        assert clock.jump_ms() == 0
        clock.wall += 500
        assert clock.jump_ms() == 0
        clock.wall -= 3_600_000
        assert clock.jump_ms() == -3_599_500
        assert clock.jump_ms() == 0

    def test_the_real_one_moves_forward_and_knows_its_boot(self) -> None:
        clock = Clock(boot_id())
        first = clock.now()
        assert len(first.boot_id) == 16
        assert first.mono_ms > 0
        assert clock.now().mono_ms >= first.mono_ms


def test_waits_are_drawn_below_a_ceiling_that_doubles() -> None:
    backoff = FullJitter(1.0, 8.0)
    draws = [
        [FullJitter.next_s(each) for _ in range(6)] for each in [FullJitter(1.0, 8.0) for _ in range(200)]
    ]
    for number, ceiling in enumerate([1.0, 2.0, 4.0, 8.0, 8.0, 8.0]):
        column = [draw[number] for draw in draws]
        assert max(column) <= ceiling
        assert max(column) > ceiling * 0.8
        assert min(column) < ceiling * 0.2
    for _ in range(10_000):
        assert backoff.next_s() <= 8.0
    backoff.reset()
    assert backoff.next_s() <= 1.0


class TestHealthBoard:
    def test_only_codes_of_the_catalog(self) -> None:
        with pytest.raises(KeyError):
            HealthBoard(HandClock()).raise_code("no.such")

    def test_each_subject_is_raised_and_cleared_by_itself(self) -> None:
        clock = HandClock()
        board = HealthBoard(clock)
        board.raise_code("sensor.timeout", "no answer", subject="a")
        clock.advance(5)
        board.raise_code("sensor.timeout", "no\nanswer", subject="b")
        assert [report.detail for report in board.reports()] == ["a: no answer", "b: no answer"]
        board.clear("sensor.timeout", subject="a")
        assert [report.detail for report in board.reports()] == ["b: no answer"]

    def test_what_is_raised_again_keeps_its_beginning_and_is_no_change(self) -> None:
        clock = HandClock()
        board = HealthBoard(clock)
        board.raise_code("link.down", "x")
        since = board.reports()[0].since_wall_ms
        board.changed.clear()
        clock.advance(1000)
        board.raise_code("link.down", "x")
        assert not board.changed.is_set()
        board.raise_code("link.down", "y")
        assert board.changed.is_set()
        assert board.reports()[0].since_wall_ms == since


class TestSupervisor:
    def test_a_failed_task_is_started_again_after_a_pause_and_told(self) -> None:
        board = HealthBoard(HandClock())
        starts: list[float] = []
        third = asyncio.Event()

        async def failing() -> None:
            starts.append(asyncio.get_running_loop().time())
            if len(starts) == 1:
                raise SensorTimeout("no answer")
            if len(starts) == 2:
                raise RuntimeError("bug")
            third.set()

        async def other() -> None:
            await third.wait()

        supervisor = Supervisor(board, base_s=0.01, cap_s=0.02, least_s=0.05)
        asyncio.run(asyncio.wait_for(supervisor.run({"failing": failing, "other": other}), 10))
        assert [later - earlier >= 0.05 for earlier, later in pairwise(starts)] == [True] * 2
        assert [(report.code, report.detail) for report in board.reports()] == [
            ("sensor.timeout", "failing: no answer"),
            ("agent.fault", "failing: RuntimeError: bug"),
        ]

    def test_a_task_that_swallows_its_cancellation_is_ended_all_the_same(self) -> None:
        swallowed: list[str] = []
        started = asyncio.Event()

        async def stubborn() -> None:
            started.set()
            while True:
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    swallowed.append("once more")
                    if len(swallowed) == 2:
                        raise

        async def scenario() -> None:
            supervising = asyncio.ensure_future(
                together({"outer": lambda: together({"stubborn": stubborn}, 0.02)}, 0.01)
            )
            await started.wait()
            supervising.cancel()
            with pytest.raises(asyncio.CancelledError):
                await supervising
            assert not {task.get_name() for task in asyncio.all_tasks()} & {"outer", "stubborn"}

        asyncio.run(asyncio.wait_for(scenario(), 10))
        assert len(swallowed) == 2

    def test_the_first_failure_is_raised_once_the_others_have_ended(self) -> None:
        ended: list[str] = []

        async def failing() -> None:
            raise SensorTimeout("first")

        async def other() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.append("other")

        with pytest.raises(SensorTimeout, match="first"):
            asyncio.run(together({"failing": failing, "other": other}, 1.0))
        assert ended == ["other"]

    def test_every_family_raises_a_known_code(self) -> None:
        from edge_agent import errors

        families = [value for value in vars(errors).values() if isinstance(value, type)]
        codes = {family.code for family in families if issubclass(family, errors.AgentError)} - {""}
        assert codes <= set(CATALOG)
        assert len(codes) == 13


class Scripted:
    """A sensor that does what its script says."""

    name = "plc"
    kind = "scripted"
    metrics = (FLOW, PRESSURE)
    interval_s = 0.001

    def __init__(self, *script: list[Sample] | Exception) -> None:
        self._script: Iterator[list[Sample] | Exception] = iter(script)
        self.closed = False

    async def poll(self) -> list[Sample]:
        step = next(self._script, SensorEnded("over"))
        if isinstance(step, Exception):
            raise step
        return step

    async def close(self) -> None:
        self.closed = True


def test_a_failed_poll_is_told_as_bad_samples_and_as_a_code() -> None:
    clock = HandClock()
    board = HealthBoard(clock)
    good = [Sample(FLOW, 1.0, Quality.GOOD, 0)]
    partly = [Sample(FLOW, 2.0, Quality.GOOD, 0), Sample(PRESSURE, None, Quality.BAD, 0)]
    taken: list[tuple[list[tuple[str, float | None]], list[str]]] = []

    async def take(samples: list[Sample]) -> None:
        codes = [report.code for report in board.reports()]
        taken.append(([(sample.metric.name, sample.value) for sample in samples], codes))

    sensor = Scripted(good, SensorTimeout("no answer"), SensorRefused("busy", partly), good, good)
    asyncio.run(asyncio.wait_for(Poller(sensor, clock, board, take).run(), 10))
    assert taken == [
        ([("flow", 1.0)], []),
        ([("flow", None), ("pressure", None)], []),
        ([("flow", 2.0), ("pressure", None)], ["sensor.timeout"]),
        ([("flow", 1.0)], ["sensor.refused"]),
        ([("flow", 1.0)], []),
    ]
    assert [report.code for report in board.reports()] == ["sensor.ended"]
    assert sensor.closed


class TestReplay:
    def poll(self, sensor: ReplaySensor, count: int) -> list[list[float | None]]:
        async def polls() -> list[list[float | None]]:
            return [[sample.value for sample in await sensor.poll()] for _ in range(count)]

        return asyncio.run(polls())

    def config(self, path: Path, **rest: object) -> Replay:
        columns = {"flow": "Flow", "pressure": "P"}
        settings: dict[str, object] = {"interval_s": 1.0, "units": {"flow": "l/s"}} | rest
        return Replay(name="r", path=path, columns=columns, **settings)  # type: ignore[arg-type]

    def test_rows_become_samples_and_an_empty_cell_a_bad_one(self, tmp_path: Path) -> None:
        path = tmp_path / "r.csv"
        path.write_text("Time,Flow,P\nx,1.5,2\ny,,3\n")
        sensor = ReplaySensor(self.config(path), HandClock(), 1.0)
        assert sensor.metrics[0] == MetricSpec("flow", "l/s", FLOW.kind)
        assert self.poll(sensor, 2) == [[1.5, 2.0], [None, 3.0]]
        with pytest.raises(SensorEnded):
            self.poll(sensor, 1)

    def test_a_cell_that_is_no_number_is_refused_and_the_rest_of_the_row_kept(self, tmp_path: Path) -> None:
        path = tmp_path / "r.csv"
        path.write_text("Flow,P\nn/a,2\n1,nan\n")
        sensor = ReplaySensor(self.config(path), HandClock(), 1.0)
        with pytest.raises(SensorRefused, match="n/a") as refused:
            self.poll(sensor, 1)
        assert [sample.value for sample in refused.value.samples] == [None, 2.0]

    def test_a_repeated_recording_goes_on(self, tmp_path: Path) -> None:
        path = tmp_path / "r.csv"
        path.write_text("Flow,P\n1,2\n3,4\n")
        sensor = ReplaySensor(self.config(path, repeat=True), HandClock(), 1.0)
        assert self.poll(sensor, 5) == [[1, 2], [3, 4], [1, 2], [3, 4], [1, 2]]

    def test_an_empty_recording_that_repeats_ends_all_the_same(self, tmp_path: Path) -> None:
        path = tmp_path / "r.csv"
        path.write_text("Flow,P\n")
        with pytest.raises(SensorEnded):
            self.poll(ReplaySensor(self.config(path, repeat=True), HandClock(), 1.0), 1)

    @pytest.mark.parametrize(
        ("content", "reason"), [(None, "No such file"), ("A,B\n1,2\n", "no column 'Flow'")]
    )
    def test_what_cannot_be_replayed_says_why(self, tmp_path: Path, content: str | None, reason: str) -> None:
        path = tmp_path / "r.csv"
        if content:
            path.write_text(content)
        with pytest.raises(SensorRefused, match=reason):
            self.poll(ReplaySensor(self.config(path), HandClock(), 1.0), 1)

    def test_as_recorded_waits_as_long_divided_by_the_factor(self, tmp_path: Path) -> None:
        path = tmp_path / "r.csv"
        path.write_text("T,Flow,P\n2022-03-01 10:00,1,2\n2022-03-01T11:00:00,3,4\n")
        sensor = ReplaySensor(self.config(path, interval_s=None, time_column="T"), HandClock(), 3600 / 0.2)

        async def elapsed() -> float:
            loop = asyncio.get_running_loop()
            await sensor.poll()
            began = loop.time()
            await sensor.poll()
            return loop.time() - began

        assert 0.15 < asyncio.run(elapsed()) < 5.0

    def test_parquet_is_the_same(self, tmp_path: Path) -> None:
        pyarrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        path = tmp_path / "r.parquet"
        parquet.write_table(pyarrow.table({"Flow": [1.0, None], "P": [2, 3]}), path)
        assert self.poll(ReplaySensor(self.config(path), HandClock(), 1.0), 2) == [[1.0, 2.0], [None, 3.0]]

    def test_parquet_without_pyarrow_says_what_to_do(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
        with pytest.raises(SensorRefused, match="install it, or convert the recording to CSV"):
            self.poll(ReplaySensor(self.config(tmp_path / "r.parquet"), HandClock(), 1.0), 1)
