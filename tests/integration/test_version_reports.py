"""Signed version reports, a real server and a real agent: without a broker, by courier, forged, replayed."""

import base64
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest

from fleet_protocol.versions import TYPE
from tests.integration.test_agent_updates import edge_agent
from tests.support.agents import EnrolledAgent
from tests.support.device_post import DevicePost
from tests.support.fleet_server import ServerProcess, agreed, fleet
from tests.support.updating import model_folder
from tests.support.waiting import free_port, wait_until

DEVICE, OTHER = "gw-1", "gw-2"

SENSOR = """
[spool]
flush_interval_s = 0.1
[[sensors]]
kind = "replay"
name = "recording"
path = "signal.csv"
interval_s = 0.02
repeat = true
columns = { signal = "value" }
"""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServerProcess]:
    """A server after a key ceremony, with two devices."""
    (tmp_path / "passphrase").write_text("correct horse battery\n")
    monkeypatch.setenv("ARGAN_PASSPHRASE_FILE", str(tmp_path / "passphrase"))
    server = ServerProcess(tmp_path / "server")
    try:
        server.start()
        said("key", "ceremony", "--keys", tmp_path / "keys", "--data", server.data)
        for name in (DEVICE, OTHER):
            said("device", "add", name, "--out", tmp_path / name, "--data", server.data)
        yield server
    finally:
        server.end()


