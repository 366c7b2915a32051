"""The embedded broker: its configuration as text, and what it takes to run mosquitto with it.

Stock settings lose QoS 1 messages in silence and let any certificate take over another client's
session; every line here that differs from them says why.
"""

import os
import pwd
import shutil
import socket
import ssl
from pathlib import Path
from typing import Final

from fleet_protocol.messages import MAX_PAYLOAD
from fleet_protocol.texts import _
from fleet_protocol.topics import Channel, device_access, every_device
from fleet_server.config import LOOPBACK, ServerConfig
from fleet_server.errors import BrokerError
from fleet_server.files import make_folder, write_durably

INGEST: Final = "svc.ingest-1"
WATCH: Final = "svc.watch"
ROLLOUTS: Final = "svc.rollouts"
ESCALATION: Final = "svc.escalation"

DROPPED_TOPIC: Final = "$SYS/broker/publish/messages/dropped"

MAX_QUEUED_MESSAGES: Final = 1_000_000
"""Per client, while it is away or slow. The stock limit dropped 3980 of 5000; 0 drops all on 2.0.16."""

MAX_QUEUED_BYTES: Final = 512 * 1024 * 1024
"""Per client; what the same queue may cost in memory."""

MAX_INFLIGHT_MESSAGES: Final = 1000
"""Unacknowledged at once, for clients that name no receive maximum of their own; stock is 20."""

AUTOSAVE_S: Final = 5
"""How much a killed broker forgets. Devices send again what the server has not acknowledged."""

SESSION_DAYS: Final = 7
"""A client away for longer finds an empty queue: what was meant for it would be stale."""

PACKET_OVERHEAD: Final = 4096
"""Topic and properties around the largest payload; what is larger cuts its sender off.

Not message_size_limit: 2.0.11 then answers with a reason code that MQTT 5 does not allow there.
"""

ACCEPT_S: Final = 2.0
"""How long a TLS handshake with our own broker may take before it counts as not there."""

_SERVICE_RIGHTS: Final[dict[str, tuple[tuple[str, str], ...]]] = {
    INGEST: (
        *(
            ("read", every_device(channel))
            for channel in (Channel.STATUS, Channel.REPORTED, Channel.TELEMETRY, Channel.EVENT)
        ),
        ("write", every_device(Channel.ACK)),
    ),
    WATCH: (("read", DROPPED_TOPIC),),
    ROLLOUTS: (("write", every_device(Channel.HINT)),),
    ESCALATION: (("read", every_device(Channel.REQUEST)), ("write", every_device(Channel.ANSWER))),
}

SERVICES: Final = tuple(_SERVICE_RIGHTS)
"""The connections of the server itself, each with its own certificate."""

_SYSTEM_FOLDERS: Final = ("/usr/sbin", "/usr/local/sbin")


def render(folder: Path, port: int, address: str | None, user: str | None) -> str:
    """The broker's configuration for ``port`` of ``address``, all of them where it is None.

    ``user`` is whom a broker started by root becomes; None where it is started by another.
    """
    lines = (
        f"listener {port}" if address is None else f"listener {port} {address}",
        *((f"user {user}",) if user else ()),
        f"cafile {folder / 'ca.pem'}",
        f"crlfile {folder / 'crl.pem'}",
        f"certfile {folder / 'cert.pem'}",
        f"keyfile {folder / 'key.pem'}",
        f"acl_file {folder / 'access.acl'}",
        "allow_anonymous false",
        "require_certificate true",
        "# The certificate's common name is the client, in the access list and as session.",
        "use_identity_as_username true",
        "use_username_as_clientid true",
        f"max_queued_messages {MAX_QUEUED_MESSAGES}",
        f"max_queued_bytes {MAX_QUEUED_BYTES}",
        f"max_inflight_messages {MAX_INFLIGHT_MESSAGES}",
        f"max_packet_size {MAX_PAYLOAD + PACKET_OVERHEAD}",
        "# Without it every question and answer waits 44 ms a hop.",
        "set_tcp_nodelay true",
        "persistence true",
        f"persistence_location {folder / 'store'}/",
        f"autosave_interval {AUTOSAVE_S}",
        f"persistent_client_expiration {SESSION_DAYS}d",
        "log_dest stderr",
        "log_timestamp_format %Y-%m-%dT%H:%M:%S",
        *(f"log_type {kind}" for kind in ("error", "warning", "notice")),
    )
    return "\n".join(lines) + "\n"


def render_access() -> str:
    """The access list: each service what it needs, each device its own subtree, nobody else anything."""
    lines = []
    for service, rights in _SERVICE_RIGHTS.items():
        lines += [f"user {service}", *(f"topic {right} {topic}" for right, topic in rights), ""]
    lines += [f"pattern {right} {topic}" for right, topic in device_access()]
    return "\n".join(lines) + "\n"


def write_configuration(config: ServerConfig) -> Path:
    """Write what mosquitto needs into the broker's folder, where its certificate lies already."""
    make_folder(config.broker / "store")
    write_durably(config.broker / "access.acl", render_access().encode())
    text = render(config.broker, config.mqtt_port, _address(config), _user())
    path = config.broker / "mosquitto.conf"
    write_durably(path, text.encode())
    return path


def find_mosquitto() -> str:
    """The program, also where PATH leaves out the system's folders, as it does for ordinary users.

    Raises:
        BrokerError: it is not installed.
    """
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), *_SYSTEM_FOLDERS))
    found = shutil.which("mosquitto", path=path)
    if found is None:
        raise BrokerError(
            _(
                "mosquitto is not installed; run 'sudo apt-get install mosquitto', "
                "or give another broker with --mqtt-url"
            )
        )
    return found


def free_port(port: int, address: str | None, option: str) -> int:
    """``port`` if it can be had, any free one for 0. ``option`` is how to ask for another.

    Raises:
        BrokerError: somebody else has it, or the address is not of this machine.
    """
    family = socket.AF_INET6 if address and ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address or "", port))
        except OSError as error:
            raise BrokerError(
                _(
                    "port {port} cannot be opened ({reason}); stop what uses it or choose with {option}"
                ).format(port=port, reason=error.strerror, option=option)
            ) from error
        chosen: int = probe.getsockname()[1]
        return chosen


def accepts(config: ServerConfig) -> bool:
    """Whether the broker completes a TLS handshake with the watch's certificate."""
    folder = config.service(WATCH)
    context = ssl.create_default_context(cafile=str(config.ca))
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    try:
        with (
            socket.create_connection((config.mqtt_host, config.mqtt_port), ACCEPT_S) as raw,
            context.wrap_socket(raw, server_hostname=config.mqtt_host),
        ):
            return True
    except OSError:
        return False


def listening_address(host: str) -> str | None:
    """Where a broker that devices know as ``host`` listens: on all addresses unless that is this machine."""
    return "127.0.0.1" if host in LOOPBACK else None


def _address(config: ServerConfig) -> str | None:
    return listening_address(config.mqtt_host)


def _user() -> str | None:
    """Root's broker stays root's: else mosquitto becomes a user that cannot read its own keys."""
    return pwd.getpwuid(0).pw_name if os.geteuid() == 0 else None
