"""The center's pure parts: what is let in, whose turn it is, and what the central model is shown."""

import math
import struct
from array import array
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet_protocol.central import CentralManifest
from fleet_protocol.messages import MAX_PAYLOAD, ClockState, Request, Series, encode
from fleet_protocol.topics import Channel, topic
from fleet_server.escalation.admission import Question, Refusal, admit, grid, objection
from fleet_server.escalation.fairness import (
    MAX_WAITING,
    MAX_WAITING_OF_DEVICE,
    Budgets,
    FairQueue,
)
from fleet_server.escalation.windows import Stored, tensors
from fleet_server.link.mqtt import Arrival
from tests.support.escalating import question
from tests.unit.test_central_manifest import manifest

NOW_MS = 1_800_000_000_000


def arrival(request: Request | bytes, device: str = "gw-1", **changes: Any) -> Arrival:
    is_request = isinstance(request, Request)
    fields: dict[str, Any] = {
        "topic": topic(device, Channel.REQUEST),
        "payload": encode(request) if is_request else request,
        "retain": False,
        "received_ms": NOW_MS,
        "response_topic": topic(device, Channel.ANSWER),
        "correlation": bytes.fromhex(request.id) if is_request else b"",
        "expiry_s": 5,
    }
    return Arrival(**(fields | changes))


def admitted(device: str = "gw-1", *, expiry_s: int | None = 5, **changes: Any) -> Question:
    fields: dict[str, Any] = {"model": "pressure_leak", "wall_ms": NOW_MS} | changes
    found = admit(arrival(question(**fields), device, expiry_s=expiry_s))
    assert isinstance(found, Question)
    return found


def test_a_question_is_let_in_with_what_is_left_of_its_deadline() -> None:
    assert admitted(deadline_ms=5000).left_ms == 5000
    assert admitted(deadline_ms=4200).left_ms == 4200
    assert admitted(deadline_ms=4200, expiry_s=3).left_ms == 2200
    assert admitted(deadline_ms=4200, expiry_s=None).left_ms == 4200
    assert admitted(deadline_ms=4200, expiry_s=60).left_ms == 4200


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"topic": "argan/v1/gw-1/up/telemetry"}, "no question comes on up/telemetry"),
        ({"topic": "other"}, "topic"),
        ({"retain": True}, "retained"),
        ({"is_broken": True}, "rules of MQTT"),
        ({"response_topic": None}, "response topic"),
        ({"response_topic": "argan/v1/gw-2/down/answer"}, "response topic"),
        ({"response_topic": "argan/v1/gw-1/down/command"}, "response topic"),
        ({"response_topic": "argan/v1/gw-1/down/answer/x"}, "response topic"),
        ({"correlation": None}, "correlation"),
        ({"correlation": b"\0" * 16}, "correlation"),
        ({"payload": b"x"}, "no up/request message"),
        ({"payload": bytes(MAX_PAYLOAD + 1)}, "at most"),
        ({"content_type": "text/plain"}, "content type"),
    ],
)
def test_what_is_not_let_in(changes: dict[str, Any], reason: str) -> None:
    found = admit(arrival(question(), **changes))
    assert isinstance(found, Refusal)
    assert reason in found.reason


@settings(max_examples=300)
@given(st.binary(max_size=300))
def test_any_bytes_are_a_question_or_a_refusal(payload: bytes) -> None:
    assert isinstance(admit(arrival(payload)), Question | Refusal)


@settings(max_examples=300)
@given(
    st.binary(max_size=64),
    st.floats(min_value=0.0, exclude_min=True),
    st.integers(0, 253_402_300_799_000),
    st.sampled_from(ClockState),
)
def test_any_series_and_step_are_computed_with_or_refused(
    values: bytes, step_ms: float, wall_ms: int, clock: ClockState
) -> None:
    asked = admitted(series=[Series("flow", values)], step_ms=step_ms, wall_ms=wall_ms, clock=clock)
    model = manifest()
    if objection(asked, model) is not None:
        return
    place = grid(asked, model)
    assert place.step_us > 0
    assert abs(place.end_ms - NOW_MS) <= 3_600_000
    shown = tensors(model, [], "gw-1", asked.request.series)
    assert all(map(math.isfinite, array("f", shown["readings"].values)))


@pytest.mark.parametrize(
    ("device", "changes", "reason"),
    [
        ("gw-1", {}, None),
        ("gw-9", {}, "does not know this device"),
        ("gw-1", {"model": "other"}, "does not serve other"),
        ("gw-1", {"step_ms": 900_000.0}, None),
        ("gw-1", {"step_ms": 900_001.0}, "a step of"),
        ("gw-1", {"step_ms": 0.5}, "a step of"),
        ("gw-1", {"series": [Series("other", b"")]}, "no metric"),
        ("gw-1", {"series": [Series("flow", b""), Series("flow", b"")]}, "twice"),
        ("gw-1", {"series": [Series("flow", b""), Series("other", b"123")]}, "no number"),
        ("gw-1", {"series": [Series("flow", struct.pack("<f", math.nan))]}, "no number"),
    ],
)
def test_what_the_central_model_can_be_asked(
    device: str, changes: dict[str, Any], reason: str | None
) -> None:
    found = objection(admitted(device, **changes), manifest())
    assert found is None if reason is None else reason in (found or "")


