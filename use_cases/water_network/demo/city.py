"""The city: broker, server, plant and agents as real processes in one folder, and their orderly end."""

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fleet_protocol.texts import _
from hil.installation import free_port
from hil.processes import Child
from hil.stopping import pause
from use_cases.water_network.demo import plan
from use_cases.water_network.demo.devices import enroll
from use_cases.water_network.demo.operating import Operator
from use_cases.water_network.demo.policies import PACK

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
    operator: Operator
    plant_port: int
    server: Child
    plant: Child
    agents: dict[str, Child]

    @property
    def started_ms(self) -> int:
        """When the plant began to serve, in ms since 1970."""
        return started_ms(self.folder)

    def close_meters(self) -> dict[int, int]:
        """Have the plant's meters refuse from now on; how often each unit was read.

        Raises:
            CityError: the plant does not run.
        """
        file = self.folder / "served.json"
        if self.plant.pid is not None:
            os.kill(self.plant.pid, signal.SIGUSR1)
        _await(self.plant, file.exists)
        counts: dict[str, int] = json.loads(file.read_text())
        return {int(unit): count for unit, count in counts.items()}

    def mend(self) -> None:
        """Start dead agents again, as the service manager of a board would."""
        for agent in self.agents.values():
            agent.mend()


def started_ms(folder: Path) -> int:
    """When the plant of the city in ``folder`` began to serve, in ms since 1970."""
    started: dict[str, int] = json.loads((folder / "started.json").read_text())
    return started["started_ms"]


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
        say(_("Stopping every process"))
        _stop(city)


def _city(folder: Path, seed: int) -> City:
    logs = folder / "logs"
    logs.mkdir(parents=True)
    python = (sys.executable, "-m")
    serve = (*python, "fleet_server", "serve", "--data", str(folder / "server"))
    server = Child("server", (*serve, "--central-model", str(PACK / "central")), logs / "server.log")
    port = free_port()
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
    return City(folder, Operator(folder), port, server, plant, agents)


def _start(city: City, say: Say) -> None:
    say(_("Starting the fleet server, its broker and the central model"))
    city.server.start()
    _await(city.server, (city.folder / "server/endpoints.json").exists)
    say(_("Holding the key ceremony"))
    city.operator.hold_ceremony()
    for number, post in enumerate(plan.POSTS, 1):
        pause()
        say(
            _("Enrolling {device} ({number} of {count})").format(
                device=post.device, number=number, count=len(plan.POSTS)
            )
        )
        enroll(city.operator, city.folder, post, city.plant_port)
    city.operator.save_group()
    pause()
    say(_("Computing the network's hydraulics and starting the Modbus plant"))
    city.plant.start()
    _await(city.plant, (city.folder / "started.json").exists)
    say(_("Starting {count} agents").format(count=len(city.agents)))
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
            raise CityError(
                _("{name} did not come up; the end of {log}:\n{tail}").format(
                    name=child.name, log=child.log, tail=tail
                )
            )
        pause(POLL_S)
