"""``fleet-server serve`` as a real process, and what a test asks of it."""

import contextlib
import json
import os
import signal
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import psutil

from fleet_protocol.messages import Ack, decode, encode
from fleet_protocol.topics import Channel, topic
from tests.support.batches import base, telemetry
from tests.support.fleet_broker import Identity, connected
from tests.support.people import add_person_to
from tests.support.waiting import wait_until

START_S = 60.0
STOP_S = 15.0


class ServerProcess:
    """One ``fleet-server serve`` on one data folder; started, killed and started again."""

    def __init__(self, data: Path, *options: str) -> None:
        self.data = data
        self.options = options
        self.process: subprocess.Popen[str] | None = None
        self._seen: set[int] = set()

    def launch(self) -> subprocess.Popen[str]:
        """Start it without waiting for anything."""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fleet_server", "serve", "--data", str(self.data), *self.options],
            stderr=subprocess.PIPE,
            text=True,
        )
        return self.process

    def start(self) -> None:
        """Start it and wait until it says that it is ready."""
        process = self.launch()
        wait_until(
            lambda: (self.data / "endpoints.json").exists() or process.poll() is not None, "ready", START_S
        )
        assert process.poll() is None, self.complaint()
        self.children()

    def complaint(self) -> str:
        """What it said on stderr until it ended."""
        assert self.process is not None
        return self.process.communicate(timeout=START_S)[1]

    def children(self) -> dict[str, psutil.Process]:
        """The running child of each name."""
        assert self.process is not None
        found = {}
        for child in psutil.Process(self.process.pid).children():
            with contextlib.suppress(psutil.NoSuchProcess):
                command = child.cmdline()
                if len(command) > 3 and child.status() != psutil.STATUS_ZOMBIE:
                    found["mosquitto" if "mosquitto" in command[0] else command[3]] = child
                    self._seen.add(child.pid)
                elif command and "mosquitto" in command[0]:
                    found["mosquitto"] = child
                    self._seen.add(child.pid)
        return found

    def survivors(self) -> list[int]:
        """Children ever seen that still run."""
        return [pid for pid in self._seen if psutil.pid_exists(pid) and _runs(pid)]

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it by its own process id; the exit code."""
        assert self.process is not None
        self.children()
        self.process.send_signal(number)
        code = self.process.wait(STOP_S)
        self.process.stderr.close()  # type: ignore[union-attr]
        return code

    def end(self) -> None:
        """Leave nothing behind, whatever the test left."""
        if self.process is not None and self.process.poll() is None:
            self.stop()
        for pid in self.survivors():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    @property
    def endpoints(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.data / "endpoints.json").read_text())
        return content

    def client(self) -> httpx.Client:
        """The API, with the token of the data folder."""
        endpoints = self.endpoints
        token = Path(endpoints["token_file"]).read_text().strip()
        return httpx.Client(
            base_url=endpoints["api_url"],
            headers={"Authorization": f"Bearer {token}"},
            timeout=30,
            trust_env=False,
            verify=ssl.create_default_context(cafile=endpoints["api_ca"]),
        )

    def get(self, path: str, **parameters: str | int) -> Any:
        with self.client() as client:
            return client.get(path, params=parameters).raise_for_status().json()

    def codes(self) -> set[str]:
        """The health codes that are raised for the server."""
        return {item["code"] for item in self.get("/v1/health")["items"]}


def fleet(
    *arguments: str | Path, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """One command of the ``fleet`` program."""
    return subprocess.run(
        [sys.executable, "-m", "fleet_console", *map(str, arguments)],
        stdin=subprocess.DEVNULL,  # nobody is there to be asked
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        # Where whoever runs the tests is logged in is nobody's business here.
        env=os.environ | {"XDG_CONFIG_HOME": "/nonexistent"} | (environment or {}),
    )


def agreed(data: Path, *arguments: str | Path) -> str:
    """What a command says that asks for a change, which another person has then approved."""
    done = fleet(*arguments, "--reason", "a test", "--data", data)
    assert done.returncode == 0, done.stderr
    approve_waiting(data)
    return done.stdout


def approve_waiting(data: Path) -> list[str]:
    """Have somebody else approve whatever waits; the proposals' ids."""
    file = data / "approver.token"
    if not file.exists():
        file.write_text(add_person_to(data, "anna"))
    endpoints = json.loads((data / "endpoints.json").read_text())
    where = ("--server", endpoints["api_url"], "--token-file", file, "--ca", endpoints["api_ca"])
    waiting = json.loads(fleet("proposal", "list", "--waiting", "--json", *where).stdout)
    for each in waiting:
        done = fleet("proposal", "approve", each["id"], "--yes", *where)
        assert done.returncode == 0, done.stderr
    return [each["id"] for each in waiting]


def add(server: ServerProcess, name: str, folder: Path) -> Identity:
    """A device added by the ``fleet`` command, with what it wrote into ``folder``."""
    done = fleet("device", "add", name, "--out", folder, "--data", server.data)
    assert done.returncode == 0, done.stderr
    return Identity(name, folder / "cert.pem", folder / "key.pem", folder / "ca.pem")


def batch(number: int) -> bytes:
    """One reading of now, whose value tells its batch."""
    return encode(telemetry(number, at=base(time.time_ns() // 1_000_000), readings=1))


def deliver(server: ServerProcess, identity: Identity, payload: bytes) -> Ack:
    """Publish one batch and wait for the application's acknowledgement."""
    with connected(server.endpoints["mqtt_port"], identity) as device:
        device.subscribe(topic(identity.name, Channel.ACK))
        device.publish(topic(identity.name, Channel.TELEMETRY), payload)
        ack = decode(Channel.ACK, device.received.get(timeout=20).payload)
    assert isinstance(ack, Ack)
    return ack


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
