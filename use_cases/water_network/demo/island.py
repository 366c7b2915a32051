"""A gateway without a network: it reads, runs under its launcher, and is updated from a stick alone."""

import json
import re
import subprocess
import sys
from collections.abc import Container
from pathlib import Path
from typing import Any, Final

from fleet_protocol.texts import _
from hil.installation import free_port
from hil.processes import Child
from use_cases.water_network.demo.operating import Operator, OperatorError

DEVICE: Final = "gw-away"
ROWS: Final = 500_000
INTERVAL_S: Final = 0.05
"""A reading comes so often: the recording lasts for hours."""

_APPLY_S: Final = 600.0
_TRIED: Final = frozenset({0, 7})
"""How 'edge-agent update from' ends where the update was tried: it came to stay, or was left again."""

_AGENT: Final = (sys.executable, "-m", "edge_agent")


class Island:
    """The gateway in ``folder``, where somebody on site works with ``edge-agent`` alone."""

    def __init__(self, operator: Operator, folder: Path) -> None:
        """Enroll it by hand, and point it to addresses where nobody answers.

        Raises:
            OperatorError: the server did not take it.
        """
        self.folder: Final = folder / DEVICE
        self._config: Final = self.folder / "agent.toml"
        out = str(self.folder)
        operator.fleet("device", "add", DEVICE, "--profile", "simulated", "--site", "main", "--out", out)
        self._config.write_text(_cut_off(self._config.read_text()) + _sensor(self.folder))
        self._agent: Final = Child(
            DEVICE, (*_AGENT, "launch", "--config", str(self._config)), folder / "logs" / f"{DEVICE}.log"
        )

    def start(self) -> None:
        """Start its launcher, which starts its agent."""
        self._agent.start()

    def stop(self) -> None:
        """Stop both."""
        self._agent.stop()

    def has_read(self) -> bool:
        """Whether its agent has begun to work."""
        return (self.folder / "data" / "agent.sock").exists()

    def apply(self, bundle: Path) -> None:
        """Put the stick in, and wait until what it brings is on probation or over.

        Raises:
            OperatorError: it could not be tried at all.
        """
        self._run("update", "from", str(bundle), fine=_TRIED)

    def standing(self, version: str) -> tuple[str, str]:
        """State and detail of the agent's update to ``version``; empty where there is none."""
        for each in self._status()["updates"]:
            if each["version"] == version:
                return each["state"], each["detail"]
        return "", ""

    def write_receipt(self, out: Path) -> None:
        """Write the signed receipt of the last stick.

        Raises:
            OperatorError: it cannot be written.
        """
        self._run("update", "receipt", "--out", str(out))

    def _status(self) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(self._run("update", "status", "--json"))
        return told

    def _run(self, *arguments: str, fine: Container[int] = frozenset({0})) -> str:
        command = (*_AGENT, *arguments, "--config", str(self._config))
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_APPLY_S)
        if done.returncode not in fine:
            raise OperatorError(
                _("edge-agent {command} failed: {reason}").format(
                    command=" ".join(arguments[:2]), reason=done.stderr.strip() or done.stdout.strip()
                )
            )
        return done.stdout


def _cut_off(skeleton: str) -> str:
    """The enrolled device's configuration with addresses where nobody listens."""
    nowhere = free_port()
    skeleton = re.sub(r"(?m)^port = \d+$", f"port = {nowhere}", skeleton)
    return re.sub(
        r'(?m)^((?:server_)?url) = "https://[^/"]+', rf'\1 = "https://127.0.0.1:{nowhere}', skeleton
    )


def _sensor(folder: Path) -> str:
    """A meter's recording, played again."""
    recording = folder / "recording.csv"
    rows = (str(20 + number % 7) for number in range(ROWS))
    recording.write_text("flow\n" + "\n".join(rows) + "\n")
    return f"""
[[sensors]]
kind = "replay"
name = "meter"
path = "{recording}"
interval_s = {INTERVAL_S}
[sensors.columns]
flow = "flow"
"""
