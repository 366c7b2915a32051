"""The machine that figures come from, and how busy it was with other things meanwhile."""

import os
import platform
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

_PACKAGES: Final = (
    "ai-edge-litert",
    "aiomqtt",
    "cel-expr-python",
    "msgspec",
    "numpy",
    "openvino",
    "paho-mqtt",
    "psycopg",
    "securesystemslib",
    "sqlalchemy",
    "tflite-runtime",
    "tuf",
)


@dataclass(frozen=True, slots=True)
class Moment:
    """Clock ticks of all cores up to now."""

    busy: int
    idle: int
    stolen: int
    mine: float
    at: float


def now() -> Moment:
    """This moment, to be handed to :func:`describe` after the work."""
    ticks = [int(each) for each in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    user, nice, system, idle, wait, interrupts, soft, stolen = ticks[:8]
    mine = os.times()
    return Moment(
        user + nice + system + interrupts + soft,
        idle + wait,
        stolen,
        mine.user + mine.system + mine.children_user + mine.children_system,
        time.monotonic(),
    )


def describe(since: Moment) -> dict[str, object]:
    """The machine, its versions, and what share of it this process and others used since ``since``."""
    until = now()
    seconds = max(until.at - since.at, 1e-9)
    cores = os.cpu_count() or 1
    ticks = os.sysconf("SC_CLK_TCK")
    busy = (until.busy - since.busy) / ticks
    mine = until.mine - since.mine
    return {
        "processor": _processor(),
        "cores": cores,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "versions": _versions(),
        "load_average": [round(each, 2) for each in os.getloadavg()],
        "seconds": round(seconds, 1),
        "cores_busy": round(busy / seconds, 2),
        "cores_busy_by_others": round(max(busy - mine, 0.0) / seconds, 2),
        "cores_stolen": round((until.stolen - since.stolen) / ticks / seconds, 2),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith(("model name", "Model")):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
