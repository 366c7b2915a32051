"""Whatever a broker lets through, the subscriber reads it, sets it aside, or hangs up; it never sticks."""

from contextlib import closing
from pathlib import Path

import mqtt5
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_protocol.topics import Channel, topic
from fleet_server.errors import BrokerError
from fleet_server.link.mqtt import Arrival, Broker, Subscriber
from fleet_server.telemetry.admission import Admitted, Refusal, admit
from tests.support.batches import arrival, telemetry

UNUSED = Path("unused")
TOPIC = topic("gw-01", Channel.TELEMETRY)
GOOD = mqtt5.PublishPacket(
    TOPIC,
    b"payload",
    qos=mqtt5.QoS.AT_LEAST_ONCE,
    packet_id=77,
    content_type="text/plain",
    user_properties=[("sent", "abcd")],
).write()


def unconnected() -> Subscriber:
    return Subscriber(Broker("localhost", 1, "svc.x", UNUSED, UNUSED, UNUSED), [])


def parsed(data: bytes) -> tuple[list[Arrival], bytes]:
    """What comes of ``data``, and what is left of it."""
    with closing(unconnected()) as link:
        link._received += data
        link._parse()
        return list(link._inbox), bytes(link._received)


@pytest.mark.attack
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("part", "broken"),
    [(b"telemetry", b"telem\xfftry"), (b"abcd", b"ab\xffd"), (b"text/plain", b"text/\xed\xa0\x80in")],
    ids=["topic", "user property", "content type"],
)
def test_a_packet_against_the_rules_is_set_aside_and_can_be_acknowledged(part: bytes, broken: bytes) -> None:
    """It would be delivered again after every reconnect, and stop ingest for ever."""
    bad = GOOD.replace(part, broken)
    arrivals, rest = parsed(GOOD + bad + GOOD)
    assert [one.is_broken for one in arrivals] == [False, True, False]
    assert (arrivals[1].token, arrivals[1].payload, rest) == (77, bad, b"")
    assert isinstance(admit(arrivals[1]), Refusal)


@pytest.mark.attack
def test_a_broken_packet_is_refused_whatever_it_holds() -> None:
    whole = arrival(telemetry(1))
    assert isinstance(admit(whole), Admitted)
    assert isinstance(admit(whole._replace(is_broken=True)), Refusal)


@given(st.lists(st.integers(1, len(GOOD) * 3), max_size=6))
def test_packets_may_come_in_any_pieces(cuts: list[int]) -> None:
    data, start = GOOD * 3, 0
    with closing(unconnected()) as link:
        for cut in [*sorted(cuts), len(data)]:
            link._received += data[start:cut]
            link._parse()
            start = cut
        assert [one.topic for one in link._inbox] == [TOPIC] * 3
        assert not link._received


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@given(place=st.integers(0, len(GOOD) - 1), byte=st.integers(0, 255), tail=st.binary(max_size=40))
def test_no_packet_sticks(place: int, byte: int, tail: bytes) -> None:
    """After any damage either everything complete was consumed, or the connection is given up."""
    damaged = bytearray(GOOD)
    damaged[place] = byte
    try:
        _arrivals, rest = parsed(bytes(damaged) + tail)
        again, _rest = parsed(rest + b"\0" * (1 << 16))
    except BrokerError:
        return
    assert len(rest) < len(damaged) + len(tail) or again or place <= 2
