"""SIGKILL for agents and for parts of the server, each noted with its time."""

import os
import signal
import time
from pathlib import Path

from fleet_protocol.texts import _
from hil.stopping import pause
from use_cases.water_network.demo.city import City
from use_cases.water_network.demo.findings import Findings
from use_cases.water_network.demo.stage import POLL_S, WITHIN_S, CheckFailedError, Say, now_ms


class Killer:
    """Kills in one city."""

    def __init__(self, city: City, findings: Findings, say: Say) -> None:
        self._city = city
        self._findings = findings
        self._say = say

    def __call__(self, name: str) -> None:
        """Kill the agent or the part of the server called ``name``; a part has to come again.

        Raises:
            CheckFailedError: the server did not start its part again.
        """
        self._say(_("Killing {name} with SIGKILL").format(name=name))
        if name in self._city.agents:
            self._city.agents[name].kill()
            self._findings.note_kill(name, now_ms())
            return
        before = self._pid_of(name)
        os.kill(before, signal.SIGKILL)
        self._findings.note_kill(name, now_ms())
        deadline = time.monotonic() + WITHIN_S
        while self._pid_of(name) in {0, before}:
            if time.monotonic() > deadline:
                raise CheckFailedError(_("{name} was not started again").format(name=name))
            self._city.mend()
            pause(POLL_S)

    def _pid_of(self, part: str) -> int:
        """Process id of the server's child whose command line names ``part``; 0 where there is none."""
        server = self._city.server.pid
        children = Path(f"/proc/{server}/task/{server}/children").read_text().split()
        return next((child for child in map(int, children) if _runs(child, part)), 0)


def _runs(process: int, part: str) -> bool:
    try:
        words = Path(f"/proc/{process}/cmdline").read_bytes().decode().split("\0")
    except FileNotFoundError:
        return False
    return part in words or words[0].endswith(f"/{part}")
