"""One installation under test: a server, meters, and an agent a device, as real processes in one folder."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from fleet_protocol.texts import _
from hil import releases
from hil.errors import RigError, StepFailed
from hil.processes import Child
from hil.rigs import Rig
from hil.scenario import Device, Scenario
from hil.stopping import pause

REPOSITORY: Final = Path(__file__).parents[1]
READY_S: Final = 60.0
POLL_S: Final = 0.05

_PASSPHRASE: Final = "of this rig alone, and gone with it"  # noqa: S105 - it protects nothing

_FAKETIME: Final = "*/faketime/libfaketime.so.1"
"""Below ``/usr/lib``."""

_PARTS: Final = {"broker": "mosquitto", "ingest": "ingest"}
"""How a part of the server shows in its command line."""


@dataclass(slots=True)
class Post:
    """A device of the scenario: its folder, its agent, its meter's unit, what was done to it."""

    device: Device
    unit: int
    folder: Path
    agent: Child
    held: bool = False
    kills_ms: list[int] = field(default_factory=list)

    @property
    def data(self) -> Path:
        """The agent's data folder."""
        return self.folder / "data"


class Installation:
    """What runs. Made by :func:`running`. ``watch`` is called now and then while something is waited for."""

    watch: Callable[[], None] | None = None

    def __init__(self, scenario: Scenario, rig: Rig, folder: Path) -> None:
        self.rig: Final = rig
        self.folder: Final = folder
        self.keys: Final = folder / "keys"
        self.server_data: Final = folder / "server"
        self._passphrase: Final = folder / "passphrase"
        self._passphrase.write_text(_PASSPHRASE)
        logs = folder / "logs"
        logs.mkdir()
        python = (sys.executable, "-m")
        options = ["--broker-host", rig.host]
        if scenario.central_model is not None:
            options += ["--central-model", str(REPOSITORY / scenario.central_model)]
        self.server: Final = Child(
            "server",
            (*python, "fleet_server", "serve", "--data", str(self.server_data), *options),
            logs / "server.log",
        )
        self.plant_port: Final = free_port()
        plant = (*rig.field, *python, "hil.plant", "--folder", str(folder), "--port", str(self.plant_port))
        self.plant: Final = Child(
            "meters", (*plant, "--units", str(len(scenario.devices))), logs / "meters.log"
        )
        self._has_releases: Final = scenario.repositories
        self.posts: Final = {
            device.name: Post(device, unit, folder / device.name, self._agent(device, logs))
            for unit, device in enumerate(scenario.devices, 1)
        }

    def mend(self) -> None:
        """Start dead agents again, as a service manager would, except those that are held."""
        for post in self.posts.values():
            if not post.held:
                post.agent.mend()

    def pid_of(self, part: str) -> int:
        """The process of a part of the server.

        Raises:
            StepFailed: it does not run.
        """
        server = self.server.pid
        if part == "server" and server is not None:
            return server
        for child in _children(server):
            words = _command_line(child)
            if _PARTS.get(part, part) in {Path(word).name for word in words}:
                return child
        raise StepFailed(_("{part} does not run").format(part=part))

    def fleet(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run ``fleet`` with ``arguments``; a command that asks the server is told which."""
        return subprocess.run(
            (sys.executable, "-m", "fleet_console", *arguments),
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"ARGAN_PASSPHRASE_FILE": str(self._passphrase), "NO_COLOR": "1"},
            cwd=REPOSITORY,
        )

    def set_fault(self, unit: int, fault: str) -> None:
        """Have a meter fail so from its next request on."""
        file = self.folder / "faults.json"
        faults = json.loads(file.read_text()) if file.exists() else {}
        beside = file.with_suffix(".new")
        beside.write_text(json.dumps(faults | {str(unit): fault}))
        beside.replace(file)

    def served(self) -> dict[int, int]:
        """How often each meter was read by now."""
        file = self.folder / "served.json"
        before = json.loads(file.read_text())["at"]
        if self.plant.pid is not None:
            os.kill(self.plant.pid, signal.SIGUSR1)
            self.wait(lambda: json.loads(file.read_text())["at"] > before, READY_S, _("the meters"))
        counts: dict[str, int] = json.loads(file.read_text())["served"]
        return {int(unit): count for unit, count in counts.items()}

    def set_clock(self, post: Post, at: str) -> None:
        """Restart the agent of ``post`` with another wall clock; durations stay true.

        Raises:
            RigError: libfaketime is not installed.
        """
        environment: dict[str, str] = {}
        if at != "right":
            libraries = list(Path("/usr/lib").glob(_FAKETIME))
            if not libraries:
                raise RigError(_("libfaketime is missing; install the Debian package 'faketime'"))
            environment = {
                "LD_PRELOAD": str(libraries[0]),
                "FAKETIME": f"@{at}",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
                "FAKETIME_NO_CACHE": "1",
            }
        post.agent.stop()
        post.agent.rearrange(environment=environment)
        post.agent.start()

    def cut_power(self, post: Post, at: int, within_s: float) -> str:
        """Run the agent of ``post`` until it has renamed ``at`` - 1 files; kill it instead of the next.

        A durable write ends with a rename: so each of these is a point between two durable acts. What
        was about to be renamed; nothing where the agent had no more to write.

        Raises:
            RigError: strace is not installed.
        """
        if shutil.which("strace") is None:
            raise RigError(_("strace is missing; install the Debian package 'strace'"))
        trace = self.folder / "logs" / f"{post.device.name}.trace"
        inject = f"inject=rename:error=EIO:signal=SIGKILL:when={at}"
        traced = ("strace", "-qq", "-f", "-o", str(trace), "-e", "trace=rename", "-e", inject)
        post.agent.stop()
        post.agent.rearrange(prefix=traced)
        post.agent.start()
        died = post.agent.wait(within_s)
        post.agent.kill()
        post.kills_ms.append(time.time_ns() // 1_000_000)
        post.agent.rearrange()
        return _last_renamed(trace) if died else ""

    def wait(self, holds: Callable[[], bool], within_s: float, what: str) -> None:
        """Return once ``holds``, keeping the agents alive meanwhile.

        Raises:
            StepFailed: it did not come true in time.
        """
        deadline = time.monotonic() + within_s
        while not holds():
            if time.monotonic() > deadline:
                raise StepFailed(
                    _("not seen within {seconds:.0f} s: {what}").format(seconds=within_s, what=what)
                )
            self.mend()
            if self.watch is not None:
                self.watch()
            pause(POLL_S)

    def start_server(self) -> None:
        """Start the server and wait until it answers."""
        self.server.start()
        endpoints = self.server_data / "endpoints.json"
        self._came_up(self.server, endpoints.exists)

    def start_devices(self) -> None:
        """Add every device, then start meters and agents."""
        for post in self.posts.values():
            self._add(post)
        self.plant.start()
        self._came_up(self.plant, (self.folder / "served.json").exists)
        for post in self.posts.values():
            post.agent.start()

    def stop(self) -> None:
        """End every process."""
        for post in self.posts.values():
            post.agent.ask_to_stop()
        for child in (*(post.agent for post in self.posts.values()), self.plant, self.server):
            if child.pid is not None:
                os.kill(child.pid, signal.SIGCONT)
            child.stop()

    def _agent(self, device: Device, logs: Path) -> Child:
        config = self.folder / device.name / "agent.toml"
        command = (sys.executable, "-m", "edge_agent", "run", "--config", str(config))
        return Child(device.name, (*self.rig.field, *command), logs / f"{device.name}.log")

    def _add(self, post: Post) -> None:
        done = self.fleet(
            "device", "add", post.device.name, "--profile", post.device.profile,
            "--out", str(post.folder), "--data", str(self.server_data),
        )  # fmt: skip
        if done.returncode != 0:
            raise StepFailed(
                _("fleet device add {name}: {reason}").format(name=post.device.name, reason=done.stderr)
            )
        config = post.folder / "agent.toml"
        config.write_text(_configured(config.read_text(), post, self.plant_port) + self._model(post))

    def _model(self, post: Post) -> str:
        """Its factory-fitted model: release 1 of the rig's own, or the repository's as it is."""
        device = post.device
        if device.model is None:
            return ""
        folder = REPOSITORY / device.model
        if self._has_releases:
            folder = releases.write(folder, post.folder / "fitted", 1, "none")
        policy = f'policy = "{REPOSITORY / device.policy}"\n' if device.policy else ""
        return f'\n[[models]]\nfolder = "{folder}"\n{policy}'

    def _came_up(self, child: Child, ready: Callable[[], bool]) -> None:
        def holds() -> bool:
            if not child.alive:
                tail = "\n".join(child.log.read_text(errors="replace").splitlines()[-10:])
                raise StepFailed(_("{name} ended:\n{tail}").format(name=child.name, tail=tail))
            return ready()

        deadline = time.monotonic() + READY_S
        while not holds():
            if time.monotonic() > deadline:
                raise StepFailed(_("{name} did not come up").format(name=child.name))
            pause(POLL_S)


@contextmanager
def running(scenario: Scenario, rig: Rig, folder: Path) -> Iterator[Installation]:
    """The scenario's installation up and running; nothing is left of it afterwards.

    Raises:
        StepFailed: a part did not come up.
        RigError: what a device asks for cannot be had here.
    """
    with ExitStack() as stack:
        installation = Installation(scenario, rig, folder)
        for post in installation.posts.values():
            if post.device.disk_mib is not None:
                stack.enter_context(_small_disk(post.data, post.device.disk_mib))
        stack.callback(installation.stop)
        installation.start_server()
        if scenario.repositories:
            _make_repositories(installation)
        installation.start_devices()
        yield installation


def _make_repositories(installation: Installation) -> None:
    """Both repositories, their keys made here: the offline machine is this one."""
    done = installation.fleet(
        "key", "ceremony", "--keys", str(installation.keys), "--data", str(installation.server_data)
    )
    if done.returncode != 0:
        raise StepFailed(_("fleet key ceremony: {reason}").format(reason=done.stderr))


@contextmanager
def _small_disk(folder: Path, size_mib: int) -> Iterator[None]:
    folder.mkdir(parents=True)
    mount = ("mount", "-t", "tmpfs", "-o", f"size={size_mib}m", "argan", str(folder))
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        raise RigError(_("a small disk needs root, to mount it"))
    try:
        yield
    finally:
        subprocess.run(("umount", "--lazy", str(folder)), check=True)


def _configured(skeleton: str, post: Post, port: int) -> str:
    """The enrolled device's configuration with its meter and its limits."""
    device = post.device
    spool = f"max_bytes = {device.spool_max_bytes}\n" if device.spool_max_bytes else ""
    stuck = f"stuck_after_s = {device.stuck_after_s}\n" if device.stuck_after_s else ""
    text = f"time_factor = {device.time_factor}\n{skeleton}"
    for key, value in device.updates.items():
        text = text.replace("[updates]\n", f"[updates]\n{key} = {value}\n")
    return (
        f"{text}\n[spool]\nflush_interval_s = {device.interval_s}\n{spool}\n"
        f'[[sensors]]\nkind = "modbus"\nname = "meter"\nhost = "127.0.0.1"\nport = {port}\n'
        f"unit = {post.unit}\ninterval_s = {device.interval_s}\ntimeout_s = 1.0\n{stuck}"
        f"{_REGISTERS}"
    )


_REGISTERS: Final = "".join(
    f'\n[[sensors.registers]]\nmetric = "{metric}"\nunit = "{unit}"\naddress = {address}\ntype = "{kind}"\n'
    for metric, unit, address, kind in (
        ("pressure", "m", 0, "float32"),
        ("flow", "L/s", 2, "float32"),
        ("served", "1", 4, "uint32"),
    )
)


def _last_renamed(trace: Path) -> str:
    """The name of the file that the last rename would have replaced."""
    found = re.findall(r'rename\("[^"]*", "([^"]*)"\)', trace.read_text(errors="replace"))
    return Path(found[-1]).name if found else ""


def free_port() -> int:
    """A TCP port on the loopback interface that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _children(pid: int | None) -> list[int]:
    try:
        return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))
    except FileNotFoundError:
        return []


def _command_line(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    except FileNotFoundError:
        return []
