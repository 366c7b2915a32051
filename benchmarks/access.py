"""Who guards the broker: mosquitto's access file, or its dynamic-security plugin, at ten thousand devices.

Both brokers run under the server's own configuration over mutual TLS, with the certificate's name
as user and session; only what judges rights differs. The access file has patterns with the user's
name in them, the same few lines for any number of devices. The plugin gets one client and one role
a device, because the release that distributions carry knows no patterns; that too is tried here.

Costs are seconds of the broker's own processor time, so that a busy machine does not tell them wrong.
"""

import json
import os
import subprocess
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from queue import Empty
from statistics import median
from typing import Final

from benchmarks.load import connect, messages, publish_all
from fleet_protocol.topics import Channel, device_access, every_device, topic
from fleet_server.authority.providing import provide_service
from fleet_server.link import mosquitto
from fleet_server.link.mosquitto import INGEST
from tests.support.fleet_broker import FleetBroker, Identity, MqttClient, connack, connected
from tests.support.waiting import wait_until

DEVICES: Final = 10_000
ROUNDS: Final = 5
STARTS: Final = 3
CONNECTIONS: Final = 300
"""A round; of so many devices as there are in :data:`SPEAKERS`, one after the other."""

MESSAGES: Final = 8_000
CHANGES: Final = 5
ROUND_S: Final = 120.0
SILENCE_S: Final = 0.5
"""How long nothing must come before it counts as not delivered; what is delivered takes a millisecond."""

SPEAKERS: Final = tuple(f"gw-{number:05}" for number in range(4))
ADMIN: Final = "svc.admin"
NEWCOMER: Final = "gw-newcomer"
PATTERNED: Final = "gw-patterned"
PLUGIN: Final = "mosquitto_dynamic_security.so"

_CONTROL: Final = "$CONTROL/dynamic-security/v1"
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PLUGIN_FOLDERS: Final = (Path("/usr/lib"), Path("/usr/local/lib"))
_KINDS: Final = {
    "write": ("publishClientSend",),
    "read": ("publishClientReceive", "subscribePattern"),
}


