"""Attacks on the broker as the server configures it: each is refused, and the refusal is looked at."""

import ssl
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509

from fleet_protocol.messages import MAX_PAYLOAD
from fleet_protocol.topics import Channel, every_device, topic
from fleet_server.authority.authority import open_authority
from fleet_server.link.mosquitto import DROPPED_TOPIC, INGEST, PACKET_OVERHEAD, WATCH
from tests.support.fleet_broker import ACCEPTED, LAST_WORDS, FleetBroker, Identity, connack, connected
from tests.support.waiting import wait_until

pytestmark = pytest.mark.attack

DENIED = "Not authorized"
VICTIM, ATTACKER = "gw-victim", "gw-attacker"


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetBroker]:
    broker = FleetBroker(tmp_path_factory.mktemp("fleet"))
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture
def victim(broker: FleetBroker) -> Identity:
    return broker.device(VICTIM)


@pytest.fixture
def attacker(broker: FleetBroker) -> Identity:
    return broker.device(ATTACKER)


def stranger(broker: FleetBroker) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(broker.config.ca))


def test_the_probe_itself_gets_in_with_a_good_certificate(broker: FleetBroker, attacker: Identity) -> None:
    assert connack(broker, attacker.context())[:1] == b"\x20"


def test_no_certificate(broker: FleetBroker) -> None:
    assert connack(broker, stranger(broker)) == b""
    assert "peer did not return a certificate" in broker.log


def test_a_certificate_of_another_authority(broker: FleetBroker, tmp_path: Path) -> None:
    other = open_authority(tmp_path / "authority", may_make=True)
    assert connack(broker, broker.device(VICTIM, authority=other).context()) == b""


def test_a_certificate_that_signs_itself(broker: FleetBroker, tmp_path: Path) -> None:
    open_authority(tmp_path / "mine", may_make=True)
    context = stranger(broker)
    (key,) = (tmp_path / "mine").glob("root-*.key")
    context.load_cert_chain(tmp_path / "mine" / "ca.pem", key)
    assert connack(broker, context) == b""


def test_an_expired_certificate(broker: FleetBroker) -> None:
    expired = broker.device(VICTIM, days=0)
    ends = x509.load_pem_x509_certificate(expired.certificate.read_bytes()).not_valid_after_utc
    wait_until(lambda: (datetime.now(UTC) - ends).total_seconds() > 1, "the certificate ends")
    assert connack(broker, expired.context()) == b""


def test_the_brokers_own_certificate_is_none_for_a_client(broker: FleetBroker) -> None:
    context = stranger(broker)
    context.load_cert_chain(broker.config.broker / "cert.pem", broker.config.broker / "key.pem")
    assert connack(broker, context) == b""


