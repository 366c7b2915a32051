"""Tells when agent or board are outside the firmware profile.

Stops nothing: what ends a process that takes too much is the service manager's limit, and what is
too much is written in the profile.
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from edge_agent.allowance import EXCEEDED, MIB, UNKNOWN, Allowance, Excess
from edge_agent.service.board import differences, look, used_disk_bytes, used_memory_mib
from edge_agent.service.health import HealthBoard
from firmware_profiles.schema import Limits
from fleet_protocol.texts import _

INTERVAL_S: Final = 60.0
"""Between two looks; memory and artifacts grow slowly."""

ARTIFACTS: Final = "updates"
"""The folder of delivered artifacts within the data folder."""


class LimitWatch:
    """Looks at what agent and board have, against the profile, for as long as the agent runs."""

    def __init__(
        self, allowance: Allowance, data: Path, health: HealthBoard, interval_s: float = INTERVAL_S
    ) -> None:
        self._allowance = allowance
        self._data = data
        self._health = health
        self._interval_s = interval_s
        self._told: set[str] = set()

    async def run(self) -> None:
        """Tell what is outside the profile now, then again whenever that changes."""
        if self._allowance.unknown:
            self._health.raise_code(UNKNOWN, self._allowance.unknown)
        while True:
            # Reading of every process takes a small board tens of milliseconds.
            found = await asyncio.to_thread(self._found)
            self._tell([*self._allowance.excesses, *found])
            await asyncio.sleep(self._interval_s)

    def _found(self) -> list[Excess]:
        profile = self._allowance.profile
        artifacts_mib = used_disk_bytes(self._data / ARTIFACTS) // MIB
        return [
            *differences(look(), profile),
            *overuse(used_memory_mib(), artifacts_mib, profile.limits),
        ]

    def _tell(self, excesses: list[Excess]) -> None:
        for excess in excesses:
            self._health.raise_code(EXCEEDED, excess.text, subject=excess.subject)
        subjects = {excess.subject for excess in excesses}
        for over in self._told - subjects:
            self._health.clear(EXCEEDED, subject=over)
        self._told = subjects


def overuse(memory_mib: int, artifacts_mib: int, limits: Limits) -> Iterator[Excess]:
    """What the agent takes beyond ``limits``. Pure."""
    if memory_mib > limits.memory_mib.value:
        text = _("agent and workers take {used} MiB, the profile allows {most} MiB").format(
            used=memory_mib, most=limits.memory_mib.value
        )
        yield Excess("memory", text, _("Give this board fewer or smaller models."))
    if artifacts_mib > limits.artifacts_mib.value:
        text = _("they take {used} MiB on disk, the profile allows {most} MiB").format(
            used=artifacts_mib, most=limits.artifacts_mib.value
        )
        yield Excess("artifacts", text, _("Give this board fewer or smaller models."))
