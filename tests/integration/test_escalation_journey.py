"""From an agent's doubt to the inference that supersedes it: real agent, broker, server, model."""

import hashlib
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fleet_protocol.manifest import parse
from fleet_server.escalation.folder import open_folder
from tests.support import oip_server
from tests.support.agents import AgentProcess
from tests.support.escalating import doubting_agent, table
from tests.support.fleet_server import ServerProcess
from tests.support.waiting import free_port, wait_until

pytest.importorskip("ai_edge_litert")
pytest.importorskip("openvino")

GATEWAYS = tuple(f"gw-{number}" for number in range(10))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.support.models import autoencoder

    return autoencoder(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def digest(model: Path) -> str:
    return hashlib.sha256((model / "manifest.json").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def central(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    from tests.support.central import write_central

    folder = tmp_path_factory.mktemp("central")
    manifest = parse((model / "manifest.json").read_bytes())
    write_central(folder, GATEWAYS, metric=manifest.features[0].metric, step_s=manifest.step_s)
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, central: Path) -> Iterator[ServerProcess]:
    server = ServerProcess(tmp_path_factory.mktemp("server") / "data", "--central-model", str(central))
    server.start()
    yield server
    server.end()


StartAgent = Callable[..., AgentProcess]


@pytest.fixture
def start(tmp_path: Path, model: Path) -> Iterator[StartAgent]:
    """Starts an agent of a server by name and ``[escalation]`` table; it ends with the test."""
    running: list[AgentProcess] = []

    def start(server: ServerProcess, name: str, escalation: str) -> AgentProcess:
        agent = doubting_agent(server, tmp_path / name, name, model, escalation)
        running.append(agent)
        agent.start()
        return agent

    yield start
    for agent in running:
        if agent.process is not None and agent.process.poll() is None:
            agent.kill()


def inferences(server: ServerProcess, device: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = server.get(f"/v1/devices/{device}/inferences", limit=10_000)["items"]
    return found


def superseding(server: ServerProcess, device: str) -> list[dict[str, Any]]:
    return [one for one in inferences(server, device) if one["supersedes"]]


def answers(server: ServerProcess, device: str, least: int = 20) -> list[dict[str, Any]]:
    """The local answers of a device, once there are enough."""

    def found() -> list[dict[str, Any]]:
        local = [one for one in inferences(server, device) if not one["supersedes"]]
        return local if len(local) >= least else []

    return wait_until(found, "the model answers", 40)


def codes(server: ServerProcess, device: str) -> dict[str, str]:
    page = server.get(f"/v1/devices/{device}")["device"]["health"]
    return {item["code"]: item["detail"] for item in page}


def test_an_uncertain_answer_is_superseded_by_the_centers(
    server: ServerProcess, digest: str, start: StartAgent
) -> None:
    device = GATEWAYS[0]
    agent = start(server, device, table(digest))
    wait_until(lambda: len(superseding(server, device)) > 3, "answers of the center are stored", 40)
    assert agent.stop() == 0
    found = inferences(server, device)
    first = {one["request"]: one for one in found if not one["supersedes"]}
    for one in superseding(server, device):
        local = first[one["request"]]
        assert local["uncertain"]
        assert local["model"] == "autoencoder"
        assert (one["model"], one["version"], one["uncertain"]) == ("network", "7", False)
        # Two batches, each with a base of its own in whole ms.
        assert abs(one["time_ms"] - local["time_ms"]) <= 2
        assert 0 < one["latency_us"] < 5_000_000
    (item,) = server.get("/v1/escalations", limit=1)["items"]
    assert (item["device"], item["state"]) == (device, "answered")
    assert "escalation.unanswered" not in codes(server, device)


def test_a_sure_answer_is_audited_and_not_called_uncertain(
    server: ServerProcess, digest: str, start: StartAgent
) -> None:
    device = GATEWAYS[1]
    start(server, device, table(digest, threshold=0.0, audit_share=0.3))
    wait_until(lambda: len(superseding(server, device)) > 3, "audits are answered", 40)
    found = answers(server, device, 60)
    assert not any(one["uncertain"] for one in found)
    audited = [one for one in found if one["request"]]
    assert 0.05 < len(audited) / len(found) < 0.7


@pytest.mark.parametrize(
    ("device", "changes", "reason"),
    [
        (GATEWAYS[2], {"expires": "2026-01-01", "threshold": 0.0}, "it ended on 2026-01-01"),
        (GATEWAYS[3], {"model_sha256": f'"{"0" * 64}"', "threshold": 0.0}, "made for another model"),
    ],
    ids=["expired", "other model"],
)
def test_what_no_calibration_vouches_for_is_uncertain_and_stays_here(
    server: ServerProcess, digest: str, start: StartAgent, device: str, changes: dict[str, Any], reason: str
) -> None:
    start(server, device, table(digest, **changes))
    found = answers(server, device)
    assert all(one["uncertain"] and not one["request"] for one in found)
    told = wait_until(lambda: codes(server, device).get("escalation.uncalibrated"), "it is told")
    assert reason in told


def test_beyond_its_budget_an_answer_stays_here_and_is_still_uncertain(
    server: ServerProcess, digest: str, start: StartAgent
) -> None:
    device = GATEWAYS[4]
    start(server, device, table(digest, budget="{ per_hour = 1.0, burst = 3 }"))
    found = answers(server, device, 30)
    assert all(one["uncertain"] for one in found)
    assert len([one for one in found if one["request"]]) == 3
    wait_until(lambda: len(superseding(server, device)) == 3, "those that were asked are answered")
    wait_until(lambda: "escalation.over_budget" in codes(server, device), "it is told")


@pytest.mark.parametrize("name", ["escalation", "mosquitto"])
def test_a_killed_part_of_the_server_costs_no_answer_that_is_still_in_time(
    server: ServerProcess, digest: str, start: StartAgent, name: str
) -> None:
    """The agent asks again under the same id; the service gets again what it had not answered."""
    device = GATEWAYS[5] if name == "escalation" else GATEWAYS[6]
    start(server, device, table(digest, deadline_s=60.0, budget="{ per_hour = 1000000.0, burst = 200 }"))
    wait_until(lambda: superseding(server, device), "an answer of the center", 40)
    killed = server.children()[name]
    killed.send_signal(signal.SIGKILL)
    wait_until(
        lambda: (again := server.children().get(name)) and again.pid != killed.pid, f"{name} runs again"
    )
    before = len(superseding(server, device))
    wait_until(lambda: len(superseding(server, device)) > before + 5, "answers come again", 40)
    asked = {one["request"] for one in inferences(server, device) if one["request"]}
    wait_until(lambda: asked <= {one["request"] for one in superseding(server, device)}, "every question", 40)
    assert "escalation.unanswered" not in codes(server, device)


def test_a_center_that_is_too_slow_is_told_and_its_late_answer_ignored(
    tmp_path: Path, central: Path, digest: str, start: StartAgent
) -> None:
    device = GATEWAYS[7]
    port = free_port()
    options = ("--central-model", str(central), "--inference-url", f"http://127.0.0.1:{port}")
    with oip_server.serving(open_folder(central).manifest, port) as inference:
        server = ServerProcess(tmp_path / "data", *options)
        server.start()
        try:
            inference.held.clear()
            start(server, device, table(digest, deadline_s=0.5))
            told = wait_until(lambda: codes(server, device).get("escalation.unanswered"), "it is told", 40)
            assert "unanswered" in told or "late" in told
            found = answers(server, device)
            assert all(one["uncertain"] for one in found)
            assert superseding(server, device) == []
            inference.held.set()
            wait_until(lambda: superseding(server, device), "answers come")
            wait_until(lambda: "escalation.unanswered" not in codes(server, device), "it is over", 40)
        finally:
            server.end()


def test_a_center_without_a_model_is_told(tmp_path: Path, digest: str, start: StartAgent) -> None:
    device = GATEWAYS[8]
    server = ServerProcess(tmp_path / "data")
    server.start()
    try:
        start(server, device, table(digest))
        told = wait_until(lambda: codes(server, device).get("escalation.unanswered"), "it is told", 40)
        assert "this server has no central model" in told
        assert all(one["uncertain"] for one in answers(server, device))
    finally:
        server.end()
