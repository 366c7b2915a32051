"""The real program in a real terminal against real processes: server, agent, and the end of the server."""

import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.agents import AgentProcess, recording, replay_section
from tests.support.authority import Credentials
from tests.support.fleet_server import ServerProcess, add
from tests.support.tmux import Terminal, terminal

PROGRAM = [sys.executable, "-m", "fleet_console", "console"]


@pytest.fixture
def screen() -> Iterator[Terminal]:
    with tempfile.TemporaryDirectory(prefix="argan-", dir="/tmp") as folder, terminal(Path(folder)) as opened:
        yield opened


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    server = ServerProcess(tmp_path / "server")
    server.start()
    yield server
    server.end()


@pytest.fixture
def agent(server: ServerProcess, tmp_path: Path) -> Iterator[AgentProcess]:
    """One that replays a recording to the server."""
    identity = add(server, "gw-canal-01", tmp_path / "enrolled")
    add(server, "gw-spare-01", tmp_path / "spare")
    files = Credentials(identity.name, identity.ca, identity.certificate, identity.key)
    path = recording(tmp_path / "r.csv", 100_000)
    agent = AgentProcess(
        tmp_path / "agent", files, server.endpoints["mqtt_port"], replay_section(path, interval_s=0.1)
    )
    agent.start()
    yield agent
    if agent.process is not None and agent.process.poll() is None:
        agent.kill()


def test_a_day_at_the_console(server: ServerProcess, agent: AgentProcess, screen: Terminal) -> None:
    screen.run([*PROGRAM, "--data", str(server.data)], 80, 24)
    screen.shows("overview", "● online        1", "+ new           1", "● live")
    screen.press("2")
    screen.shows("gw-canal-01", "● online", "gw-spare-01", "2 in all")
    screen.press("/")
    screen.type("spare")
    screen.until(lambda text: "gw-canal-01" not in text and "1 of 2 pass" in text, "filtered")
    screen.press("Escape")
    screen.shows("gw-canal-01", "2 in all")
    screen.press("Up", "Enter")  # the cursor has stayed where it was
    screen.shows("devices", "flow", "l/s", "✓ good")
    screen.resize(120, 40)
    screen.shows("Values", "Health", "Models", "Updates", "Agent", "flow, the last")
    _outlive(server, screen)
    screen.press("Escape")
    screen.shows("HEARD")
    screen.press("q")
    screen.shows("ended with 0")


def _outlive(server: ServerProcess, screen: Terminal) -> None:
    """The server is killed: what was seen stays, with its age."""
    assert server.process is not None
    server.children()
    server.process.send_signal(signal.SIGKILL)
    server.complaint()
    server.end()
    text = screen.shows("▲ No answer. What is shown is of", "s old")
    assert "l/s" in text
    assert "● live" not in text


def test_without_color_and_on_site(agent: AgentProcess, screen: Terminal) -> None:
    screen.run([*PROGRAM, "--local", str(agent.data)], 80, 24, NO_COLOR="1")
    screen.shows("● linked", "flow", "✓ good")
    screen.press("Tab")
    screen.shows("nothing is raised")
    screen.press("q")
    screen.shows("ended with 0")


def test_no_server_is_told_before_anything_is_drawn(screen: Terminal, tmp_path: Path) -> None:
    screen.run([*PROGRAM, "--data", str(tmp_path / "none")], 80, 24)
    screen.shows("no server runs on", "ended with 3")
