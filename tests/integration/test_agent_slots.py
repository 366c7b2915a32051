"""Real agents replace their own software: built from wheels without a network, tried, switched to by the
launcher, killed at every step, and left again where it does not come up. No reading is lost."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fleet_protocol.messages import Telemetry
from fleet_signing.artifacts import Artifact
from tests.support.agent_builds import LauncherProcess, artifact
from tests.support.agents import AgentProcess, recording, replay_section
from tests.support.authority import TestAuthority
from tests.support.broker import TestBroker
from tests.support.consumer import Consumer
from tests.support.update_server import UpdateServer
from tests.support.updating import Yard
from tests.support.waiting import wait_until
from use_cases.water_network.demo.agent_builds import BROKEN

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

StartAgent = Callable[..., AgentProcess]
PATIENCE_S = 120


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return artifact(tmp_path_factory.mktemp("good"), 1)


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return artifact(tmp_path_factory.mktemp("bad"), 2, BROKEN)


@pytest.fixture
def yard(tmp_path: Path, authority: TestAuthority) -> Iterator[Yard]:
    yard = Yard(tmp_path / "gw-7", authority)
    with UpdateServer(authority.issue("updates"), yard.repositories.files) as yard.server:
        yard.repositories.direct(yard.device)
        yield yard


@pytest.fixture
def launcher(
    tmp_path: Path, yard: Yard, broker: TestBroker, start_agent: StartAgent
) -> Iterator[LauncherProcess]:
    assert yard.server
    sections = f"""\
{replay_section(recording(tmp_path / "recording.csv", 100_000), interval_s=0.02)}
[updates]
url = "{yard.server.url}"
image_root = "{yard.image_root}"
director_root = "{yard.director_root}"
poll_interval_s = 1.0
retry_cap_s = 1.0
"""
    launcher = LauncherProcess(start_agent(yard.device, broker.port, sections, run=False))
    yield launcher
    launcher.end()


def readings(consumer: Consumer, device: str) -> list[list[float]]:
    """What came, epoch by epoch: each start of an agent replays its recording from the beginning."""
    epochs: dict[str, list[float]] = {}
    for batch in consumer.content_of(device):
        if isinstance(batch, Telemetry):
            epochs.setdefault(batch.epoch, []).extend(each.value for each in batch.readings)
    return list(epochs.values())


def nothing_lost(launcher: LauncherProcess, consumer: Consumer, device: str) -> None:
    """Every start's readings come from the first on, without a hole, and nothing waits."""
    launcher.stop()
    launcher.agent.start()
    launcher.agent.delivered()
    launcher.agent.kill()
    starts = readings(consumer, device)
    assert len(starts) >= 3, "the version before, the new one, and the one that sent the rest"
    for values in starts:
        assert sorted(values) == [float(n) for n in range(len(values))]


def runs(consumer: Consumer, device: str, version: str) -> None:
    wait_until(
        lambda: (
            consumer.status.get(device) is not None
            and consumer.status[device].online
            and consumer.status[device].agent == f"argan-{version}"
        ),
        f"{version} runs",
        PATIENCE_S,
    )


def told(consumer: Consumer, device: str, state: str) -> str:
    """The detail with which the update of the agent is reported to be in ``state``."""

    def found() -> list[str]:
        reported = consumer.reported.get(device)
        updates = reported.updates if reported else []
        return [each.detail + "." for each in updates if (each.kind, each.state) == ("agent", state)]

    return wait_until(found, f"the agent is reported {state}", PATIENCE_S)[0]


def test_an_agent_replaces_its_own_software_and_leaves_what_does_not_start(
    yard: Yard, launcher: LauncherProcess, consumer: Consumer, good: Artifact, bad: Artifact
) -> None:
    device = yard.device
    launcher.start()
    runs(consumer, device, "0.1.0")
    yard.order(good)
    runs(consumer, device, "0.1.1")
    told(consumer, device, "committed")
    assert (launcher.record.current, launcher.record.trying) == (good.target.sha256, False)
    yard.order(bad)
    assert "started 3 times" in told(consumer, device, "rolled_back")
    runs(consumer, device, "0.1.1")
    assert launcher.record.current == good.target.sha256
    looks = len(yard.server.asked)
    wait_until(lambda: len(yard.server.asked) > looks + 8, "it looks again")
    assert launcher.state == "rolled_back", "and is not tried again"
    kept = {path.name for path in launcher.slots.iterdir() if path.is_dir()}
    assert kept == {good.target.sha256}
    nothing_lost(launcher, consumer, device)
    assert "0.1.1, release 1, in slot" in status(launcher)
    assert "was given up: started 3 times" in status(launcher)


def status(launcher: LauncherProcess) -> str:
    command = [sys.executable, "-m", "edge_agent", "update", "status", "--config", str(launcher.agent.config)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_killed_in_every_state_the_switch_comes_to_its_end(
    yard: Yard, launcher: LauncherProcess, consumer: Consumer, good: Artifact
) -> None:
    """The agent and the launcher in turn; a launcher that is killed takes its agent with it."""
    launcher.start()
    runs(consumer, yard.device, "0.1.0")
    yard.order(good)
    killed: list[str] = []

    def in_new_state() -> bool:
        return launcher.state not in {"", "committed", *killed}

    while launcher.state != "committed":
        wait_until(lambda: in_new_state() or launcher.state == "committed", "it goes on", PATIENCE_S)
        if not in_new_state():
            break
        killed.append(launcher.state)
        if len(killed) % 2:
            launcher.kill_agent()
        else:
            launcher.kill()
            launcher.start()
    assert {"testing", "activating"} <= set(killed)
    runs(consumer, yard.device, "0.1.1")
    assert (launcher.record.current, launcher.record.trying) == (good.target.sha256, False)
    nothing_lost(launcher, consumer, yard.device)
