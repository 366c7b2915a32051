"""What a run of the demonstration saw, kept for the table and the page."""

from dataclasses import dataclass, field
from typing import Any

from hil.account import Account
from use_cases.water_network.demo import plan

DAY_S = 86_400 / plan.TIME_FACTOR
"""Seconds that a day of the plant takes."""


@dataclass(frozen=True, slots=True)
class Sample:
    """How many devices of a rollout were where at one moment."""

    time_ms: int
    counts: dict[str, int]


@dataclass(slots=True)
class Rollout:
    """One rollout as it went; ``failures`` is why each device failed."""

    id: str
    what: str
    """Kind and name."""
    release: int
    version: str
    group: str
    reason: str
    asked_by: str = ""
    approved_by: tuple[str, ...] = ()
    state: str = ""
    detail: str = ""
    samples: list[Sample] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    done: tuple[str, ...] = ()
    untouched: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Refused:
    """An update that a device refused: what, the class, and the device's own words."""

    time_ms: int
    device: str
    what: str
    refusal: str
    detail: str


@dataclass(frozen=True, slots=True)
class Shadow:
    """A model beside the one that acts: windows that both answered, equal labels, median microseconds."""

    device: str
    release: int
    windows: int
    agreement: float
    latency_us: float
    acting_latency_us: float


@dataclass(frozen=True, slots=True)
class Carried:
    """What came of the agent's software on a stick, by the receipt that was carried back."""

    device: str
    version: str
    state: str
    detail: str


@dataclass(slots=True)
class Findings:
    """Everything that was seen; times in ms since 1970."""

    started_ms: int
    counts: dict[str, int] = field(default_factory=dict)
    latency: dict[str, float] | None = None
    latencies_ms: list[int] = field(default_factory=list)
    latency_us: dict[str, float] = field(default_factory=dict)
    memory_mib: dict[str, float] = field(default_factory=dict)
    kills_ms: dict[str, list[int]] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    accounts: list[Account] = field(default_factory=list)
    leak_event: dict[str, Any] = field(default_factory=dict)
    escalations: list[dict[str, Any]] = field(default_factory=list)
    superseded: dict[str, Any] = field(default_factory=dict)
    """The first inference of the center's that took the place of a gateway's own."""
    rollouts: list[Rollout] = field(default_factory=list)
    refusals: list[Refused] = field(default_factory=list)
    shadow: Shadow | None = None
    carried: list[Carried] = field(default_factory=list)
    pressures: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    scores: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    ended_ms: int = 0

    @property
    def leak_opened_ms(self) -> int:
        """When the leak opened."""
        return self.started_ms + int(plan.WARM_UP_DAYS * DAY_S * 1000)

    def day(self, time_ms: float) -> float:
        """Days of plant time since the start."""
        return (time_ms - self.started_ms) / 1000 / DAY_S

    def note_kill(self, name: str, time_ms: int) -> None:
        """Somebody was killed."""
        self.kills_ms.setdefault(name, []).append(time_ms)