def test_a_device_cannot_pose_as_the_broker(
    broker: FleetBroker, attacker: Identity, victim: Identity
) -> None:
    """Its certificate names no host and is for clients alone, so a device that meets it hangs up."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(attacker.certificate, attacker.key)
    client = victim.context()
    client.check_hostname = False
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    device = client.wrap_bio(to_client, to_server)
    fake = server.wrap_bio(to_server, to_client, server_side=True)
    with pytest.raises(ssl.SSLWantReadError):
        device.do_handshake()
    with pytest.raises(ssl.SSLWantReadError):
        fake.do_handshake()
    with pytest.raises(ssl.SSLCertVerificationError, match="unsuitable certificate purpose"):
        device.do_handshake()


@pytest.mark.parametrize(
    "channel", [Channel.STATUS, Channel.REPORTED, Channel.TELEMETRY, Channel.EVENT, Channel.ACK, Channel.HINT]
)
def test_publishing_on_anothers_topic(broker: FleetBroker, attacker: Identity, channel: Channel) -> None:
    with (
        connected(broker.port, broker.service(INGEST)) as ingest,
        connected(broker.port, attacker) as mallory,
    ):
        ingest.subscribe(every_device(Channel.STATUS))
        ingest.subscribe(every_device(Channel.TELEMETRY))
        assert mallory.publish(topic(VICTIM, channel)) == DENIED
        assert mallory.publish(topic(ATTACKER, Channel.TELEMETRY)) == ACCEPTED
        assert ingest.next_topic() == topic(ATTACKER, Channel.TELEMETRY)


@pytest.mark.parametrize("channel", [Channel.ACK, Channel.HINT, Channel.COMMAND, Channel.ANSWER])
def test_a_device_cannot_speak_for_the_server_to_itself(
    broker: FleetBroker, attacker: Identity, channel: Channel
) -> None:
    with connected(broker.port, attacker) as mallory:
        assert mallory.publish(topic(ATTACKER, channel)) == DENIED


@pytest.mark.parametrize(
    "pattern",
    [
        topic(VICTIM, Channel.ACK),
        every_device(Channel.ACK),
        f"argan/v1/{VICTIM}/#",
        f"$share/all/{every_device(Channel.ACK)}",
        "argan/#",
        "#",
    ],
)
def test_reading_what_is_meant_for_another(
    broker: FleetBroker, attacker: Identity, victim: Identity, pattern: str
) -> None:
    """mosquitto 2.0 grants any subscription; what counts is that nothing is delivered by it."""
    with (
        connected(broker.port, broker.service(INGEST)) as ingest,
        connected(broker.port, victim) as device,
        connected(broker.port, attacker) as mallory,
    ):
        assert device.publish(topic(VICTIM, Channel.STATUS), b"kept", retain=True) == ACCEPTED
        device.subscribe(topic(VICTIM, Channel.ACK))
        assert mallory.subscribe(pattern) == ACCEPTED
        mallory.subscribe(topic(ATTACKER, Channel.ACK))
        assert ingest.publish(topic(VICTIM, Channel.ACK)) == ACCEPTED
        assert ingest.publish(topic(ATTACKER, Channel.ACK)) == ACCEPTED
        assert device.next_topic() == topic(VICTIM, Channel.ACK)
        # Delivered in the order of publishing: had the victim's come, it would be first.
        assert mallory.next_topic() == topic(ATTACKER, Channel.ACK)


def test_reading_the_fleets_telemetry_and_the_brokers_state(broker: FleetBroker, attacker: Identity) -> None:
    with (
        connected(broker.port, broker.service(INGEST)) as ingest,
        connected(broker.port, attacker) as mallory,
    ):
        for pattern in (every_device(Channel.TELEMETRY), "$SYS/#", topic(ATTACKER, Channel.ACK)):
            mallory.subscribe(pattern)
        mallory.publish(topic(ATTACKER, Channel.TELEMETRY))
        ingest.publish(topic(ATTACKER, Channel.ACK))
        assert mallory.next_topic() == topic(ATTACKER, Channel.ACK)


@pytest.mark.parametrize("service", [INGEST, WATCH])
@pytest.mark.parametrize("user", [None, INGEST, WATCH])
def test_a_device_takes_over_a_services_session(broker: FleetBroker, service: str, user: str | None) -> None:
    """The certificate's name is the session, whatever client id or user name was sent."""
    thief = broker.device(f"gw-thief-{service[4:]}-{(user or 'none')[-5:]}")
    with connected(broker.port, broker.service(service), session_s=60) as own:
        own.subscribe(every_device(Channel.EVENT))
        with connected(broker.port, thief, service, user=user, session_s=60) as mallory:
            assert not mallory.session_present
            assert mallory.publish(topic(VICTIM, Channel.ACK)) == DENIED
            assert mallory.publish(topic(thief.name, Channel.EVENT)) == ACCEPTED
        assert not own.gone.is_set()
    with connected(broker.port, broker.service(service), session_s=1) as own:
        assert own.session_present


def test_a_second_client_with_anothers_client_id(broker: FleetBroker, victim: Identity) -> None:
    """It neither throws the other out nor reads what waits for it."""
    thief = broker.device("gw-thief")
    with connected(broker.port, victim, session_s=60) as device:
        device.subscribe(topic(VICTIM, Channel.ACK))
        with connected(broker.port, thief, VICTIM, session_s=60) as mallory:
            assert not mallory.session_present
        assert device.publish(topic(VICTIM, Channel.TELEMETRY)) == ACCEPTED
    with connected(broker.port, broker.service(INGEST)) as ingest:
        assert ingest.publish(topic(VICTIM, Channel.ACK)) == ACCEPTED
        with connected(broker.port, thief, VICTIM, session_s=60) as mallory:
            mallory.subscribe(topic(thief.name, Channel.ACK))
            ingest.publish(topic(thief.name, Channel.ACK))
            assert mallory.next_topic() == topic(thief.name, Channel.ACK)
    with connected(broker.port, victim, session_s=1) as device:
        assert device.session_present
        assert device.next_topic() == topic(VICTIM, Channel.ACK)


