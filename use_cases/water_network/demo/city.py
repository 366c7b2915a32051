"""The city: broker, server, plant and agents as real processes in one folder, and their orderly end."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hil.processes import Child
from hil.stopping import pause
from use_cases.water_network.demo import plan

PACK: Final = Path(__file__).parent.parent
READY_WITHIN_S: Final = 60.0
"""Seconds that a server has to come up on a slow machine."""
POLL_S: Final = 0.05

Say = Callable[[str], None]


class CityError(RuntimeError):
    """A part of the city did not come up; the message names the log that says why."""


@dataclass(slots=True)
class City:
    """What runs: the server with its broker, the plant, and one agent a post."""

    folder: Path
    plant_port: int
    server: Child
    plant: Child
    agents: dict[str, Child]

    @property
    def started_ms(self) -> int:
        """When the plant began to serve, in ms since 1970."""
        started: dict[str, int] = json.loads((self.folder / "started.json").read_text())
        return started["started_ms"]

    def served(self) -> dict[int, int]:
        """How often each unit of the plant was read; known once the plant is stopped."""
        counts: dict[str, int] = json.loads((self.folder / "served.json").read_text())
        return {int(unit): count for unit, count in counts.items()}

    def mend(self) -> None:
        """Start dead agents again, as the service manager of a board would."""
        for agent in self.agents.values():
            agent.mend()


@contextmanager
def running_city(folder: Path, seed: int, say: Say) -> Iterator[City]:
    """Bring the whole city up in ``folder``; whatever happens, take every process down again.

    Raises:
        CityError: a part did not come up.
    """
    city = _city(folder, seed)
    try:
        _start(city, say)
        yield city
    finally:
        say("Stopping every process")
        _stop(city)


def _city(folder: Path, seed: int) -> City:
    logs = folder / "logs"
    logs.mkdir(parents=True)
    python = (sys.executable, "-m")
    server = Child(
        "server", (*python, "fleet_server", "serve", "--data", str(folder / "server")), logs / "server.log"
    )
    port = _free_port()
    plant_command = (*python, "use_cases.water_network.demo.plant", "--port", str(port))
    plant = Child("plant", (*plant_command, "--seed", str(seed), "--folder", str(folder)), logs / "plant.log")
    agents = {
        post.device: Child(
            post.device,
            (*python, "edge_agent", "run", "--config", str(folder / post.device / "agent.toml")),
            logs / f"{post.device}.log",
        )
        for post in plan.POSTS
    }
    return City(folder, port, server, plant, agents)


def _start(city: City, say: Say) -> None:
    say("Starting the fleet server and its broker")
    city.server.start()
    _await(city.server, (city.folder / "server/endpoints.json").exists)
    for number, post in enumerate(plan.POSTS, 1):
        say(f"Enrolling {post.device} ({number} of {len(plan.POSTS)})")
        _enroll(city, post)
        pause()
    say("Computing the network's hydraulics and starting the Modbus plant")
    city.plant.start()
    _await(city.plant, (city.folder / "started.json").exists)
    say("Starting twelve agents")
    for agent in city.agents.values():
        agent.start()


def _stop(city: City) -> None:
    for agent in city.agents.values():
        agent.ask_to_stop()
    for child in (*city.agents.values(), city.plant, city.server):
        child.stop()


def _await(child: Child, ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    while not ready():
        if not child.alive or time.monotonic() > deadline:
            tail = "\n".join(child.log.read_text(errors="replace").splitlines()[-15:])
            raise CityError(f"{child.name} did not come up; the end of {child.log}:\n{tail}")
        pause(POLL_S)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _enroll(city: City, post: plan.Post) -> None:
    """Make the device's key and certificate through the CLI, then add sensor and model."""
    folder = city.folder / post.device
    command = (sys.executable, "-m", "fleet_console", "device", "add", post.device, "--profile", "simulated")
    done = subprocess.run(
        (*command, "--site", "net3", "--out", str(folder), "--data", str(city.folder / "server")),
        capture_output=True,
        text=True,
        check=False,
        start_new_session=True,
    )
    if done.returncode != 0:
        raise CityError(
            f"fleet device add {post.device} failed: {done.stderr.strip() or done.stdout.strip()}"
        )
    config = folder / "agent.toml"
    config.write_text(_with_plant(config.read_text(), post, city.plant_port))


def _with_plant(skeleton: str, post: plan.Post, port: int) -> str:
    """The enrolled device's configuration with its meter and its model."""
    interval = plan.interval_s(post)
    meter = f"""
[[sensors]]
kind = "modbus"
name = "meter"
host = "127.0.0.1"
port = {port}
unit = {post.unit}
interval_s = {interval}
timeout_s = 3.0
"""
    registers = "".join(
        _register(metric, unit, address, kind)
        for metric, unit, address, kind in (
            ("pressure", "m", 0, "float32"),
            ("flow", "L/s", 2, "float32"),
            ("served", "1", 4, "uint32"),
        )
    )
    model = f"""
[[models]]
folder = "{PACK / "models" / post.model}"
policy = "{PACK / "policies" / post.policy}"
runtime = "{post.runtime}"
isolation = "{post.isolation}"
"""
    top = f"time_factor = {plan.TIME_FACTOR}\n"
    return f"{top}{skeleton}\n[spool]\nflush_interval_s = {interval}\n{meter}{registers}{model}"


def _register(metric: str, unit: str, address: int, kind: str) -> str:
    return f"""
[[sensors.registers]]
metric = "{metric}"
unit = "{unit}"
address = {address}
type = "{kind}"
"""
