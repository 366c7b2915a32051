"""A real agent on a slow line: what came outlives a kill, and it stops when nobody wants it any more."""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from edge_agent.updates import ledger as ledgers
from edge_agent.updates.ledger import Ledger
from fleet_protocol import manifest as mf
from fleet_protocol.messages import UpdateReport
from fleet_signing import patches
from fleet_signing.artifacts import Artifact
from tests.support.agents import AgentProcess
from tests.support.authority import TestAuthority
from tests.support.broker import TestBroker
from tests.support.consumer import Consumer
from tests.support.update_server import UpdateServer
from tests.support.updating import Yard, model_artifact, model_folder
from tests.support.waiting import wait_until

PATIENCE_S = 60
STEP_MS = 20
NAME = "autoencoder"
SECOND: Artifact = model_artifact(2)
THIRD: Artifact = model_artifact(3)

SLOW = (1024, 0.25)
"""Four KiB a second: 30 KiB take eight."""


@pytest.fixture
def yard(tmp_path: Path, authority: TestAuthority) -> Iterator[Yard]:
    yard = Yard(tmp_path / "gw-7", authority)
    with UpdateServer(authority.issue("updates"), yard.repositories.files) as yard.server:
        yard.repositories.direct(yard.device)
        yield yard


@pytest.fixture
def server(yard: Yard) -> UpdateServer:
    assert yard.server
    return yard.server


@pytest.fixture
def agent(
    tmp_path: Path, yard: Yard, broker: TestBroker, start_agent: Callable[..., AgentProcess]
) -> AgentProcess:
    """An agent with the first release fitted, which looks every second."""
    assert yard.server
    fitted = model_folder(tmp_path / "fitted", 1)
    rows = tmp_path / "signal.csv"
    rows.write_text("value\n" + "".join(f"{n % 7}\n" for n in range(1000)))
    sections = f"""\
[[sensors]]
kind = "replay"
name = "recording"
path = "{rows}"
interval_s = {STEP_MS / 1000}
repeat = true
[sensors.columns]
signal = "value"
[[models]]
folder = "{fitted}"
runtime = "litert"
[updates]
url = "{yard.server.url}"
image_root = "{yard.image_root}"
director_root = "{yard.director_root}"
poll_interval_s = 1.0
retry_cap_s = 1.0
probation_s = 0.5
probation_windows = 4
"""
    agent = start_agent(yard.device, broker.port, sections, run=False)
    step_s = mf.parse((fitted / "manifest.json").read_bytes()).step_s
    text = agent.config.read_text()
    agent.config.write_text(text.replace("[broker]", f"time_factor = {step_s * 1000 / STEP_MS}\n[broker]", 1))
    return agent


def report(consumer: Consumer, yard: Yard) -> UpdateReport | None:
    reported = consumer.reported.get(yard.device)
    return next((each for each in reported.updates if each.name == NAME), None) if reported else None


def reaches(consumer: Consumer, yard: Yard, state: str, release: int) -> None:
    def is_there() -> bool:
        each = report(consumer, yard)
        return each is not None and (each.state, each.release) == (state, release)

    wait_until(is_there, f"release {release} is {state}", PATIENCE_S)


def downloads(agent: AgentProcess) -> Path:
    return agent.data / "updates" / ledgers.DOWNLOADS


def part(agent: AgentProcess, artifact: Artifact) -> int:
    """How many bytes of it are here."""
    file = downloads(agent) / f"{artifact.target.sha256}.part"
    return file.stat().st_size if file.exists() else 0


def ledger(agent: AgentProcess, artifact: Artifact) -> Ledger:
    return ledgers.load(ledgers.place_of(downloads(agent), artifact.target.sha256))


def looks(agent: AgentProcess) -> list[psutil.Process]:
    """The children that look."""
    assert agent.process
    children = psutil.Process(agent.process.pid).children()
    return [child for child in children if "edge_agent.updates" in child.cmdline()]


