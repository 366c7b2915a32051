"""Bytes that no MQTT client sends, at the real broker, from a device that it lets in: only it pays."""

import socket
import ssl
from collections.abc import Iterator

import pytest

from fleet_protocol.topics import Channel, every_device, topic
from fleet_server.link.mosquitto import INGEST
from tests.support.fleet_broker import ACCEPTED, ANSWER_S, FleetBroker, Identity, connected
from tests.support.ledger import Tried

pytestmark = pytest.mark.attack

VICTIM, ATTACKER = "gw-victim", "gw-attacker"

CONNECT = b"\x10\x10\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x03abc"
PINGREQ, PINGRESP = b"\xc0\x00", 0xD0
PUBLISH = 0x30


def packet(first: int, body: bytes) -> bytes:
    """An MQTT packet of one first byte and one body."""
    length, rest = b"", len(body)
    while True:
        length += bytes([rest % 128 | (0x80 if rest > 127 else 0)])
        rest //= 128
        if not rest:
            return bytes([first]) + length + body


def text(content: bytes) -> bytes:
    return len(content).to_bytes(2, "big") + content


OWN = text(topic(ATTACKER, Channel.TELEMETRY).encode())

BEFORE = {
    "nothing of MQTT": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "zeros": b"\x00" * 64,
    "a publication before the connection": packet(PUBLISH, OWN + b"\x00x"),
    "a subscription before the connection": packet(0x82, b"\x00\x01\x00" + text(b"#") + b"\x00"),
    "a length without end": b"\x10" + b"\xff" * 8,
    "another protocol": packet(0x10, text(b"EVIL") + b"\x05\x02\x00\x3c\x00" + text(b"a")),
    "a version of the future": packet(0x10, text(b"MQTT") + b"\x63\x02\x00\x3c\x00" + text(b"a")),
    "a reserved flag": packet(0x10, text(b"MQTT") + b"\x05\x03\x00\x3c\x00" + text(b"a")),
    "a name that is no text": packet(0x10, text(b"MQTT") + b"\x05\x02\x00\x3c\x00" + text(b"\xff\xfe\x00")),
    "a will that is not there": packet(0x10, text(b"MQTT") + b"\x05\x06\x00\x3c\x00" + text(b"a")),
    "a packet cut off in a text": packet(0x10, text(b"MQTT") + b"\x05\x02\x00\x3c\x00\xff\xffa"),
}
"""What is sent instead of a connection."""

AFTER = {
    "a second connection": CONNECT,
    "a packet of no kind": packet(0x00, b""),
    "a quality of three": packet(0x36, OWN + b"\x00\x01\x00x"),
    "a topic with a wildcard": packet(PUBLISH, text(b"argan/v1/+/up/telemetry") + b"\x00x"),
    "a topic that is no text": packet(PUBLISH, text(b"argan/v1/\xc3\x28") + b"\x00x"),
    "a topic with a zero in it": packet(PUBLISH, text(b"argan/v1/\x00/up") + b"\x00x"),
    "no topic": packet(PUBLISH, text(b"") + b"\x00x"),
    "a topic alias that was never made": packet(PUBLISH, text(b"") + b"\x03\x23\x00\x07x"),
    "a topic alias of zero": packet(PUBLISH, OWN + b"\x03\x23\x00\x00x"),
    "properties longer than the packet": packet(PUBLISH, OWN + b"\xff\xff\xff\x7fx"),
    "a property that there is not": packet(PUBLISH, OWN + b"\x02\x7f\x00x"),
    "a subscription to nothing": packet(0x82, b"\x00\x01\x00"),
    "a subscription without a number": packet(0x82, b"\x00\x00\x00" + text(b"a") + b"\x00"),
    "a subscription of quality three": packet(0x82, b"\x00\x01\x00" + text(b"a") + b"\x03"),
    "a subscription with odd flags": packet(0x8F, b"\x00\x01\x00" + text(b"a") + b"\x00"),
    "a subscription deeper than any topic": packet(0x82, b"\x00\x01\x00" + text(b"/" * 60_000) + b"\x00"),
    "an acknowledgement from the server's side": packet(0x20, b"\x00\x00\x00"),
    "a length without end": b"\x30" + b"\xff" * 8,
    "256 MiB announced": b"\x30\xff\xff\xff\x7f" + OWN,
}
"""What is sent within a connection, against the rules of MQTT 5."""


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetBroker]:
    broker = FleetBroker(tmp_path_factory.mktemp("fleet"))
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture(scope="module")
def attacker(broker: FleetBroker) -> Identity:
    return broker.device(ATTACKER)


