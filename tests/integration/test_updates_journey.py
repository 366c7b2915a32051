"""The whole journey: ceremony, publication and assignment on a real server; a real agent that takes it."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.test_agent_updates import edge_agent
from tests.support.agents import EnrolledAgent
from tests.support.fleet_server import ServerProcess, agreed, fleet
from tests.support.updating import model_folder
from tests.support.waiting import wait_until

PASSPHRASE = "correct horse battery"
DEVICE = "gw-1"

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
    """A server after a key ceremony."""
    (tmp_path / "passphrase").write_text(PASSPHRASE + "\n")
    monkeypatch.setenv("ARGAN_PASSPHRASE_FILE", str(tmp_path / "passphrase"))
    server = ServerProcess(tmp_path / "server")
    try:
        server.start()
        request, bundle, keys = tmp_path / "request.json", tmp_path / "ceremony.json", tmp_path / "keys"
        said(fleet("key", "export", "--out", request, "--data", server.data))
        said(fleet("key", "ceremony", "--request", request, "--keys", keys, "--out", bundle))
        said(fleet("key", "import", bundle, "--data", server.data))
        yield server
    finally:
        server.end()


def said(done: object) -> str:
    assert done.returncode == 0, done.stderr  # type: ignore[attr-defined]
    return str(done.stdout)  # type: ignore[attr-defined]


@pytest.fixture
def device(tmp_path: Path, server: ServerProcess) -> Iterator[EnrolledAgent]:
    """A device that was added to the server, with a sensor and no model."""
    folder = tmp_path / DEVICE
    said(fleet("device", "add", DEVICE, "--out", folder, "--data", server.data))
    (folder / "signal.csv").write_text("value\n" + "".join(f"{n % 7}\n" for n in range(1000)))
    agent = EnrolledAgent(folder)
    text = agent.config.read_text()
    assert "\n[updates]\n" in text
    quick = "[updates]\npoll_interval_s = 1.0\nprobation_s = 0.5\nprobation_windows = 4\n"
    agent.config.write_text("time_factor = 50.0\n" + text.replace("[updates]\n", quick) + SENSOR)
    yield agent
    agent.end()


def publish(server: ServerProcess, tmp_path: Path, release: int) -> None:
    folder = model_folder(tmp_path / f"release-{release}", release)
    said(fleet("publish", "model", folder, "--keys", tmp_path / "keys", "--data", server.data))
    agreed(server.data, "assign", DEVICE, "model", "autoencoder", str(release))


def test_from_publication_to_a_running_model_and_on_a_stick(
    server: ServerProcess, device: EnrolledAgent, tmp_path: Path
) -> None:
    publish(server, tmp_path, 1)
    device.start()

    def runs(version: str) -> bool:
        answer = server.get(f"/v1/devices/{DEVICE}")
        return f'"{version}"' in json.dumps(answer["reported"]["models"]) if answer.get("reported") else False

    wait_until(lambda: runs("1.1"), "the first release runs on a device that came without a model", 60)
    publish(server, tmp_path, 2)
    wait_until(lambda: runs("1.2"), "the second one took its place", 60)

    def committed() -> bool:
        updates = server.get(f"/v1/devices/{DEVICE}")["reported"]["updates"]
        return [(each["release"], each["state"]) for each in updates] == [(2, "committed")]

    wait_until(committed, "and has proved itself", 60)
    told = edge_agent("update", "status", "--config", str(device.config)).stdout
    assert "models/autoencoder/2.tar: " in told
    assert ", 0 saved" not in told, "it came as what is different from the first"
    assert device.stop() == 0
    publish(server, tmp_path, 3)
    stick = tmp_path / "stick.tar"
    said(fleet("bundle", "export", "--device", DEVICE, "--out", stick, "--data", server.data))
    server.end()
    done = edge_agent("update", "from", str(stick), "--config", str(device.config))
    assert done.returncode == 0, done.stdout + done.stderr
    assert (
        "models/autoencoder/3.tar 1.3 is installed"
        in edge_agent("update", "status", "--config", str(device.config)).stdout
    )
