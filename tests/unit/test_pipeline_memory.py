"""What a pipeline remembers: windows, streaks and pauses go on after a restart, or start anew."""

import asyncio
import math
from array import array
from pathlib import Path

import pytest

from edge_agent.clock import Clock
from edge_agent.pipeline.keeper import FILE_NAME, Keeper
from edge_agent.pipeline.memory import Memory, ModelMemory, decode, encode, shift_ms
from edge_agent.pipeline.rules import Rules
from edge_agent.pipeline.windows import Due, Windows
from fleet_protocol.manifest import Feature, FeatureKind
from fleet_protocol.messages import ClockState, TimeBase
from fleet_protocol.policy import CompiledPolicy, Outcome, Policy, Rule
from tests.support.manifests import small_manifest

LENGTH = 4
BOOT = "00112233445566aa"


def windows() -> Windows:
    feature = Feature(metric="pressure", kind=FeatureKind.STANDARD, length=LENGTH)
    return Windows([feature], step_s=1.0)


def feed(into: Windows, values: list[float], start_ms: int) -> list[list[float]]:
    """One value a second; every window that fell due."""
    found = []
    for index, value in enumerate(values):
        at = start_ms + 1000 * index
        while into.behind(at):
            due = into.close(at)
            if isinstance(due, Due):
                found.append(list(due.windows[0]))
        into.add("pressure", value, at)
    return found


@pytest.mark.parametrize("until", [1, 3, 5, 9])
def test_windows_go_on_as_if_there_had_been_no_restart(until: int) -> None:
    values = [float(number) for number in range(14)]
    whole = feed(windows(), values, 10_000)
    first, second = windows(), windows()
    before = feed(first, values[:until], 10_000)
    # The next sample closes the bucket; what is open at the end is lost with the process.
    at = 10_000 + 1000 * until
    while first.behind(at):
        due = first.close(at)
        before += [list(due.windows[0])] if due else []
    memory = first.memory()
    assert memory is not None
    second.restore(memory, 0)
    assert before + feed(second, values[until:], at) == whole


def test_windows_of_other_features_are_refused() -> None:
    first = windows()
    feed(first, [1.0, 2.0], 0)
    memory = first.memory()
    assert memory is not None
    two = [Feature(metric=name, kind=FeatureKind.STANDARD, length=LENGTH) for name in ("pressure", "flow")]
    with pytest.raises(ValueError, match="other features"):
        Windows(two, step_s=1.0).restore(memory, 0)


def test_a_long_absence_starts_the_window_anew() -> None:
    first, second = windows(), windows()
    feed(first, [1.0] * 8, 0)
    memory = first.memory()
    assert memory is not None
    second.restore(memory, 0)
    found = feed(second, [9.0] * LENGTH, 60_000)
    assert all(9.0 not in window for window in found)
    assert feed(second, [9.0] * 3, 60_000 + 1000 * LENGTH)[0] == [9.0] * LENGTH


def rules() -> Rules:
    rule = Rule(name="high", when="score > 0.5", outcome=Outcome.EVENT, for_windows=3, cooldown_s=60.0)
    policy = Policy(format=1, name="p", version="1", release=1, model="pressure_leak", rules=(rule,))
    return Rules(CompiledPolicy(policy, small_manifest()))


def test_streaks_and_pauses_go_on_on_the_new_clock() -> None:
    answers = {"label": "leak", "score": 0.9, "confidence": 0.9, "reading.pressure": 1.0}
    first, second = rules(), rules()
    assert not first.judge(answers, 1000).events
    assert not first.judge(answers, 2000).events
    second.restore(first.memory(), shift_ms=-1000)
    assert second.judge(answers, 2000).events
    third = rules()
    third.restore(second.memory(), shift_ms=50_000)
    assert not third.judge(answers, 2000 + 50_000 + 59_000).events
    assert third.judge(answers, 2000 + 50_000 + 60_000).events


@pytest.mark.parametrize(
    ("then", "now", "shift"),
    [
        (TimeBase(BOOT, 500, 10_000, ClockState.UNTRUSTED), TimeBase(BOOT, 900, 0, ClockState.UNTRUSTED), 0),
        (
            TimeBase(BOOT, 500, 10_000, ClockState.TRUSTED),
            TimeBase("f" * 16, 200, 12_000, ClockState.TRUSTED),
            -2300,
        ),
        (
            TimeBase(BOOT, 500, 10_000, ClockState.TRUSTED),
            TimeBase("f" * 16, 200, 9_000, ClockState.TRUSTED),
            None,
        ),
        (
            TimeBase(BOOT, 500, 10_000, ClockState.TRUSTED),
            TimeBase("f" * 16, 2, 12_000, ClockState.UNTRUSTED),
            None,
        ),
    ],
    ids=["same boot", "another boot", "clock set back", "clock not trusted"],
)
def test_times_are_carried_over_only_by_clocks_that_can_be_trusted(
    then: TimeBase, now: TimeBase, shift: int | None
) -> None:
    assert shift_ms(then, now) == shift


class Pipeline:
    """Remembers what it is told."""

    def __init__(self, models: list[ModelMemory]) -> None:
        self.models = models
        self.shift = math.nan

    def memory(self) -> list[ModelMemory]:
        return self.models

    def restore(self, models: list[ModelMemory], shift_ms: int) -> None:
        self.models, self.shift = models, shift_ms


def remembered() -> list[ModelMemory]:
    source = windows()
    feed(source, [1.0, 2.0, 3.0], 0)
    return [ModelMemory("ab", "p 1 1", source.memory(), 7, [])]


def test_the_file_gives_back_what_was_saved(tmp_path: Path) -> None:
    keeper = Keeper(tmp_path, Clock(BOOT))
    keeper.take(Pipeline(remembered()))
    asyncio.run(keeper.save())
    successor = Pipeline([])
    Keeper(tmp_path, Clock(BOOT)).take(successor)
    assert successor.models == remembered()
    assert successor.shift == 0
    assert not list(tmp_path.glob("*.draft"))


@pytest.mark.parametrize(
    "content",
    [b"", b"\x93\x02", b"not ours", encode(Memory(1, TimeBase(BOOT, 1, 1, ClockState.UNTRUSTED), []))[:-1]],
)
def test_a_file_that_is_none_starts_anew(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    pipeline = Pipeline([])
    Keeper(tmp_path, Clock(BOOT)).take(pipeline)
    assert math.isnan(pipeline.shift)


def test_a_memory_survives_its_encoding() -> None:
    memory = Memory(1, TimeBase(BOOT, 1, 1, ClockState.TRUSTED), remembered())
    assert decode(encode(memory)) == memory
    assert memory.models[0].windows is not None
    assert array("f", memory.models[0].windows.rings[0]).tolist() == [1.0, 2.0]
