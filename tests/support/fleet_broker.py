"""The server's own broker and authority without the rest of the server, and clients that talk to it."""

import queue
import secrets
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from fleet_server.authority.authority import Authority, open_authority
from fleet_server.authority.issuing import Revoked
from fleet_server.authority.key_files import key_pem
from fleet_server.authority.providing import provide_broker, provide_service
from fleet_server.config import ServerConfig, Settings, resolve
from fleet_server.link import mosquitto
from tests.support.waiting import wait_until

ANSWER_S = 10.0
ACCEPTED = "accepted"
LAST_WORDS = b"gone"


@dataclass(frozen=True)
class Identity:
    """A certificate and its key on disk, and the CA that its holder trusts."""

    name: str
    certificate: Path
    key: Path
    ca: Path

    def context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.ca))
        context.load_cert_chain(self.certificate, self.key)
        return context


class FleetBroker:
    """mosquitto under the configuration that ``fleet-server serve`` writes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = self._configure()
        self.provide(open_authority(self.config.authority, may_make=True), ())
        mosquitto.write_configuration(self.config)
        self.process: subprocess.Popen[bytes] | None = None

    def _configure(self) -> ServerConfig:
        port = mosquitto.free_port(0, "127.0.0.1", "--mqtt-port")
        return resolve(self.folder, Settings(mqtt_port=port))

    def provide(self, authority: Authority, revoked: Iterable[Revoked]) -> None:
        """Certificates and lists of the revoked as a start of the server writes them."""
        self.authority = authority
        for name in mosquitto.SERVICES:
            provide_service(authority, self.config.service(name), name)
        provide_broker(authority, self.config.broker, self.config.mqtt_host, revoked)

    def start(self) -> None:
        with (self.folder / "mosquitto.log").open("ab") as log:
            self.process = subprocess.Popen(
                [mosquitto.find_mosquitto(), "-c", str(self.config.broker / "mosquitto.conf")], stderr=log
            )
        wait_until(lambda: mosquitto.accepts(self.config), "the broker accepts")

    def stop(self) -> None:
        assert self.process is not None
        self.process.terminate()
        self.process.wait(ANSWER_S)

    @property
    def port(self) -> int:
        return self.config.mqtt_port

    @property
    def log(self) -> str:
        return (self.folder / "mosquitto.log").read_text()

    def service(self, name: str) -> Identity:
        folder = self.config.service(name)
        return Identity(name, folder / "cert.pem", folder / "key.pem", self.config.ca)

    def device(self, name: str, *, authority: Authority | None = None, days: int = 1) -> Identity:
        """A device with a certificate; of another fleet's ``authority`` where one is given."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
        issuing = authority or self.authority
        certificate = issuing.issue_for_device(name, request.public_bytes(serialization.Encoding.PEM), days)
        return self.write_identity(name, key, issuing.chain(certificate))

    def write_identity(self, name: str, key: ec.EllipticCurvePrivateKey, chain: bytes) -> Identity:
        """The files of whoever has ``key`` and shows ``chain``."""
        folder = self.folder / f"device-{name}-{secrets.token_hex(4)}"
        folder.mkdir()
        (folder / "key.pem").write_bytes(key_pem(key))
        (folder / "cert.pem").write_bytes(chain)
        return Identity(name, folder / "cert.pem", folder / "key.pem", self.config.ca)


