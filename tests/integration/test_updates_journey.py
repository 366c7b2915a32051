"""The whole journey: ceremony, publication and assignment on a real server; a real agent that takes it."""

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fleet_protocol import manifest as mf
from tests.integration.test_agent_shadow import nicer
from tests.integration.test_agent_updates import calm, edge_agent, wolf
from tests.support.agents import EnrolledAgent
from tests.support.fleet_server import ServerProcess, agreed, fleet
from tests.support.updating import model_folder, policy_artifact
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


def publish(
    server: ServerProcess,
    tmp_path: Path,
    release: int,
    *how: str,
    change: Callable[[mf.Manifest], mf.Manifest] | None = None,
) -> str:
    """Publish a release and assign it, ``how`` as the command takes it."""
    folder = model_folder(tmp_path / f"release-{release}", release, change)
    said(fleet("publish", "model", folder, "--keys", tmp_path / "keys", "--data", server.data))
    return agreed(server.data, "assign", DEVICE, "model", "autoencoder", str(release), *how)


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


@pytest.mark.timeout(300)
def test_a_model_in_shadow_beside_the_one_that_acts(
    server: ServerProcess, device: EnrolledAgent, tmp_path: Path
) -> None:
    publish(server, tmp_path, 1, change=calm)
    policy = tmp_path / "strange.toml"
    policy.write_bytes(policy_artifact(1, when="label == 'strange'").content)
    agreed(server.data, "publish", "policy", str(policy), "--keys", str(tmp_path / "keys"))
    agreed(server.data, "assign", DEVICE, "policy", "watch", "1")
    device.start()

    def updates() -> dict[tuple[str, str], tuple[int, str]]:
        reported = server.get(f"/v1/devices/{DEVICE}")["reported"] or {"updates": []}
        return {
            (each["name"], each["mode"]): (each["release"], each["state"]) for each in reported["updates"]
        }

    def answers(*, shadow: bool) -> list[Any]:
        items: list[Any] = server.get(
            f"/v1/devices/{DEVICE}/inferences", limit=10000, shadow=str(shadow).lower()
        )["items"]
        return items

    def rules() -> list[Any]:
        return [each for each in server.get("/v1/events")["items"] if each["name"] == "rule"]

    def go_on(*, shadow: bool) -> None:
        seen = len(answers(shadow=shadow))
        wait_until(lambda: len(answers(shadow=shadow)) > seen + 10, "answers go on", 60)

    wait_until(lambda: updates().get(("watch", "act")) == (1, "committed"), "model and policy act", 90)
    proposal = publish(server, tmp_path, 2, "--shadow", change=wolf)
    assert "model autoencoder in shadow: 2" in proposal
    wait_until(lambda: updates().get(("autoencoder", "shadow")) == (2, "committed"), "it runs in shadow", 90)
    go_on(shadow=True)
    assert {(each["version"], each["label"]) for each in answers(shadow=True)} == {("1.2", "strange")}
    assert {(each["version"], each["label"]) for each in answers(shadow=False)} == {("1.1", "normal")}
    assert updates()["autoencoder", "act"] == (1, "committed")
    assert not rules(), "what the shadow sees raises nothing"

    assert device.process
    agent = device.process.pid
    wait_until(lambda: len(nicer(agent)) == 1, "nothing is left of the one that was examined")
    (worker,) = nicer(agent)
    worker.send_signal(signal.SIGKILL)
    go_on(shadow=False)
    go_on(shadow=True)

    def page() -> str:
        return said(fleet("device", "show", DEVICE, "--data", server.data))

    shown = wait_until(lambda: "answered by both" in (text := page()) and text, "both are compared", 90)
    assert "autoencoder 1.2 (release 2) in shadow of 1.1" in shown
    assert "labels agree on 0.0% of them" in shown

    agreed(server.data, "assign", DEVICE, "model", "autoencoder", "2")
    wait_until(rules, "now it acts, and what it sees is an event", 60)
    wait_until(lambda: ("autoencoder", "shadow") not in updates(), "and it is in nobody's shadow", 60)
    assert {each["figures"]["score"] > 0 for each in rules()} == {True}
