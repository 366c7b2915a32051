"""Revoking over the whole server: who is put out is gone within seconds, and nobody else notices."""

import os
import signal
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509

from fleet_protocol.messages import Status, encode
from fleet_protocol.topics import Channel, topic
from fleet_server.clock import wall_ms
from tests.support.batches import BOOT, EPOCH
from tests.support.fleet_broker import ACCEPTED, Identity, connected
from tests.support.fleet_server import ServerProcess, add, batch, deliver, fleet
from tests.support.probing import is_let_in
from tests.support.waiting import wait_until

CUT_S = 3.0
"""From the word to the end of the connection."""

OFFLINE = encode(Status(online=False, boot_id=BOOT, epoch=EPOCH, agent="test", wall_ms=0))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    server = ServerProcess(tmp_path_factory.mktemp("fleet") / "data")
    server.start()
    yield server
    server.end()


def say(server: ServerProcess, device: str, action: str, reason: str = "a test") -> httpx.Response:
    with server.client() as client:
        return client.post(f"/v1/devices/{device}/{action}", json={"reason": reason})


def page(server: ServerProcess, device: str) -> Any:
    return server.get(f"/v1/devices/{device}")["device"]


def codes(server: ServerProcess, device: str) -> set[str]:
    return {item["code"] for item in page(server, device)["health"]}


def port(server: ServerProcess) -> int:
    return int(server.endpoints["mqtt_port"])


def is_out(server: ServerProcess, device: Identity) -> bool:
    return not is_let_in(port(server), device)


@pytest.mark.attack
def test_a_stolen_certificate_is_cut_while_in_use_and_cannot_return(
    server: ServerProcess, tmp_path: Path
) -> None:
    stolen, other = (add(server, name, tmp_path / name) for name in ("gw-stolen", "gw-other"))
    status = topic(stolen.name, Channel.STATUS)
    with (
        connected(port(server), other) as bystander,
        connected(port(server), stolen, will=(status, OFFLINE)) as thief,
    ):
        online = Status(online=True, boot_id=BOOT, epoch=EPOCH, agent="test", wall_ms=wall_ms())
        assert thief.publish(status, encode(online), retain=True) == ACCEPTED
        wait_until(lambda: page(server, stolen.name)["state"] == "online", "it counts as there")
        answer = say(server, stolen.name, "revoke", "stolen from the cabinet")
        assert (answer.status_code, len(answer.json()["serials"])) == (200, 1)
        assert thief.gone.wait(CUT_S), "it is still connected"
        assert is_out(server, stolen)
        assert bystander.publish(topic(other.name, Channel.TELEMETRY), batch(1)) == ACCEPTED
        assert not bystander.gone.is_set()
    wait_until(lambda: page(server, stolen.name)["state"] == "offline", "its last will was heard")
    assert deliver(server, other, batch(2)).marks
    assert say(server, stolen.name, "revoke").json()["serials"] == []
    # A broker that starts anew reads the list by itself.
    broker = server.children()["mosquitto"]
    broker.kill()
    broker.wait(10)
    wait_until(lambda: "mosquitto" in server.children() and _accepts(server, other), "the broker is back")
    assert is_out(server, stolen)


def _accepts(server: ServerProcess, device: Identity) -> bool:
    try:
        return is_let_in(port(server), device)
    except OSError:
        return False


def test_a_held_device_is_out_until_it_is_released(server: ServerProcess, tmp_path: Path) -> None:
    device = add(server, "gw-held", tmp_path / "held")
    with connected(port(server), device) as held:
        done = fleet("device", "hold", "gw-held", "--reason", "looks odd", "--yes", "--data", server.data)
        assert done.returncode == 0, done.stderr
        assert held.gone.wait(CUT_S)
    assert is_out(server, device)
    assert "device.held" in codes(server, "gw-held")
    assert say(server, "gw-held", "hold").json()["serials"] == []
    done = fleet("device", "release", "gw-held", "--reason", "was nothing", "--data", server.data)
    assert done.returncode == 0, done.stderr
    wait_until(lambda: not is_out(server, device), "it may come back")
    assert deliver(server, device, batch(1)).marks
    assert "device.held" not in codes(server, "gw-held")
    answer = say(server, "gw-held", "release")
    assert (answer.status_code, answer.json()["code"]) == (409, "revocation_conflict")


def test_nothing_is_revoked_that_nobody_confirms(server: ServerProcess, tmp_path: Path) -> None:
    device = add(server, "gw-kept", tmp_path / "kept")
    done = fleet("device", "revoke", "gw-kept", "--reason", "a slip", "--data", server.data)
    assert done.returncode == 1
    assert "nothing was changed" in done.stderr
    assert deliver(server, device, batch(1)).marks
    assert say(server, "gw-none", "revoke").status_code == 404
    assert say(server, "gw-kept", "revoke", "").status_code == 422


@pytest.mark.attack
def test_a_device_that_floods_is_put_out_and_an_eager_one_is_not(
    server: ServerProcess, tmp_path: Path
) -> None:
    flooding, eager = (add(server, name, tmp_path / name) for name in ("gw-flood", "gw-eager"))
    with connected(port(server), flooding) as flood, connected(port(server), eager) as backlog:
        for number in range(1, 3001):
            backlog.client.publish(topic(eager.name, Channel.TELEMETRY), batch(number), qos=1)
        sent = 0
        deadline = time.monotonic() + 60
        while not flood.gone.is_set() and time.monotonic() < deadline:
            flood.client.publish(topic(flooding.name, Channel.TELEMETRY), b"junk", qos=1).wait_for_publish(1)
            sent += 1
        assert flood.gone.is_set(), "it floods on"
        assert not backlog.gone.is_set()
    assert is_out(server, flooding)
    assert "device.flooding" in codes(server, flooding.name)
    assert codes(server, eager.name) == set()
    assert deliver(server, eager, batch(3001)).marks[0].seq == 3001
    assert say(server, flooding.name, "release", "the agent was mended").status_code == 200
    wait_until(lambda: not is_out(server, flooding), "it may come back")


def test_an_old_list_is_made_anew_and_given_to_brokers_elsewhere(server: ServerProcess) -> None:
    path = server.data / "broker" / "crl.pem"

    def number() -> int:
        found = x509.load_pem_x509_crl(path.read_bytes())
        return found.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number

    before = number()
    two_days_ago_s = time.time() - 2 * 86_400
    os.utime(path, (two_days_ago_s, two_days_ago_s))
    guard = server.children()["guard"]
    guard.send_signal(signal.SIGKILL)
    guard.wait(10)
    wait_until(lambda: number() > before, "a new list")
    with httpx.Client(base_url=server.endpoints["device_url"], verify=_trust(server)) as client:
        given = client.get("/v1/device/crl").raise_for_status().content
        listed = x509.load_pem_x509_crl(given)
        signer = listed.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
        assert signer is not None
        single = client.get(f"/v1/device/crl/{signer.hex()}").raise_for_status()
        assert single.headers["content-type"] == "application/pkix-crl"
        assert x509.load_der_x509_crl(single.content) == listed
        assert client.get("/v1/device/crl/00").status_code == 404


def _trust(server: ServerProcess) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=server.endpoints["ca"])
