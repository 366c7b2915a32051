"""What ingest does with too much, and with what must not be kept, through the real broker."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet_protocol.topics import Channel, every_device, topic
from fleet_server.config import Settings, save_settings
from fleet_server.link.mosquitto import ESCALATION, INGEST
from fleet_server.link.mqtt import Broker, Subscriber, Subscription
from fleet_server.link.retained import clear_retained
from fleet_server.telemetry import query
from tests.support.batches import telemetry
from tests.support.databases import migrated_sqlite
from tests.support.fleet_broker import ACCEPTED, connected
from tests.support.ingesting import IngestSite
from tests.support.waiting import wait_until

BACKLOG = 600
RATE_PER_S = 200.0
AT_ONCE = 100.0
"""Limits far below the defaults, so that the test need not send millions."""

MARKER = topic("gw-01", Channel.EVENT)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IngestSite]:
    folder: Path = tmp_path_factory.mktemp("server")
    url = migrated_sqlite(folder / "fleet.db")
    site = IngestSite(folder, url)
    settings = Settings(
        database_url=url,
        mqtt_port=site.broker.port,
        device_messages_per_s=RATE_PER_S,
        device_backlog_messages=AT_ONCE,
    )
    save_settings(folder, settings)
    try:
        site.start()
        yield site
    finally:
        site.stop()


def test_who_sends_too_much_is_slowed_down_and_loses_nothing(site: IngestSite) -> None:
    device = site.device("gw-eager")
    device.add(*(telemetry(number) for number in range(1, BACKLOG + 1)))
    device.work_until_acknowledged(60)
    (told,) = [one for one in query.refusals(site.engine) if one.device == "gw-eager"]
    assert "sends more than it may" in told.last_reason
    stored = site.batches()
    assert len(stored) == BACKLOG
    assert set(stored.values()) == {1}


@pytest.mark.attack
def test_what_must_not_be_kept_is_taken_from_the_broker(site: IngestSite) -> None:
    """Also what was left there while ingest was away: nobody who subscribes later gets it."""
    device, port = site.device("gw-01"), site.broker.port
    late, service = site.broker.device("gw-01"), site.broker.service(INGEST)
    site.kill_ingest()
    with connected(port, late) as client:
        assert client.publish(topic("gw-01", Channel.TELEMETRY), b"kept", retain=True) == ACCEPTED
    with connected(port, service, "observer") as observer:
        observer.subscribe(every_device(Channel.TELEMETRY))
        assert observer.received.get(timeout=10).payload == b"kept"
    site.start_ingest()
    # The observer took ingest's session, and what waited in it; now it is there when it happens again.
    device.add(telemetry(1, "00000000000000e1"))
    device.work_until_acknowledged()
    with connected(port, late) as client:
        assert client.publish(topic("gw-01", Channel.TELEMETRY), b"kept", retain=True) == ACCEPTED
    device.add(telemetry(2, "00000000000000e1"))
    device.work_until_acknowledged()
    assert sum(one.count for one in query.refusals(site.engine) if one.device == "gw-01") == 1
    site.kill_ingest()
    with connected(port, service, "observer") as observer, connected(port, late) as client:
        observer.subscribe(every_device(Channel.TELEMETRY))
        observer.subscribe(every_device(Channel.EVENT))
        client.publish(MARKER)
        assert observer.next_topic() == MARKER
    site.start_ingest()


def test_a_retained_question_is_taken_from_the_broker(site: IngestSite) -> None:
    identity, port = site.broker.service(ESCALATION), site.broker.port
    asker = site.broker.device("gw-02")
    request = topic("gw-02", Channel.REQUEST)
    broker = Broker("localhost", port, ESCALATION, identity.ca, identity.certificate, identity.key)
    escalation = Subscriber(broker, [Subscription(every_device(Channel.REQUEST))])
    wait_until(lambda: escalation.collect(1, 0.1, 0.0) or escalation.is_connected, "subscribed")
    with connected(port, asker) as client:
        client.publish(request, b"kept", retain=True)
    arrivals = wait_until(lambda: escalation.collect(1, 0.1, 0.0), "the question")
    clear_retained(escalation, arrivals)
    wait_until(lambda: escalation.collect(1, 0.1, 0.0) or not escalation.unconfirmed, "the broker has heard")
    escalation.close()
    with connected(port, identity) as observer, connected(port, asker) as client:
        observer.subscribe(every_device(Channel.REQUEST))
        client.publish(request, b"new")
        assert observer.received.get(timeout=10).payload == b"new"
