"""What every source of the console is: the one interface between the screens and the world.

A screen asks in a task of its own and never waits; a source never touches a screen. What a source
cannot do it leaves out of ``abilities``, and the screens say so.
"""

from enum import StrEnum
from typing import Protocol

from fleet_console.sources.views import (
    Device,
    DevicePage,
    Event,
    Finding,
    Overview,
    Proposal,
    ProposalPage,
    Reading,
    Rollout,
    RolloutPage,
    Seen,
    Written,
)


class Ability(StrEnum):
    """What a source can be asked for beside one device's page and its events."""

    FLEET = "fleet"
    ON_SITE = "on_site"


class Step(StrEnum):
    """What can be done with a rollout."""

    PAUSE = "pause"
    RESUME = "resume"
    ABORT = "abort"


class Source(Protocol):
    """One server, or one agent. Every method raises ConsoleError, Unreachable where nobody answers."""

    @property
    def name(self) -> str:
        """What it is, for the title bar: an address, or a socket."""

    @property
    def abilities(self) -> frozenset[Ability]:
        """What it can do."""

    async def close(self) -> None:
        """Let go of connections."""

    async def device(self, device: str) -> Seen[DevicePage]:
        """One device's page; an agent knows only its own and ignores the name."""

    async def events(self) -> Seen[tuple[Event, ...]]:
        """The newest events, the newest first."""


class FleetSource(Source, Protocol):
    """A server: many devices, and what moves them."""

    async def overview(self) -> Seen[Overview]:
        """The fleet at a glance."""

    async def devices(self) -> Seen[tuple[Device, ...]]:
        """Every device, by name."""

    async def rollouts(self) -> Seen[tuple[Rollout, ...]]:
        """Every rollout, the newest first; Absent where the server has none."""

    async def rollout(self, rollout: str) -> Seen[RolloutPage]:
        """One rollout with its waves."""

    async def steer(self, rollout: str, step: Step) -> str:
        """Pause or abort, or ask to resume; what has become of it, empty where it was done."""

    async def proposals(self) -> Seen[tuple[Proposal, ...]]:
        """What people have asked for, the newest first."""

    async def proposal(self, proposal: str) -> Seen[ProposalPage]:
        """One proposal with all that an approver has to see."""

    async def decide(self, proposal: str, verdict: str, said: str) -> None:
        """``approve`` what has the digest ``said``, or ``reject`` it for the reason ``said``."""


class OnSiteSource(Source, Protocol):
    """An agent, asked at its own socket."""

    async def doctor(self) -> Seen[tuple[Finding, ...]]:
        """What the agent's own checks find."""

    async def read_sensor(self, sensor: str) -> Seen[tuple[Reading, ...]]:
        """Read a sensor now."""

    async def apply_update(self, path: str) -> Seen[None]:
        """Apply the update in a file on the device."""

    async def write_bundle(self, path: str) -> Seen[Written]:
        """Write a support bundle to a file on the device."""