def answers(broker: FleetBroker, attacker: Identity, *sent: bytes) -> bytes:
    """All that the broker says to a device that sends this, up to where it hangs up or answers a ping."""
    said = b""
    with (
        socket.create_connection(("127.0.0.1", broker.port), ANSWER_S) as raw,
        attacker.context().wrap_socket(raw, server_hostname="localhost") as link,
    ):
        try:
            for part in sent:
                link.sendall(part)
            while part := link.recv(65_536):
                said += part
                if said.endswith(bytes([PINGRESP, 0])):
                    break
        except (ConnectionError, ssl.SSLError):
            pass
    return said


def kinds(said: bytes) -> list[int]:
    """The kinds of the packets in ``said``, all of which are short."""
    found = []
    while len(said) > 1:
        found.append(said[0] & 0xF0)
        said = said[2 + said[1] :]
    return found


def runs(broker: FleetBroker) -> bool:
    return broker.process is not None and broker.process.poll() is None


def test_what_no_client_sends_costs_its_sender_alone(
    broker: FleetBroker, attacker: Identity, tried: Tried
) -> None:
    with (
        connected(broker.port, broker.service(INGEST)) as ingest,
        connected(broker.port, broker.device(VICTIM)) as victim,
    ):
        ingest.subscribe(every_device(Channel.TELEMETRY))
        for name, sent in BEFORE.items():
            said = answers(broker, attacker, sent, PINGREQ)
            assert PINGRESP not in kinds(said), name
            assert runs(broker), name
        for name, sent in AFTER.items():
            said = answers(broker, attacker, CONNECT, sent, PINGREQ)
            assert said[:1] == b"\x20", name
            assert PINGRESP not in kinds(said), (name, said)
            assert PUBLISH not in kinds(said), name
            assert runs(broker), name
        tried(len(BEFORE) + len(AFTER))
        # Delivered in the order of publishing: had anything of the above got through, it would be first.
        assert victim.publish(topic(VICTIM, Channel.TELEMETRY)) == ACCEPTED
        assert ingest.next_topic() == topic(VICTIM, Channel.TELEMETRY)
        assert not victim.gone.is_set()


def test_the_probe_itself_is_answered(broker: FleetBroker, attacker: Identity) -> None:
    assert kinds(answers(broker, attacker, CONNECT, PINGREQ)) == [0x20, PINGRESP]


@pytest.mark.parametrize("sent", [CONNECT, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"], ids=["MQTT", "HTTP"])
def test_the_broker_does_not_speak_in_the_clear(broker: FleetBroker, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", broker.port), ANSWER_S) as raw:
        raw.sendall(sent)
        try:
            said = raw.recv(64)
        except ConnectionError:
            said = b""
    # A TLS alert, or nothing; never a CONNACK.
    assert said[:1] in {b"", b"\x15"}


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_broker_speaks_no_old_tls(
    broker: FleetBroker, attacker: Identity, version: ssl.TLSVersion
) -> None:
    context = attacker.context()
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = version
    with (
        socket.create_connection(("127.0.0.1", broker.port), ANSWER_S) as raw,
        pytest.raises((ssl.SSLError, ConnectionError)),
    ):
        context.wrap_socket(raw, server_hostname="localhost")