@pytest.mark.parametrize(("subject", "is_heard"), [(VICTIM, False), ("gw-liar", True)])
def test_a_last_will_on_anothers_topic(broker: FleetBroker, subject: str, *, is_heard: bool) -> None:
    """mosquitto takes any last will; what counts is that it does not speak it. Its own it speaks."""
    liar = broker.device("gw-liar")
    with (
        connected(broker.port, broker.service(INGEST)) as ingest,
        connected(broker.port, liar, will=(topic(subject, Channel.STATUS), LAST_WORDS)) as device,
    ):
        ingest.subscribe(every_device(Channel.STATUS))
        ingest.subscribe(every_device(Channel.EVENT))
        ended = broker.log.count("Client gw-liar closed its connection")
        device.cut()
        wait_until(lambda: broker.log.count("Client gw-liar closed its connection") > ended, "it is gone")
        with connected(broker.port, liar) as again:
            again.publish(topic("gw-liar", Channel.EVENT))
        heard = []
        while not heard or heard[-1][0] != topic("gw-liar", Channel.EVENT):
            message = ingest.received.get(timeout=10)
            heard.append((message.topic, message.payload))
    assert ((topic(subject, Channel.STATUS), LAST_WORDS) in heard) is is_heard


def test_a_service_has_no_more_rights_than_it_needs(broker: FleetBroker) -> None:
    with connected(broker.port, broker.service(WATCH)) as watch:
        assert watch.publish(topic(VICTIM, Channel.ACK)) == DENIED
        assert watch.publish(topic(VICTIM, Channel.COMMAND)) == DENIED
        watch.subscribe(every_device(Channel.TELEMETRY))
        watch.subscribe(DROPPED_TOPIC)
        with connected(broker.port, broker.device(ATTACKER)) as mallory:
            mallory.publish(topic(ATTACKER, Channel.TELEMETRY))
        assert watch.next_topic() == DROPPED_TOPIC
    with connected(broker.port, broker.service(INGEST)) as ingest:
        assert ingest.publish(topic(VICTIM, Channel.COMMAND)) == DENIED


def test_the_largest_payload_passes(broker: FleetBroker, attacker: Identity) -> None:
    with (
        connected(broker.port, broker.service(INGEST)) as ingest,
        connected(broker.port, attacker) as device,
    ):
        ingest.subscribe(every_device(Channel.TELEMETRY))
        assert device.publish(topic(ATTACKER, Channel.TELEMETRY), b"x" * MAX_PAYLOAD) == ACCEPTED
        assert len(ingest.received.get(timeout=10).payload) == MAX_PAYLOAD


def test_a_packet_beyond_the_limit_cuts_its_sender_alone(broker: FleetBroker, attacker: Identity) -> None:
    with (
        connected(broker.port, broker.service(INGEST)) as ingest,
        connected(broker.port, attacker) as mallory,
    ):
        size = MAX_PAYLOAD + PACKET_OVERHEAD + 1
        assert mallory.publish(topic(ATTACKER, Channel.TELEMETRY), b"x" * size) == "disconnected"
        assert ingest.publish(topic(ATTACKER, Channel.ACK)) == ACCEPTED


def test_nothing_is_lost_that_stock_settings_would_drop(broker: FleetBroker, attacker: Identity) -> None:
    """5000 messages for a service that is away: the stock queue of 1000 would drop 4000 of them."""
    count = 5000
    with connected(broker.port, broker.service(INGEST), session_s=60) as ingest:
        ingest.subscribe(topic(ATTACKER, Channel.TELEMETRY))
    with connected(broker.port, attacker) as device:
        sent = [
            device.client.publish(topic(ATTACKER, Channel.TELEMETRY), str(number), qos=1)
            for number in range(count)
        ]
        deadline = time.monotonic() + 60
        for one in sent:
            one.wait_for_publish(deadline - time.monotonic())
    with connected(broker.port, broker.service(INGEST), session_s=1) as ingest:
        numbers = [int(ingest.received.get(timeout=10).payload) for _ in range(count)]
    assert numbers == list(range(count))
