"""Messages on the wire: round trips, limits, and hostile bytes."""

import contextlib
import math
import random
import time
import tracemalloc

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fleet_protocol import messages as m
from fleet_protocol.errors import MessageError
from fleet_protocol.topics import Channel

EPOCH = "00112233445566aa"
BASE = m.TimeBase(EPOCH, 1_000, 1_763_800_000_000, m.ClockState.TRUSTED)
SPOKEN = (Channel.TELEMETRY, Channel.EVENT, Channel.STATUS, Channel.REPORTED, Channel.ACK)

names = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=20)
finite = st.floats(allow_nan=False, allow_infinity=False)
readings = st.builds(
    m.Reading,
    metric=st.integers(0, 65535),
    offset_ms=st.integers(-(2**40), 2**40),
    value=st.none() | finite,
    quality=st.sampled_from(m.Quality),
)
metrics = st.builds(
    m.Metric, id=st.integers(0, 65535), name=names, unit=names, kind=st.sampled_from(m.MetricKind)
)
inferences = st.builds(
    m.Inference,
    offset_ms=st.integers(-(2**40), 2**40),
    model=names,
    version=names,
    label=names,
    score=finite,
    confidence=finite,
    latency_us=st.integers(0, 2**40),
    uncertain=st.booleans(),
)
telemetry = st.builds(
    m.Telemetry,
    epoch=st.just(EPOCH),
    seq=st.integers(1, 2**53),
    base=st.just(BASE),
    metrics=st.lists(metrics, max_size=4),
    readings=st.lists(readings, max_size=8),
    inferences=st.lists(inferences, max_size=3),
)


def batch(**changes: object) -> m.Telemetry:
    fields = {
        "epoch": EPOCH,
        "seq": 1,
        "base": BASE,
        "metrics": [m.Metric(0, "pressure", "m")],
        "readings": [m.Reading(0, index * 100, 41.5) for index in range(20)],
        "inferences": [],
    }
    return m.Telemetry(**(fields | changes))  # type: ignore[arg-type]


@given(message=telemetry, written_as=st.sampled_from(m.Format))
def test_telemetry_survives_both_formats(message: m.Telemetry, written_as: m.Format) -> None:
    payload = m.encode(message, written_as)
    assert m.decode(Channel.TELEMETRY, payload, written_as.value) == message


def test_twenty_readings_stay_small() -> None:
    assert len(m.encode(batch())) < 400


@settings(max_examples=400)
@given(channel=st.sampled_from(SPOKEN), payload=st.binary(max_size=300), json=st.booleans())
def test_any_bytes_give_a_message_or_one_message_error(channel: Channel, payload: bytes, json: bool) -> None:
    kind = m.Format.JSON if json else m.Format.MSGPACK
    with contextlib.suppress(MessageError):
        m.decode(channel, payload, kind.value)


@settings(max_examples=300)
@given(message=telemetry, seed=st.integers(0, 2**32))
def test_a_damaged_message_never_raises_anything_else(message: m.Telemetry, seed: int) -> None:
    damaged = bytearray(m.encode(message))
    chance = random.Random(seed)
    for _ in range(chance.randint(1, 4)):
        damaged[chance.randrange(len(damaged))] = chance.randrange(256)
    with contextlib.suppress(MessageError):
        m.decode(Channel.TELEMETRY, bytes(damaged))


nested_objects = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=5),
    max_leaves=20,
)


@given(channel=st.sampled_from(SPOKEN), content=nested_objects)
@example(channel=Channel.TELEMETRY, content=["t1", EPOCH, 1, [], [], [], []])
def test_well_formed_nonsense_is_refused_or_taken_whole(channel: Channel, content: object) -> None:
    with contextlib.suppress(MessageError):
        m.decode(channel, msgspec.msgpack.encode(content))


@pytest.mark.parametrize(
    "bomb",
    [b"\x91" * 100_000, b"\xdd\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\x81\xa1a" * 30_000],
    ids=["nested arrays", "long array", "long binary", "nested maps"],
)
def test_bombs_cost_no_more_than_an_honest_message(bomb: bytes) -> None:
    honest = m.encode(batch(readings=[m.Reading(0, index, 41.5) for index in range(m.MAX_RECORDS)]))
    spent, memory = cost_of_decoding(honest)
    bomb_spent, bomb_memory = cost_of_decoding(bomb)
    assert bomb_memory < 8 * memory
    assert bomb_spent < 50 * spent


def cost_of_decoding(payload: bytes) -> tuple[float, int]:
    """Best of three, in CPU seconds, and the most bytes held."""
    spent = []
    for _ in range(3):
        started = time.process_time()
        decode_or_refuse(payload)
        spent.append(time.process_time() - started)
    tracemalloc.start()
    decode_or_refuse(payload)
    memory = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return min(spent), memory


def decode_or_refuse(payload: bytes) -> None:
    with contextlib.suppress(MessageError):
        m.decode(Channel.TELEMETRY, payload)


def test_too_long_is_refused_before_it_is_read() -> None:
    with pytest.raises(MessageError, match="at most 131072"):
        m.decode(Channel.TELEMETRY, bytes(m.MAX_PAYLOAD + 1))


def test_a_later_version_is_named_as_such() -> None:
    with pytest.raises(MessageError, match=r"version 't2'.*update the older side"):
        m.decode(Channel.TELEMETRY, msgspec.msgpack.encode(["t2", EPOCH, 1]))


def test_a_later_minor_addition_is_ignored() -> None:
    fields = msgspec.msgpack.decode(m.encode(batch()))
    assert m.decode(Channel.TELEMETRY, msgspec.msgpack.encode([*fields, "new"])) == batch()


def test_a_foreign_content_type_is_refused_with_the_known_ones() -> None:
    with pytest.raises(MessageError, match="argan\\+json"):
        m.decode(Channel.STATUS, b"{}", "text/plain")


def test_an_event_does_not_travel_as_telemetry() -> None:
    events = m.Events(EPOCH, 1, BASE, [])
    with pytest.raises(MessageError):
        m.decode(Channel.TELEMETRY, m.encode(events))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_none_are_refused(value: float) -> None:
    with pytest.raises(MessageError, match="finite"):
        m.decode(Channel.TELEMETRY, m.encode(batch(readings=[m.Reading(0, 0, value)])))
    event = m.Event(0, "leak", m.Severity.WARNING, "", "", {"score": value})
    with pytest.raises(MessageError, match="finite"):
        m.decode(Channel.EVENT, m.encode(m.Events(EPOCH, 1, BASE, [event])))


@pytest.mark.parametrize(
    "changes",
    [
        {"seq": 0},
        {"seq": 2**53 + 1},
        {"epoch": "short"},
        {"epoch": EPOCH + "\n"},
        {"base": m.TimeBase(EPOCH, 0, m.LAST_WALL_MS + 1, m.ClockState.TRUSTED)},
        {"metrics": [m.Metric(0, "nul\x00", "m")]},
        {"metrics": [m.Metric(70_000, "pressure", "m")]},
        {"readings": [m.Reading(0, 0, 1.0)] * (m.MAX_RECORDS + 1)},
    ],
)
def test_beyond_a_limit_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(MessageError):
        m.decode(Channel.TELEMETRY, m.encode(batch(**changes)))


def test_a_gap_that_ends_before_it_starts_is_refused() -> None:
    gap = m.Gap(EPOCH, 3, 5, 10, "quota", 0, 0, [])
    with pytest.raises(MessageError, match="ends before"):
        m.decode(Channel.TELEMETRY, m.encode(gap))
