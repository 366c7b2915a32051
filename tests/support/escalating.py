"""What tests of escalation share: agents that doubt everything, and devices that ask by hand."""

import secrets
import time
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from fleet_protocol.manifest import parse
from fleet_protocol.messages import Answer, ClockState, Request, Series, decode, encode
from fleet_protocol.topics import Channel, topic
from tests.support.agents import AgentProcess
from tests.support.authority import Credentials
from tests.support.fleet_broker import MqttClient
from tests.support.fleet_server import ServerProcess, add

STEP_MS = 20


def table(digest: str, /, **changes: Any) -> str:
    """An ``[escalation]`` table in TOML; nothing is ever sure enough unless that is changed."""
    values: dict[str, Any] = {
        "model_sha256": f'"{digest}"',
        "temperature": 1.0,
        "threshold": 2.0,
        "alpha": 0.05,
        "delta": 0.1,
        "n_cal": 500,
        "audit_share": 0.0,
        "budget": "{ per_hour = 1000000.0, burst = 1000 }",
        "deadline_s": 5.0,
    } | changes
    return "[escalation]\n" + "".join(f"{key} = {value}\n" for key, value in values.items())


def doubting_agent(
    server: ServerProcess, folder: Path, name: str, model: Path, escalation: str, *, unit: str = "l/s"
) -> AgentProcess:
    """An agent of ``server``, not started, whose model answers every 20 ms under the given table."""
    manifest = parse((model / "manifest.json").read_bytes())
    metric = manifest.features[0].metric
    identity = add(server, name, folder / "identity")
    credentials = Credentials(name, identity.ca, identity.certificate, identity.key)
    rows = folder / "rows.csv"
    rows.write_text("value\n" + "".join(f"{number % 7}\n" for number in range(100)))
    policy = folder / "policy.toml"
    policy.write_text(
        f'format = 1\nname = "watch"\nversion = "1"\nrelease = 1\nmodel = "{manifest.name}"\n'
        f'[[rules]]\nname = "never"\nwhen = "score < 0.0"\noutcome = "event"\n{escalation}'
    )
    agent = AgentProcess(
        folder,
        credentials,
        server.endpoints["mqtt_port"],
        f"""\
[spool]
flush_interval_s = 0.05
[[sensors]]
kind = "replay"
name = "recording"
path = "{rows}"
interval_s = {STEP_MS / 1000}
repeat = true
[sensors.columns]
{metric} = "value"
[sensors.units]
{metric} = "{unit}"
[[models]]
folder = "{model}"
policy = "{policy}"
runtime = "litert"
""",
    )
    factor = manifest.step_s * 1000 / STEP_MS
    text = agent.config.read_text()
    agent.config.write_text(text.replace("[broker]", f"time_factor = {factor}\n[broker]", 1))
    return agent


def question(metric: str = "flow", values: Sequence[float] = (5.0,) * 4, **changes: Any) -> Request:
    """A question of now about ``values``."""
    fields: dict[str, Any] = {
        "id": secrets.token_hex(16),
        "model": "autoencoder",
        "version": "1",
        "label": "strange",
        "score": 1.5,
        "confidence": 0.6,
        "wall_ms": time.time_ns() // 1_000_000,
        "clock": ClockState.TRUSTED,
        "step_ms": 1000.0,
        "deadline_ms": 5000,
        "series": [Series(metric, array("f", values).tobytes())],
    }
    return Request(**(fields | changes))


def put(
    device: MqttClient,
    name: str,
    request: Request,
    *,
    response: str | None = None,
    correlation: bytes | None = None,
    expiry_s: int | None = None,
    retain: bool = False,
) -> None:
    """Publish ``request`` as the device ``name``, as an agent does unless told otherwise."""
    properties = Properties(PacketTypes.PUBLISH)
    properties.ResponseTopic = topic(name, Channel.ANSWER) if response is None else response
    properties.CorrelationData = bytes.fromhex(request.id) if correlation is None else correlation
    properties.MessageExpiryInterval = -(-request.deadline_ms // 1000) if expiry_s is None else expiry_s
    device.client.publish(
        topic(name, Channel.REQUEST), encode(request), qos=1, retain=retain, properties=properties
    )


def next_answer(device: MqttClient, timeout_s: float = 10.0) -> Answer:
    """The next answer that comes."""
    answer = decode(Channel.ANSWER, device.received.get(timeout=timeout_s).payload)
    assert isinstance(answer, Answer)
    return answer