@dataclass
class MqttClient:
    """An MQTT 5 client that does what an attacker may: any client id, user name, topic or flag."""

    client: paho.Client
    received: "queue.Queue[paho.MQTTMessage]" = field(default_factory=queue.Queue)
    connected: threading.Event = field(default_factory=threading.Event)
    gone: threading.Event = field(default_factory=threading.Event)
    session_present: bool = False
    reason: str = ""
    answers: dict[int, str] = field(default_factory=dict)
    answered: threading.Condition = field(default_factory=threading.Condition)

    def on_connect(self, _c: Any, _u: Any, flags: paho.ConnectFlags, reason: Any, _p: Any) -> None:
        self.session_present, self.reason = flags.session_present, str(reason)
        self.connected.set()

    def on_disconnect(self, _c: Any, _u: Any, _flags: Any, reason: Any, _p: Any) -> None:
        self.reason = str(reason)
        with self.answered:
            self.gone.set()
            self.answered.notify_all()

    def on_answer(self, _c: Any, _u: Any, number: int, reason: Any, _p: Any) -> None:
        """A PUBACK or a SUBACK came."""
        with self.answered:
            code = reason[0] if isinstance(reason, list) else reason
            self.answers[number] = str(code) if code.is_failure else ACCEPTED
            self.answered.notify_all()

    def publish(self, topic: str, payload: bytes = b"x", *, retain: bool = False) -> str:
        """``ACCEPTED``, ``disconnected``, or the broker's reason against it."""
        return self._answer(self.client.publish(topic, payload, qos=1, retain=retain).mid)

    def subscribe(self, pattern: str) -> str:
        """``ACCEPTED``, ``disconnected``, or the broker's reason against it."""
        _result, number = self.client.subscribe(pattern, qos=1)
        assert number is not None
        return self._answer(number)

    def _answer(self, number: int) -> str:
        with self.answered:
            assert self.answered.wait_for(lambda: number in self.answers or self.gone.is_set(), ANSWER_S)
        return self.answers.get(number, "disconnected")

    def cut(self) -> None:
        """Go without a goodbye, as a device that loses its power."""
        link = self.client.socket()
        assert link is not None
        link.close()

    def next_topic(self) -> str:
        """The topic of the next message."""
        return self.received.get(timeout=ANSWER_S).topic

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@contextmanager
def connected(
    port: int,
    identity: Identity,
    client_id: str | None = None,
    *,
    user: str | None = None,
    will: tuple[str, bytes] | None = None,
    session_s: int = 0,
    is_stuck: bool = False,
) -> Iterator[MqttClient]:
    """A client of the broker at ``port``, after its CONNACK; its session lasts ``session_s`` longer.

    One that ``is_stuck`` takes one message and never acknowledges it.
    """
    client = paho.Client(
        CallbackAPIVersion.VERSION2,
        client_id or identity.name,
        protocol=paho.MQTTv5,
        reconnect_on_failure=False,
        manual_ack=is_stuck,
    )
    client.tls_set_context(identity.context())
    if user is not None:
        client.username_pw_set(user, "")
    if will is not None:
        client.will_set(*will, qos=1)
    mine = MqttClient(client)
    client.on_connect, client.on_disconnect = mine.on_connect, mine.on_disconnect
    client.on_publish = client.on_subscribe = mine.on_answer
    client.on_message = lambda _c, _u, message: mine.received.put(message)
    properties = Properties(PacketTypes.CONNECT)
    properties.SessionExpiryInterval = session_s
    if is_stuck:
        properties.ReceiveMaximum = 1
    client.connect("localhost", port, clean_start=session_s == 0, properties=properties)
    client.loop_start()
    with mine:
        assert mine.connected.wait(ANSWER_S), "no CONNACK"
        yield mine


def connack(broker: FleetBroker, context: ssl.SSLContext) -> bytes:
    """As :func:`connack_at`."""
    return connack_at(broker.port, context)


def connack_at(port: int, context: ssl.SSLContext) -> bytes:
    """The first bytes of the broker at ``port`` after a CONNECT; none where it hangs up.

    By hand, because TLS 1.3 tells a client that its certificate is refused only after the handshake.
    """
    connect = b"\x10\x10\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x03abc"
    raw = socket.create_connection(("127.0.0.1", port), ANSWER_S)
    with context.wrap_socket(raw, server_hostname="localhost") as link:
        try:
            link.sendall(connect)
            return link.recv(64)
        except (ssl.SSLError, ConnectionError):
            return b""
