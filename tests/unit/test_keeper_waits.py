"""After a power cut, on a board whose clock stood still: the memory waits until somebody knows the time."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_agent.clock import BUILD_MS, Clock
from edge_agent.pipeline.keeper import FILE_NAME, PATIENCE_MS, Keeper
from edge_agent.pipeline.memory import Memory, ModelMemory, decode, encode
from fleet_protocol.messages import ClockState, TimeBase
from tests.support.waiting import wait_until

CUT_MS = BUILD_MS + 86_400_000
"""When the power went, by a clock that was right."""

DARK_MS = 3_600_000
MODELS = [ModelMemory("ab", "p 1 1", None, 7, [])]
FRESH = [ModelMemory("cd", "p 1 1", None, 1, [])]


class Board:
    """A board that was dark for an hour and was started ten seconds ago; its clock missed the hour."""

    def __init__(self) -> None:
        self.wall_ms, self.mono_ms = CUT_MS + 10_000, 10_000
        self.synchronized = False
        self.clock = Clock(
            "f" * 16,
            may_stop=True,
            wall_ns=lambda: self.wall_ms * 1_000_000,
            mono_ns=lambda: self.mono_ms * 1_000_000,
            synchronized=lambda: self.synchronized,
        )

    def goes_on(self, ms: int) -> None:
        self.wall_ms += ms
        self.mono_ms += ms

    def learns_the_time(self) -> None:
        self.wall_ms += DARK_MS
        self.synchronized = True


class Pipeline:
    def __init__(self) -> None:
        self.given: list[tuple[list[ModelMemory], int]] = []
        self.now = FRESH

    def memory(self) -> list[ModelMemory]:
        return self.now

    def restore(self, models: list[ModelMemory], shift_ms: int) -> None:
        self.given.append((models, shift_ms))
        self.now = models


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """What was saved in the moment of the cut, 500 s after the start before."""
    file = tmp_path / FILE_NAME
    file.write_bytes(encode(Memory(1, TimeBase("0" * 16, 500_000, CUT_MS, ClockState.TRUSTED), MODELS)))
    return file


def run_until(keeper: Keeper, condition: Callable[[], object], what: str) -> None:
    async def run() -> None:
        running = asyncio.create_task(keeper.run())
        await asyncio.to_thread(wait_until, condition, what)
        running.cancel()

    asyncio.run(run())


def test_it_is_given_back_once_the_time_is_known(file: Path) -> None:
    board, pipeline = Board(), Pipeline()
    keeper = Keeper(file.parent, board.clock, 0.01)
    keeper.take(pipeline)
    assert pipeline.given == []
    board.goes_on(60_000)
    board.learns_the_time()
    run_until(keeper, lambda: pipeline.given, "the memory is given back")
    # The cut was 1 h 10 s before the start's tenth second, on a clock that then showed 500 s.
    assert pipeline.given == [(MODELS, 10_000 - 500_000 - 10_000 - DARK_MS)]


def test_what_waits_is_not_overwritten(file: Path) -> None:
    before = file.read_bytes()
    keeper = Keeper(file.parent, Board().clock)
    keeper.take(Pipeline())
    asyncio.run(keeper.save())
    assert file.read_bytes() == before


def test_it_does_not_wait_for_ever(file: Path) -> None:
    board, pipeline = Board(), Pipeline()
    keeper = Keeper(file.parent, board.clock, 0.01)
    keeper.take(pipeline)
    board.goes_on(PATIENCE_MS)
    run_until(keeper, lambda: decode(file.read_bytes()).models == FRESH, "what is new is saved")
    board.learns_the_time()
    assert pipeline.given == []


def test_what_was_saved_by_a_clock_that_nobody_believed_is_given_up_at_once(file: Path) -> None:
    file.write_bytes(encode(Memory(1, TimeBase("0" * 16, 500, CUT_MS, ClockState.UNTRUSTED), MODELS)))
    pipeline = Pipeline()
    keeper = Keeper(file.parent, Board().clock)
    keeper.take(pipeline)
    asyncio.run(keeper.save())
    assert pipeline.given == []
    assert decode(file.read_bytes()).models == FRESH


def test_what_does_not_fit_when_the_time_is_known_starts_anew(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Other(Pipeline):
        def restore(self, models: list[ModelMemory], shift_ms: int) -> None:
            super().restore(models, shift_ms)
            raise ValueError("it remembers windows of other features")

    board, pipeline = Board(), Other()
    keeper = Keeper(file.parent, board.clock, 0.01)
    keeper.take(pipeline)
    board.learns_the_time()
    run_until(keeper, lambda: pipeline.given, "the memory is given back")
    assert "windows start anew: it remembers windows of other features" in caplog.text
