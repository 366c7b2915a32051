"""How much a device may send: floods are refused, whoever was away is not, and nobody else notices."""

from pathlib import Path

from fleet_protocol.messages import encode
from fleet_protocol.topics import Channel, topic
from fleet_server.config import Settings, resolve
from fleet_server.identity.quarantine import REFUSED_AT_ONCE, REFUSED_PER_S, Patience
from fleet_server.link.mqtt import Arrival
from fleet_server.telemetry.admission import Judged, judge
from fleet_server.telemetry.allowances import Allowances, Limits
from tests.support.batches import telemetry

PAYLOAD = encode(telemetry(1))
LIMITS = Limits(10.0, 10_000.0, 100.0, 100_000.0)
WINDOW = 200
"""Batches that an agent has under way in one stream."""


def sent(device: str, count: int, payload: bytes = PAYLOAD) -> Judged:
    return judge([Arrival(topic(device, Channel.TELEMETRY), payload, False, 0)] * count)


def test_what_is_beyond_the_allowance_is_refused_and_the_rest_is_taken() -> None:
    judged = Allowances(LIMITS).within(sent("gw-a", 150), 0.0)
    assert (len(judged.admitted), len(judged.refused)) == (100, 50)
    assert {one.reason for one in judged.refused} == {"the device sends more than it may"}


def test_bytes_count_too() -> None:
    limits = Limits(10.0, 10_000.0, 1e6, len(PAYLOAD) * 2.5)
    judged = Allowances(limits).within(sent("gw-a", 4), 0.0)
    assert (len(judged.admitted), len(judged.refused)) == (2, 2)


def test_another_device_does_not_pay_for_it() -> None:
    allowances = Allowances(LIMITS)
    allowances.within(sent("gw-a", 500), 0.0)
    flood, other = sent("gw-a", 50), sent("gw-b", 50)
    judged = allowances.within(Judged(flood.admitted + other.admitted, []), 0.0)
    assert {one.device for one in judged.admitted} == {"gw-b"}
    assert len(judged.admitted) == 50


def test_the_steady_rate_comes_back() -> None:
    allowances = Allowances(LIMITS)
    allowances.within(sent("gw-a", 500), 0.0)
    assert len(allowances.within(sent("gw-a", 500), 5.0).admitted) == 50


def test_a_gateway_of_500_metrics_passes_by_default_for_ever_and_with_weeks_of_backlog() -> None:
    config = resolve(Path(), Settings())
    limits = Limits(
        config.device_messages_per_s,
        config.device_bytes_per_s,
        config.device_backlog_messages,
        config.device_backlog_bytes,
    )
    allowances = Allowances(limits)
    payload = b"x" * 12_000
    assert limits.messages_per_s > 2
    assert limits.bytes_per_s > 2 * len(payload)
    judged = Judged(
        [one._replace(arrival=one.arrival._replace(payload=payload)) for one in sent("gw", 1000).admitted], []
    )
    # Two weeks at a message a second, thinned to what the largest spool holds, and all within a second.
    for _batch in range(1024**3 // (1000 * len(payload))):
        assert not allowances.within(judged, 0.0).refused


def test_an_agent_that_is_refused_everything_is_never_put_out() -> None:
    """Both windows again at every repetition of its waits, and two live messages a second beside them."""
    patience, refused, waits = Patience(), 0, [15.0, 30.0, 60.0, 120.0, 240.0, *[300.0] * 100]
    now_s, due_s = 0.0, 0.0
    patience.exhausted({("t", "gw"): 0}, now_s)
    while now_s < 7200:
        if now_s >= due_s:
            refused += 2 * WINDOW
            due_s = now_s + waits.pop(0)
        refused += 4
        now_s += 2.0
        assert patience.exhausted({("t", "gw"): refused}, now_s) == []


def test_a_flood_of_refused_messages_is_noticed_and_the_past_is_not_counted() -> None:
    patience = Patience()
    counts = {("t", "gw-a"): 1_000_000, ("t", "gw-b"): 3}
    assert patience.exhausted(counts, 0.0) == []
    noticed_s = next(
        second
        for second in range(1, 60)
        if patience.exhausted({**counts, ("t", "gw-a"): 1_000_000 + 2000 * second}, float(second))
    )
    assert noticed_s == 3  # 5000 at once and 50 a second are borne


def test_a_flood_of_a_device_that_was_never_refused_before_is_noticed() -> None:
    patience = Patience()
    patience.exhausted({}, 0.0)
    assert patience.exhausted({("t", "gw"): int(REFUSED_AT_ONCE + REFUSED_PER_S) + 1}, 1.0) == [("t", "gw")]