def said(*arguments: str | Path) -> str:
    done = fleet(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def device(tmp_path: Path, server: ServerProcess) -> Iterator[EnrolledAgent]:
    """A device whose broker is not there: all that the server hears of it is signed."""
    folder = tmp_path / DEVICE
    (folder / "signal.csv").write_text("value\n" + "".join(f"{n % 7}\n" for n in range(1000)))
    agent = EnrolledAgent(folder)
    text = agent.config.read_text()
    broker = next(line for line in text.splitlines() if line.startswith("port = "))
    quick = "[updates]\npoll_interval_s = 1.0\nprobation_s = 0.5\nprobation_windows = 4\n"
    text = text.replace(broker, f"port = {free_port()}").replace("[updates]\n", quick)
    agent.config.write_text("time_factor = 50.0\n" + text + SENSOR)
    yield agent
    agent.end()


def publish(server: ServerProcess, tmp_path: Path, release: int) -> None:
    folder = model_folder(tmp_path / f"release-{release}", release)
    said("publish", "model", folder, "--keys", tmp_path / "keys", "--data", server.data)
    agreed(server.data, "assign", DEVICE, "model", "autoencoder", str(release))


def versions(server: ServerProcess) -> dict[str, Any]:
    page: dict[str, Any] = server.get(f"/v1/devices/{DEVICE}/versions")
    return page


def only(server: ServerProcess) -> dict[str, Any]:
    (item,) = versions(server)["items"]
    return dict(item)


def refused(server: ServerProcess, file: Path) -> str:
    done = fleet("receipt", "import", file, "--data", server.data)
    assert done.returncode == 1, done.stdout
    return done.stderr


def resigned(post: DevicePost, receipt: str, **changes: object) -> str:
    """The receipt with ``changes``, signed by the device of ``post``."""
    content = json.loads(jwt.api_jws.decode(receipt, options={"verify_signature": False})) | changes
    return jwt.api_jws.encode(
        json.dumps(content).encode(), post.key, "ES256", headers={"kid": post.serial, "typ": TYPE}
    )


def test_a_device_without_a_broker_signs_what_it_has_and_a_courier_brings_the_rest(
    server: ServerProcess, device: EnrolledAgent, tmp_path: Path
) -> None:
    publish(server, tmp_path, 1)
    assert only(server)["why"] == "unheard"
    device.start()
    wait_until(lambda: only(server)["why"] == "same", "the first release is attested over HTTPS", 60)
    item = only(server)
    assert (item["reported_release"], item["reported_by"]) == (1, "online")
    attested = versions(server)["attested"]
    assert [each["state"] for each in attested["history"]] == ["probation", "committed"]
    assert attested["repositories"]["director"]["timestamp"] > 0
    assert device.stop() == 0

    # From here on the device has no network at all.
    publish(server, tmp_path, 2)
    stick, config = tmp_path / "stick.tar", str(device.config)
    said("bundle", "export", "--device", DEVICE, "--out", stick, "--data", server.data)
    wish = only(server)
    assert (wish["desired_release"], wish["reported_release"], wish["why"]) == (2, 1, "awaited")
    done = edge_agent("update", "from", str(stick), "--config", config)
    assert done.returncode == 0, done.stdout + done.stderr
    receipt = tmp_path / "stick.tar.receipt"
    assert f"A receipt is in {receipt}" in done.stdout

    first = json.loads(said("receipt", "import", receipt, "--data", server.data, "--json"))
    assert (first["settled"], first["superseded"], first["changed"]) == (False, False, True)
    item = only(server)
    assert (item["reported_release"], item["reported_by"], item["why"]) == (2, "courier", "probation")
    assert "courier" in said("device", "show", DEVICE, "--data", server.data)
    assert "was imported before" in refused(server, receipt)

    text = device.config.read_text()
    device.config.write_text(text.replace("[server]\nurl = ", '[server]\nurl = "https://127.0.0.1:9" #'))
    assert device.config.read_text() != text
    device.start()
    wait_until(lambda: committed(config), "the second release has proved itself", 60)
    final = tmp_path / "final.receipt"
    done = edge_agent("update", "receipt", "--out", str(final), "--config", config)
    assert done.returncode == 0, done.stderr
    assert json.loads(said("receipt", "import", final, "--data", server.data, "--json"))["settled"]
    assert only(server)["why"] == "same"
    audit = said("audit", "list", "--data", server.data)
    assert audit.count("receipt.import") == 2
    assert "device.attest" in audit
    forged_and_replayed(server, tmp_path, final)


def committed(config: str) -> bool:
    status = json.loads(edge_agent("update", "status", "--json", "--config", config).stdout)
    return [each["state"] for each in status["updates"]] == ["committed"]


def forged_and_replayed(server: ServerProcess, tmp_path: Path, final: Path) -> None:
    """Nothing but the device's own later word on a bundle of its own is taken."""
    own, other = DevicePost(server, tmp_path / DEVICE), DevicePost(server, tmp_path / OTHER)
    receipt, file = final.read_text().strip(), tmp_path / "bad.receipt"

    def bad(content: str) -> str:
        file.write_text(content)
        return refused(server, file)

    assert "was imported before" in bad(receipt)
    assert "final receipt of this bundle" in bad(resigned(own, receipt, happened=99))
    head, body, seal = receipt.split(".")
    assert "altered on its way" in bad(f"{head}.{body[:-4]}AAAA.{seal}")
    assert "altered on its way" in bad(resigned(other, receipt))
    assert "for another device" in bad(resigned(other, receipt, device=OTHER))
    assert "has not exported" in bad(resigned(own, receipt, nonce="A" * 64))
    assert "no version report" in bad(resigned(own, receipt, format="argan-versions/2"))
    own.revoke()
    assert "revoked" in bad(resigned(own, receipt, happened=100))


def test_a_report_counts_once_and_only_from_its_own_device(server: ServerProcess, tmp_path: Path) -> None:
    own, other = DevicePost(server, tmp_path / DEVICE), DevicePost(server, tmp_path / OTHER)

    def send(jws: str) -> tuple[int, str]:
        with own.https() as client:
            answer = client.post("/v1/device/report", content=jws)
            return answer.status_code, answer.text

    def report(signer: DevicePost, device: str, nonce: str, **header: str) -> str:
        content = {
            "format": "argan-versions/1", "device": device, "nonce": nonce, "agent": "edge-agent/1",
            "profile": "generic", "boot_id": "0" * 16, "wall_ms": 1, "clock": 0, "journal": "0" * 16,
            "happened": 0,
        }  # fmt: skip
        headers = {"kid": signer.serial, "typ": TYPE} | header
        return jwt.api_jws.encode(json.dumps(content).encode(), signer.key, "ES256", headers=headers)

    honest = report(own, DEVICE, own.nonce())
    assert send(honest)[0] == 200
    status, text = send(honest)
    assert (status, "nonce is not fresh" in text) == (400, True)
    for jws in (
        report(other, DEVICE, own.nonce()),
        report(other, DEVICE, own.nonce(), kid=own.serial),
        report(own, DEVICE, own.nonce(), typ="JWT"),
        own.assertion(),
        os.urandom(64).hex(),
        base64.urlsafe_b64encode(b"[" * 40_000).decode() + ".e30.AAAA",
    ):
        status, text = send(jws)
        assert (status, "invalid_report" in text) == (400, True), text
    assert own.ask_token(report(own, DEVICE, own.nonce())).status_code == 400
    own.revoke()
    assert send(report(own, DEVICE, own.nonce()))[0] == 400
