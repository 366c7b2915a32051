"""What installs an artifact that no model runs: the executor asks it for one step after the other."""

from dataclasses import dataclass
from typing import Final, Protocol

from edge_agent.updates.records import Entry
from fleet_protocol.update_states import UpdateState

SOON_S: Final = 0.2
"""Seconds: an act that takes longer goes on beside what else the executor does."""


@dataclass(frozen=True, slots=True)
class Step:
    """What came of an act.

    ``state`` is the next state, None as long as the act is under way. ``detail`` says where it stands, or
    why it failed. ``remember``: it failed by a fault of its own, and is not to be tried here again.
    ``spent_s`` is how long its probation has lasted. ``lived``: another restart would not be the first of
    a row.
    """

    state: UpdateState | None
    detail: str = ""
    remember: bool = True
    spent_s: float = 0.0
    lived: bool = False


class Installer(Protocol):
    """Carries artifacts of one kind from ``testing`` to their end. Every act can be begun again."""

    async def step(self, entry: Entry) -> Step:
        """Go on with the act of the entry's state; returns soon, also where the act takes hours."""

    async def close(self) -> None:
        """End what is under way; it is begun again with the next agent."""
