"""Agents as real processes, with a configuration written for them."""

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

from tests.support.authority import Credentials
from tests.support.waiting import wait_until

STOP_S = 10.0


class AgentProcess:
    """One ``edge-agent run``; started, killed and started again on the same data folder."""

    def __init__(self, folder: Path, credentials: Credentials, port: int, sections: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.device = credentials.name
        self.data = folder / "data"
        self.config = folder / "agent.toml"
        self._log = folder / "agent.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.config.write_text(
            f"""\
device = "{credentials.name}"
data = "data"
profile = "simulated"

[broker]
host = "127.0.0.1"
port = {port}
ca = "{credentials.ca}"
certificate = "{credentials.certificate}"
key = "{credentials.key}"
reconnect_cap_s = 0.2

{sections}
"""
        )

    def start(self, **environment: str) -> None:
        """Start it, with ``environment`` beside the test's own."""
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "edge_agent", "run", "--config", str(self.config)],
                stderr=log,
                env=os.environ | environment,
            )

    def kill(self) -> None:
        """SIGKILL: nothing is closed."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(STOP_S)

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(STOP_S)

    def waiting(self) -> int:
        """How many batches lie in its spool."""
        with contextlib.closing(sqlite3.connect(f"file:{self.data}/spool.db?mode=ro", uri=True)) as spool:
            return int(spool.execute("SELECT count(*) FROM batch").fetchone()[0])

    def delivered(self) -> None:
        """Wait until everything that it ever took is acknowledged and gone."""
        wait_until(lambda: self.waiting() == 0, f"nothing waits on {self.device}", 60)

    @property
    def log(self) -> str:
        return self._log.read_text() if self._log.exists() else ""


def clock_at(moment: str) -> dict[str, str]:
    """The environment of a process whose wall clock begins at ``moment``; durations stay true."""
    (library,) = Path("/usr/lib").glob("*/faketime/libfaketime.so.1")
    return {
        "LD_PRELOAD": str(library),
        "FAKETIME": f"@{moment}",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_NO_CACHE": "1",
    }


class EnrolledAgent(AgentProcess):
    """An agent on the configuration that ``fleet device add`` wrote into ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.config = folder / "agent.toml"
        self.data = folder / "data"
        self.device = folder.name
        self._log = folder / "agent.log"
        self.process: subprocess.Popen[bytes] | None = None

    def end(self) -> None:
        """Leave nothing behind."""
        if self.process is not None and self.process.poll() is None:
            self.kill()


def replay_section(path: Path, *, interval_s: float = 0.01, repeat: bool = False) -> str:
    """A replayed recording with one metric, committed often."""
    return f"""\
[spool]
flush_interval_s = 0.05

[[sensors]]
kind = "replay"
name = "recording"
path = "{path}"
interval_s = {interval_s}
repeat = {str(repeat).lower()}
[sensors.columns]
flow = "flow"
[sensors.units]
flow = "l/s"
"""


def recording(path: Path, rows: int) -> Path:
    """A recording whose values are 0, 1, 2, …"""
    path.write_text("flow\n" + "".join(f"{value}\n" for value in range(rows)))
    return path