def edge_agent(agent: AgentProcess, *arguments: str) -> str:
    command = [sys.executable, "-m", "edge_agent", "update", *arguments, "--config", str(agent.config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_came_outlives_a_killed_look_and_a_killed_agent(
    yard: Yard, server: UpdateServer, agent: AgentProcess, consumer: Consumer
) -> None:
    server.pieces = SLOW
    agent.start()
    yard.order(SECOND)
    wait_until(lambda: part(agent, SECOND) >= 8192, "some of it is here", PATIENCE_S)
    for look in looks(agent):
        look.send_signal(signal.SIGKILL)
    wait_until(lambda: part(agent, SECOND) >= 16384, "more of it is here", PATIENCE_S)
    agent.kill()
    server.pieces = None
    agent.start()
    reaches(consumer, yard, "committed", 2)
    first, second, third = server.ranges(".tar")
    assert first == ""
    assert int(second.removeprefix("bytes=").rstrip("-")) >= 8192
    assert int(third.removeprefix("bytes=").rstrip("-")) >= 16384
    cost = ledger(agent, SECOND)
    # What lay in a buffer when a process was killed is lost, and comes again.
    assert cost.fetched <= SECOND.target.length + 2 * 16384
    status = edge_agent(agent, "status")
    assert f"models/{NAME}/2.tar: {cost.fetched} bytes fetched" in status


def test_an_order_that_is_replaced_ends_its_download_and_sweeps_it(
    yard: Yard, server: UpdateServer, agent: AgentProcess, consumer: Consumer
) -> None:
    server.pieces = (16, 0.25)
    agent.start()
    yard.order(SECOND)
    wait_until(lambda: (each := report(consumer, yard)) and each.fetched > 0, "it is told", PATIENCE_S)
    server.pieces = None
    yard.order(THIRD)
    consumer.hint(yard.device, 7)
    reaches(consumer, yard, "committed", 3)
    assert not [file for file in downloads(agent).iterdir() if SECOND.target.sha256 in file.name]


def test_who_is_on_site_cancels_and_resumes(
    yard: Yard, server: UpdateServer, agent: AgentProcess, consumer: Consumer
) -> None:
    server.pieces = (16, 0.25)
    agent.start()
    yard.order(SECOND)
    wait_until(lambda: ledger(agent, SECOND).fetched > 0, "some of it is here", PATIENCE_S)
    assert edge_agent(agent, "cancel") == f"models/{NAME}/2.tar: canceled\n"
    wait_until(lambda: (each := report(consumer, yard)) and "canceled" in each.detail, "it is told")
    asked = len(server.ranges(".tar"))
    seen = len(server.asked)
    wait_until(lambda: len(server.asked) > seen + 4, "it looks again", PATIENCE_S)
    assert len(server.ranges(".tar")) == asked
    assert "canceled on site" in edge_agent(agent, "status")
    assert edge_agent(agent, "cancel") == "Nothing is being fetched.\n"
    assert agent.stop() == 0
    server.pieces = None
    assert edge_agent(agent, "resume") == f"models/{NAME}/2.tar: goes on\n", "without the agent too"
    agent.start()
    reaches(consumer, yard, "committed", 2)


def test_a_stick_does_not_wait_for_a_slow_line(
    yard: Yard, server: UpdateServer, agent: AgentProcess, consumer: Consumer, tmp_path: Path
) -> None:
    server.pieces = (16, 0.25)
    agent.start()
    yard.order(SECOND)
    wait_until(lambda: ledger(agent, SECOND).fetched > 0, "some of it is here", PATIENCE_S)
    edge_agent(agent, "from", str(yard.bundle(tmp_path / "stick.tar")))
    reaches(consumer, yard, "committed", 2)
    assert ledger(agent, SECOND).fetched < SECOND.target.length


def test_the_next_release_comes_as_what_is_different(
    yard: Yard, server: UpdateServer, agent: AgentProcess, consumer: Consumer
) -> None:
    agent.start()
    yard.order(SECOND)
    reaches(consumer, yard, "committed", 2)
    delta = patches.make(SECOND.content, THIRD.content)
    yard.repositories.publish(THIRD)
    place = f"image/deltas/{SECOND.target.sha256}/{THIRD.target.sha256}.zst"
    yard.repositories.files[place] = delta
    yard.order(THIRD)
    reaches(consumer, yard, "committed", 3)
    assert server.ranges(".3.tar") == []
    saved = THIRD.target.length - len(delta)
    assert f"{len(delta)} were fetched, {saved} saved" in agent.log
    assert f"{saved} saved" in edge_agent(agent, "status")