def measure() -> dict[str, object]:
    """Both ways in turn.

    Raises:
        SystemExit: the broker, its clients or its plugin are not installed.
    """
    plugin = next((found for each in _PLUGIN_FOLDERS for found in each.rglob(PLUGIN)), None)
    if plugin is None:
        raise SystemExit("needs the Debian packages mosquitto and mosquitto-clients: scripts/bootstrap tests")
    with ExitStack() as stack:
        places = [Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/tmp"))) for _ in range(2)]
        brokers = {"access_file": FleetBroker(places[0]), "dynamic_security": FleetBroker(places[1])}
        _use_plugin(brokers["dynamic_security"], plugin)
        results = _compare(brokers, stack)
    return {"devices": DEVICES, "mosquitto": _version(), **results}


def _compare(brokers: dict[str, FleetBroker], stack: ExitStack) -> dict[str, object]:
    starts = {name: [_start_s(broker, stack) for _ in range(STARTS)] for name, broker in brokers.items()}
    speakers = {name: [broker.device(each) for each in SPEAKERS] for name, broker in brokers.items()}
    found: dict[str, dict[str, object]] = {}
    for name, broker in brokers.items():
        found[name] = {
            "start_s": round(median(starts[name]), 3),
            "memory_mib": round(_memory_kib(broker) / 1024, 1),
            "state_bytes": _state_bytes(broker),
            **_rights(broker),
        }
    connecting: dict[str, list[float]] = {name: [] for name in brokers}
    speaking: dict[str, list[float]] = {name: [] for name in brokers}
    for _round in range(ROUNDS):
        for name, broker in brokers.items():
            connecting[name].append(_connecting_s(broker, speakers[name]))
            speaking[name].append(_speaking_s(broker, speakers[name]))
    for name in brokers:
        found[name] |= {
            "connect_cpu_ms": round(median(connecting[name]) * 1e3, 3),
            "publish_cpu_us": round(median(speaking[name]) * 1e6, 2),
        }
    found["dynamic_security"] |= _changing(brokers["dynamic_security"])
    return {**found, "ratios": _ratios(found)}


def _ratios(found: dict[str, dict[str, object]]) -> dict[str, float]:
    """The plugin's figures in those of the access file."""
    file, plugin = found["access_file"], found["dynamic_security"]
    names = ("start_s", "memory_mib", "connect_cpu_ms", "publish_cpu_us")
    return {name: round(float(str(plugin[name])) / float(str(file[name])), 2) for name in names}


def _use_plugin(broker: FleetBroker, plugin: Path) -> None:
    """Let the plugin judge in place of the access file, with every device in its state."""
    path = broker.config.broker / "mosquitto.conf"
    lines = path.read_text().splitlines()
    state = broker.config.broker / "dynamic-security.json"
    kept = [line for line in lines if not line.startswith("acl_file")]
    path.write_text("\n".join([*kept, f"plugin {plugin}", f"plugin_opt_config_file {state}"]) + "\n")
    state.write_text(json.dumps(_state(DEVICES), indent="\t"))
    provide_service(broker.authority, broker.config.service(ADMIN), ADMIN)


def _state(count: int) -> dict[str, object]:
    """What the plugin would hold of ``count`` devices, the services, and one device with patterns."""
    rights = {f"gw-{number:05}": _rules(f"gw-{number:05}") for number in range(count)}
    rights[PATTERNED] = _rules("%u")
    rights[INGEST] = [
        _rule(kind, every_device(Channel.TELEMETRY)) for kind in ("publishClientReceive", "subscribePattern")
    ] + [_rule("publishClientSend", every_device(Channel.ACK))]
    rights[mosquitto.WATCH] = []
    kinds = ("publishClientSend", "publishClientReceive", "subscribePattern")
    rights[ADMIN] = [_rule(kind, "$CONTROL/dynamic-security/#") for kind in kinds]
    return {
        "defaultACLAccess": {
            "publishClientSend": False,
            "publishClientReceive": False,
            "subscribe": False,
            "unsubscribe": True,
        },
        "clients": [{"username": name, "roles": [{"rolename": name}]} for name in rights],
        "groups": [],
        "roles": [{"rolename": name, "acls": rules} for name, rules in rights.items()],
    }


def _rules(name: str) -> list[dict[str, object]]:
    """The rights of the device ``name``, in the plugin's words."""
    return [
        _rule(kind, pattern.replace("%u", name))
        for right, pattern in device_access()
        for kind in _KINDS[right]
    ]


def _rule(kind: str, pattern: str) -> dict[str, object]:
    return {"acltype": kind, "topic": pattern, "priority": 0, "allow": True}


def _start_s(broker: FleetBroker, stack: ExitStack) -> float:
    """How long the broker takes until it accepts; it is left running."""
    if broker.process is None:
        stack.callback(broker.stop)
    else:
        broker.stop()
    began = time.monotonic()
    broker.start()
    return time.monotonic() - began


def _rights(broker: FleetBroker) -> dict[str, object]:
    """What is refused and what is let through, seen from a device and from the service it talks to."""
    first, second = (broker.device(name) for name in SPEAKERS[:2])
    own, others = topic(first.name, Channel.TELEMETRY), topic(second.name, Channel.TELEMETRY)
    with connected(broker.port, first) as device, connected(broker.port, broker.service(INGEST)) as ingest:
        ingest.subscribe(every_device(Channel.TELEMETRY))
        seen: dict[str, object] = {
            "own_topic": device.publish(own),
            "another_devices_topic": device.publish(others),
            "retained_where_none_must_be": device.publish(own, retain=True),
            "subscription_to_everything": device.subscribe("#"),
            "subscription_to_all_devices": device.subscribe(every_device(Channel.ACK)),
        }
        ingest.publish(topic(second.name, Channel.ACK))
        seen["delivered_of_another_device"] = _hears(device, topic(second.name, Channel.ACK))
        device.publish(own, b"", retain=True)
    patterned = broker.device(PATTERNED)
    with connected(broker.port, patterned) as device:
        seen["pattern_with_the_users_name"] = device.publish(topic(PATTERNED, Channel.TELEMETRY))
    return seen


def _hears(device: MqttClient, of: str) -> bool:
    try:
        while (message := device.received.get(timeout=SILENCE_S)).topic != of:
            pass
    except Empty:
        return False
    return message.topic == of


def _connecting_s(broker: FleetBroker, identities: list[Identity]) -> float:
    """Seconds of the broker's processor for one handshake and its CONNECT."""
    contexts = [identity.context() for identity in identities]
    before = _cpu_s(broker)
    for number in range(CONNECTIONS):
        if not connack(broker, contexts[number % len(contexts)]):
            raise SystemExit("the broker refuses a good certificate")
    return (_cpu_s(broker) - before) / CONNECTIONS


def _speaking_s(broker: FleetBroker, identities: list[Identity]) -> float:
    """Seconds of the broker's processor for one message that a device publishes and a service gets."""
    service = broker.service(INGEST)
    with ExitStack() as stack:
        sink = subprocess.Popen(
            ["mosquitto_sub", "-h", "localhost", "-p", str(broker.port), "-V", "5", "-q", "1", "-i", INGEST,
             "-D", "connect", "receive-maximum", "5000",
             "--cafile", service.ca, "--cert", service.certificate,
             "--key", service.key, "-t", every_device(Channel.TELEMETRY), "-C", str(MESSAGES)],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        stack.callback(sink.wait)
        stack.callback(sink.kill)
        wait_until(
            lambda: broker.log.count(f"as {INGEST}") > broker.log.count(f"Client {INGEST} "), "it listens"
        )
        loads = []
        for identity in identities:
            packets = messages(identity.name, f"{1:016x}", MESSAGES // len(identities))
            loads.append(connect(broker, identity, packets))
            stack.callback(loads[-1].link.close)
        before = _cpu_s(broker)
        publish_all(loads, time.monotonic() + ROUND_S, acknowledged=False)
        sink.wait(ROUND_S)
        return (_cpu_s(broker) - before) / MESSAGES


def _changing(broker: FleetBroker) -> dict[str, object]:
    """What it takes to add one device to the plugin's state; the access file needs no change for it."""
    taken, cpu = [], []
    with connected(broker.port, broker.service(ADMIN)) as admin:
        admin.subscribe(f"{_CONTROL}/response")
        for number in range(CHANGES):
            name = f"{NEWCOMER}-{number}"
            commands = [
                {"command": "createRole", "rolename": name, "acls": _rules(name)},
                {"command": "createClient", "username": name, "roles": [{"rolename": name}]},
            ]
            before, began = _cpu_s(broker), time.monotonic()
            admin.publish(_CONTROL, json.dumps({"commands": commands}).encode())
            answer = json.loads(admin.received.get(timeout=ROUND_S).payload)
            taken.append(time.monotonic() - began)
            cpu.append(_cpu_s(broker) - before)
            if any("error" in each for each in answer["responses"]):
                raise SystemExit(f"the plugin refuses: {answer}")
    return {
        "change_of_one_device_s": round(median(taken), 3),
        "change_of_one_device_cpu_s": round(median(cpu), 3),
    }


def _state_bytes(broker: FleetBroker) -> int:
    folder = broker.config.broker
    state = folder / "dynamic-security.json"
    return (state if state.exists() else folder / "access.acl").stat().st_size


def _cpu_s(broker: FleetBroker) -> float:
    """What the broker has used of the processor so far; the kernel counts in hundredths."""
    assert broker.process is not None
    fields = Path(f"/proc/{broker.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _memory_kib(broker: FleetBroker) -> int:
    assert broker.process is not None
    lines = Path(f"/proc/{broker.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def _version() -> str:
    asked = subprocess.run([mosquitto.find_mosquitto(), "-h"], capture_output=True, text=True, check=False)
    return asked.stdout.splitlines()[0].split()[-1]