def test_a_believable_clock_dates_the_window_and_another_does_not() -> None:
    model = manifest()
    assert grid(admitted(wall_ms=NOW_MS - 7000), model).end_ms == NOW_MS - 7000
    assert grid(admitted(wall_ms=NOW_MS - 7_200_000), model).end_ms == NOW_MS
    assert grid(admitted(wall_ms=NOW_MS + 7_200_000), model).end_ms == NOW_MS
    assert grid(admitted(clock=ClockState.UNTRUSTED), model).end_ms == NOW_MS
    found = grid(admitted(step_ms=2.5), model)
    assert (found.step_us, found.steps) == (2500, 96)
    assert found.start_us == NOW_MS * 1000 - 96 * 2500


def small(steps: int = 3) -> CentralManifest:
    return manifest(steps=steps)


def cube(values: bytes) -> list[list[list[float]]]:
    """Numbers by gateway and metric, for two of each and three steps."""
    numbers = array("f", values).tolist()
    rows = [numbers[start : start + 3] for start in range(0, 12, 3)]
    return [rows[:2], rows[2:]]


def test_what_was_measured_stands_at_its_place_and_the_rest_is_masked() -> None:
    found = [Stored("gw-1", "flow", [0], [1.0]), Stored("gw-2", "pressure", [2], [9.0])]
    shown = tensors(small(), found, "gw-1", [])
    assert shown["readings"].shape == shown["mask"].shape == (1, 2, 2, 3)
    assert cube(shown["readings"].values) == [[[1, 0, 0], [0, 0, 0]], [[0, 0, 0], [0, 0, 9]]]
    assert cube(shown["mask"].values) == [[[1, 0, 0], [0, 0, 0]], [[0, 0, 0], [0, 0, 1]]]


@pytest.mark.parametrize(
    ("given_", "row", "mask"),
    [
        ([], [5, 5, 0], [1, 1, 0]),
        ([7], [5, 5, 7], [1, 1, 1]),
        ([7, 8], [5, 7, 8], [1, 1, 1]),
        ([7, 8, 9], [7, 8, 9], [1, 1, 1]),
        ([1, 2, 3, 7, 8, 9], [7, 8, 9], [1, 1, 1]),
    ],
)
def test_the_askers_series_ends_with_the_window_and_wins(
    given_: list[float], row: list[float], mask: list[float]
) -> None:
    found = [Stored("gw-2", "flow", [1, 0], [5.0, 5.0])]
    series = [Series("flow", array("f", given_).tobytes()), Series("unknown", b"1234")]
    shown = tensors(small(), found, "gw-2", series)
    assert cube(shown["readings"].values) == [[[0, 0, 0], [0, 0, 0]], [row, [0, 0, 0]]]
    assert cube(shown["mask"].values) == [[[0, 0, 0], [0, 0, 0]], [mask, [0, 0, 0]]]


def test_each_device_has_its_turn() -> None:
    waiting: FairQueue[str] = FairQueue()
    for number in range(3):
        assert waiting.push("loud", f"loud {number}")
    waiting.push("soft", "soft 0")
    waiting.push("late", "late 0")
    assert len(waiting) == 5
    turns = [waiting.pop() for _turn in range(6)]
    assert turns == ["loud 0", "soft 0", "late 0", "loud 1", "loud 2", None]
    assert len(waiting) == 0


def test_a_queue_is_bounded_for_each_and_for_all() -> None:
    waiting: FairQueue[int] = FairQueue()
    assert [waiting.push("gw", number) for number in range(MAX_WAITING_OF_DEVICE + 1)].count(False) == 1
    others = [waiting.push(f"gw-{number}", number) for number in range(MAX_WAITING)]
    assert others.count(True) == MAX_WAITING - MAX_WAITING_OF_DEVICE
    waiting.pop()
    assert waiting.push("gw-new", 0)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=200))
def test_nothing_is_lost_or_doubled_and_each_device_keeps_its_order(moves: list[tuple[str, bool]]) -> None:
    waiting: FairQueue[tuple[str, int]] = FairQueue()
    pushed, popped = [], []
    for number, (device, takes) in enumerate(moves):
        if takes:
            found = waiting.pop()
            popped += [found] if found else []
        elif waiting.push(device, (device, number)):
            pushed.append((device, number))
    while (found := waiting.pop()) is not None:
        popped.append(found)
    assert sorted(popped) == sorted(pushed)
    for device in "abc":
        mine = [one for one in popped if one[0] == device]
        assert mine == sorted(mine)


def test_budgets_bound_a_device_and_all_of_a_tenant() -> None:
    budgets = Budgets(device_per_hour=12.0, tenant_per_hour=18.0)
    assert [budgets.objection("city", "gw-1", 0.0) for _time in range(3)] == [
        None,
        None,
        "this device has used up what it may ask",
    ]
    assert budgets.objection("city", "gw-2", 0.0) is None
    assert budgets.objection("city", "gw-2", 0.0) == "all devices together have used up what they may ask"
    assert budgets.objection("town", "gw-1", 300.0) is None
