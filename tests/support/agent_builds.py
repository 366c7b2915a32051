"""Builds of the agent, good and bad, made of this checkout; launchers as real processes."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil

from edge_agent.launcher import record
from edge_agent.launcher.record import Record
from fleet_protocol.agent_build import Health
from fleet_protocol.targets import Kind
from fleet_signing import agent_builds
from fleet_signing.artifacts import Artifact, of_bytes
from tests.support.agents import AgentProcess
from use_cases.water_network.demo.agent_builds import Changes, wheels


def artifact(
    folder: Path,
    release: int,
    changes: Changes | None = None,
    *,
    least_s: float = 0.5,
    deadline_s: float = 60.0,
) -> Artifact:
    """Version ``0.1.RELEASE`` of this checkout's agent, with ``changes``."""
    made = wheels(folder, f"0.1.{release}", changes)
    content = agent_builds.pack(
        {file.name: file.read_bytes() for file in made.iterdir()},
        release,
        Health(least_s=least_s, deadline_s=deadline_s),
    )
    return of_bytes(Kind.AGENT, content)


class LauncherProcess:
    """One launcher on the configuration of ``agent``, killed and started again like a service."""

    def __init__(self, agent: AgentProcess) -> None:
        self.agent = agent
        self.slots = agent.data / record.FOLDER
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.agent._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-m", "edge_agent.launcher", "--config", str(self.agent.config)],
                stderr=log,
            )

    def kill(self) -> None:
        """SIGKILL: the agent goes with it."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(20)

    def stop(self) -> int:
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(30)

    @property
    def child(self) -> psutil.Process | None:
        """The agent that runs now."""
        assert self.process is not None
        found = psutil.Process(self.process.pid).children()
        return found[0] if found else None

    def kill_agent(self) -> None:
        if (child := self.child) is not None:
            child.kill()

    @property
    def record(self) -> Record:
        return record.read(self.slots)

    def journal(self) -> list[dict[str, Any]]:
        """The journal's entries of the agent's own updates, read from the disk."""
        try:
            content = json.loads((self.agent.data / "updates" / "journal.json").read_text())
        except FileNotFoundError:
            return []
        return [each for each in content["entries"] if each["target"]["description"]["kind"] == "agent"]

    @property
    def state(self) -> str:
        """The state of the agent's own update."""
        entries = self.journal()
        return str(entries[-1]["state"]) if entries else ""

    def end(self) -> None:
        """Leave nothing behind."""
        if self.process is not None and self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()
