"""Looks at the board that the agent runs on, and at what the agent takes of it. Linux's own files alone.

What is found is compared with what the firmware profile promises; the comparing is pure.
"""

import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge_agent.allowance import MIB, Excess
from firmware_profiles.schema import Profile, Rtc
from fleet_protocol.texts import _

_LEAST_MEMORY: Final = 0.75
"""Of what is installed, this must be Linux's at least: firmware, graphics and kernel keep the rest."""

_PROC: Final = Path("/proc")
_KIB: Final = 1024


@dataclass(frozen=True, slots=True)
class Board:
    """What was found. Memory in MiB: what Linux has at all, and what it could still give."""

    machine: str
    cores: int
    memory_mib: int
    available_mib: int
    has_rtc: bool
    has_watchdog: bool


def look() -> Board:
    """This board, now."""
    memory = _memory_mib()
    return Board(
        machine=platform.machine(),
        cores=os.cpu_count() or 1,
        memory_mib=memory.get("MemTotal", 0),
        available_mib=memory.get("MemAvailable", 0),
        has_rtc=any(Path("/sys/class/rtc").glob("rtc*")),
        has_watchdog=Path("/dev/watchdog").exists(),
    )


def differences(board: Board, profile: Profile) -> list[Excess]:
    """What ``board`` lacks of what ``profile`` promises."""
    return [
        *_machine_differences(board, profile),
        *_memory_differences(board, profile),
        *_clock_differences(board, profile),
    ]


def _machine_differences(board: Board, profile: Profile) -> Iterator[Excess]:
    choose = _("Name this board's own profile in the configuration.")
    machines, cores = profile.cpu.machines, profile.cpu.cores.value
    if machines and board.machine not in machines:
        text = _("{found}, the profile is for {wanted}").format(
            found=board.machine, wanted=_(" or ").join(machines)
        )
        yield Excess("machine", text, choose)
    if board.cores < cores:
        text = _("{found}, the profile promises {wanted}").format(found=board.cores, wanted=cores)
        yield Excess("cores", text, choose)


def _memory_differences(board: Board, profile: Profile) -> Iterator[Excess]:
    wanted = profile.memory.installed_mib.value
    if board.memory_mib < wanted * _LEAST_MEMORY:
        text = _("{found} MiB, the profile promises {wanted} MiB installed").format(
            found=board.memory_mib, wanted=wanted
        )
        yield Excess(
            "board memory", text, _("Name this board's own profile, or give less of it to the graphics.")
        )


def _clock_differences(board: Board, profile: Profile) -> Iterator[Excess]:
    if profile.rtc is Rtc.BATTERY and not board.has_rtc:
        yield Excess(
            "hardware clock",
            _("none found, the profile promises one with a battery"),
            _("Load the clock's driver, or name a profile without one ('generic' for a virtual machine)."),
        )
    if profile.watchdog is not None and not board.has_watchdog:
        yield Excess(
            "watchdog",
            _("none found, the profile promises one"),
            _("Load the driver {driver}.").format(driver=profile.watchdog.driver),
        )


def used_memory_mib() -> int:
    """MiB that this process and its descendants take: proportional, so that shared pages count once."""
    family = [os.getpid()]
    parents = dict(_parents())
    for pid in family:  # grows while it is walked: children, their children, …
        family += [child for child, parent in parents.items() if parent == pid]
    return sum(_proportional_kib(pid) for pid in family) // _KIB


def used_by_mib(pid: int) -> int:
    """MiB that one process takes, proportional; 0 where it is gone."""
    return _proportional_kib(pid) // _KIB


def used_disk_bytes(folder: Path) -> int:
    """Bytes of the files below ``folder``; 0 where there is none."""
    total = 0
    for place, _folders, files in os.walk(folder):
        for name in files:
            try:
                total += (Path(place) / name).lstat().st_size
            except OSError:  # removed meanwhile
                continue
    return total


def _memory_mib() -> dict[str, int]:
    lines = (_PROC / "meminfo").read_text(encoding="ascii").splitlines()
    return {line.split(":")[0]: int(line.split()[1]) * _KIB // MIB for line in lines}


def _parents() -> Iterator[tuple[int, int]]:
    for place in _PROC.glob("[0-9]*"):
        try:
            status = (place / "stat").read_text(encoding="utf-8", errors="replace")
        except OSError:  # ended meanwhile
            continue
        # The name, in parentheses, may hold anything; behind it come state and parent.
        yield int(place.name), int(status.rpartition(")")[2].split()[1])


def _proportional_kib(pid: int) -> int:
    try:
        content = (_PROC / str(pid) / "smaps_rollup").read_text(encoding="ascii")
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in content.splitlines() if line.startswith("Pss:")), 0)
