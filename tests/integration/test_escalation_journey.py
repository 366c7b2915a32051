"""From an agent's doubt to the inference that supersedes it: real agent, broker, server, model."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fleet_protocol.manifest import parse
from tests.support.agents import AgentProcess
from tests.support.escalating import doubting_agent, table
from tests.support.fleet_server import ServerProcess
from tests.support.waiting import wait_until

pytest.importorskip("ai_edge_litert")

DEVICE = "gw-ask"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.support.models import autoencoder

    return autoencoder(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def digest(model: Path) -> str:
    import hashlib

    return hashlib.sha256((model / "manifest.json").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Iterator[ServerProcess]:
    from tests.support.central import write_central

    folder = tmp_path_factory.mktemp("server")
    manifest = parse((model / "manifest.json").read_bytes())
    write_central(folder / "central", [DEVICE, "gw-other"], metric=manifest.features[0].metric)
    server = ServerProcess(folder / "data", "--central-model", str(folder / "central"))
    server.start()
    yield server
    server.end()


@pytest.fixture
def agents() -> Iterator[list[AgentProcess]]:
    """Agents that end with the test."""
    running: list[AgentProcess] = []
    yield running
    for agent in running:
        if agent.process is not None and agent.process.poll() is None:
            agent.kill()


def inferences(server: ServerProcess, device: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = server.get(f"/v1/devices/{device}/inferences")["items"]
    return found


def test_an_uncertain_answer_is_superseded_by_the_centers(
    server: ServerProcess, tmp_path: Path, model: Path, digest: str, agents: list[AgentProcess]
) -> None:
    agent = doubting_agent(server, tmp_path / "agent", DEVICE, model, table(digest))
    agents.append(agent)
    agent.start()

    def superseding() -> list[dict[str, Any]]:
        return [one for one in inferences(server, DEVICE) if one["supersedes"]]

    wait_until(lambda: len(superseding()) > 3, "answers of the center are stored", 40)
    found = inferences(server, DEVICE)
    locals_ = {one["request"]: one for one in found if not one["supersedes"]}
    for one in superseding():
        first = locals_[one["request"]]
        assert first["uncertain"]
        assert first["model"] == "autoencoder"
        assert (one["model"], one["version"], one["uncertain"]) == ("network", "7", False)
        # Two batches, each with a base of its own in whole ms.
        assert abs(one["time_ms"] - first["time_ms"]) <= 2
        assert 0 < one["latency_us"] < 5_000_000
    (item,) = server.get("/v1/escalations", limit=1)["items"]
    assert item["device"] == DEVICE
