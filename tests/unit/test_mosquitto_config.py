"""The broker's configuration as text. What it does is tried in tests/integration/test_broker_attack.py."""

from pathlib import Path

import pytest

from fleet_protocol.messages import MAX_PAYLOAD
from fleet_protocol.topics import Channel, every_device, is_service_name
from fleet_server.link.mosquitto import ESCALATION, INGEST, SERVICES, listening_address, render, render_access


def settings(text: str) -> dict[str, str]:
    lines = (line for line in text.splitlines() if not line.startswith(("#", "log_type")))
    return dict(line.split(" ", 1) for line in lines)


def test_every_setting_that_stock_mosquitto_has_wrong() -> None:
    found = settings(render(Path("/data/broker"), 8883, "127.0.0.1", None))
    expected = {
        "listener": "8883 127.0.0.1",
        "allow_anonymous": "false",
        "require_certificate": "true",
        "use_identity_as_username": "true",
        "use_username_as_clientid": "true",
        "max_queued_messages": "1000000",
        "max_inflight_messages": "1000",
        "persistence": "true",
        "set_tcp_nodelay": "true",
        "cafile": "/data/broker/ca.pem",
        "acl_file": "/data/broker/access.acl",
        "persistence_location": "/data/broker/store/",
    }
    assert expected.items() <= found.items()
    assert int(found["max_queued_bytes"]) > 0
    assert int(found["autosave_interval"]) <= 10
    assert int(found["max_packet_size"]) > MAX_PAYLOAD
    assert "user" not in found


def test_root_stays_root_where_only_root_can_read_the_keys() -> None:
    assert settings(render(Path("/data"), 8883, None, "root"))["user"] == "root"


@pytest.mark.parametrize(
    ("host", "address"), [("localhost", "127.0.0.1"), ("127.0.0.1", "127.0.0.1"), ("fleet.example", None)]
)
def test_it_is_open_to_the_network_only_under_a_name_of_its_own(host: str, address: str | None) -> None:
    assert listening_address(host) == address
    first = render(Path("/data"), 8883, address, None).splitlines()[0]
    assert first == ("listener 8883 127.0.0.1" if address else "listener 8883")


def test_a_device_may_use_its_own_subtree_and_nothing_else() -> None:
    patterns = [line.split() for line in render_access().splitlines() if line.startswith("pattern")]
    assert len(patterns) == len(Channel)
    for _word, right, pattern in patterns:
        assert pattern.startswith("argan/v1/%u/")
        assert right == ("write" if "/up/" in pattern else "read")


def test_services_are_named_and_limited() -> None:
    text = render_access()
    assert all(is_service_name(name) for name in SERVICES)
    blocks = {block.split("\n")[0]: block for block in text.split("\n\n") if block.startswith("user")}
    ingest = blocks[f"user {INGEST}"]
    assert f"topic read {every_device(Channel.TELEMETRY)}" in ingest
    written = (Channel.ACK, Channel.TELEMETRY, Channel.EVENT)
    assert [line for line in ingest.split("\n") if line.startswith("topic write")] == [
        f"topic write {every_device(channel)}" for channel in written
    ]
    escalation = [line for line in blocks[f"user {ESCALATION}"].split("\n")[1:] if line]
    assert escalation == [
        f"topic read {every_device(Channel.REQUEST)}",
        f"topic write {every_device(Channel.REQUEST)}",
        f"topic write {every_device(Channel.ANSWER)}",
    ]
    assert "#" not in text
