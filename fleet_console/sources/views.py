"""What the screens show, whichever source it came from: the shapes that answers are read into.

They follow the API's JSON. What an answer has beyond them is ignored, and what only a newer server
says has a default, so that console and server need not be of one version. Times are ms since 1970 by
the source's clock.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import msgspec

from fleet_console.errors import ConsoleError
from fleet_protocol.health import CATALOG
from fleet_protocol.messages import Quality, Severity, ShadowReport
from fleet_protocol.texts import _

T = TypeVar("T")

STATES: Final = ("online", "offline", "silent", "new")
"""Whether a device is there, in the order in which they are counted."""


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """A raised code with its words."""

    code: str
    severity: str
    title: str
    meaning: str
    next_step: str
    since_ms: int
    detail: str = ""
    explained_by: tuple[str, ...] = ()

    @property
    def level(self) -> Severity:
        """How urgent it is; a word that is not known here is taken for a warning."""
        return Severity.__members__.get(self.severity.upper(), Severity.WARNING)


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """A device in a list."""

    id: str
    site: str | None
    profile: str
    state: str
    heard_ms: int | None
    health: tuple[Health, ...] = ()

    @property
    def worst(self) -> Health | None:
        """The most severe code that is raised; the first of several."""
        return max(self.health, key=lambda each: each.level, default=None)


class Value(msgspec.Struct, frozen=True, kw_only=True):
    """The newest reading of one metric, with the ones before it, oldest first; NaN where one was bad."""

    metric: str
    unit: str
    value: float | None
    quality: Quality
    time_ms: int
    history: tuple[float, ...] = ()


class Conclusion(msgspec.Struct, frozen=True, kw_only=True):
    """The newest answer of one model."""

    model: str
    version: str
    label: str
    score: float
    confidence: float
    latency_us: int
    time_ms: int
    uncertain: bool = False


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """A model as the device runs it."""

    name: str
    version: str
    release: int
    runtime: str
    isolation: str = ""
    policy: str = ""


class Sensor(msgspec.Struct, frozen=True, kw_only=True):
    """A sensor as the device runs it."""

    name: str
    kind: str
    metrics: tuple[str, ...] = ()


class Update(msgspec.Struct, frozen=True, kw_only=True):
    """Where the last update of one artifact stands on the device."""

    kind: str
    name: str
    release: int
    version: str
    state: str
    since_wall_ms: int
    mode: str = "act"
    installed: int = 0
    done: int = 0
    size: int = 0
    refusal: str = ""
    detail: str = ""


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """An artifact that the device shall have."""

    kind: str
    name: str
    release: int = 0
    version: str = ""
    mode: str = "act"


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """What a device shall have of one name, what it has, by whose word, and why they differ."""

    kind: str
    name: str
    desired_release: int = 0
    reported_release: int = 0
    reported_by: str = ""
    attested_ms: int | None = None
    why: str = ""
    text: str = ""
    mode: str = "act"


class Spool(msgspec.Struct, frozen=True, kw_only=True):
    """What waits on the device."""

    batches: int
    bytes: int
    dropped_records: int


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """The agent's session with the broker, as the agent itself sees it."""

    up: bool
    broker: str
    up_ms: int | None = None
    acknowledged_age_ms: int | None = None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What the device says of itself."""

    agent: str
    clock: int = 0
    sensors: tuple[Sensor, ...] = ()
    models: tuple[Model, ...] = ()
    spool: Spool = Spool(batches=0, bytes=0, dropped_records=0)
    updates: tuple[Update, ...] = ()
    shadows: tuple[ShadowReport, ...] = ()


class DevicePage(msgspec.Struct, frozen=True, kw_only=True):
    """Everything known of one device.

    ``desired`` is None where the source does not know what the device shall have; ``link`` where only
    the device itself could say.
    """

    device: Device
    report: Report | None = None
    reported_ms: int | None = None
    desired: tuple[Wanted, ...] | None = None
    versions: tuple[Version, ...] = ()
    values: tuple[Value, ...] = ()
    conclusions: tuple[Conclusion, ...] = ()
    link: Link | None = None


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """What a policy, or an agent, raised."""

    device: str
    time_ms: int
    name: str
    severity: int
    text: str
    source: str = ""
    figures: dict[str, float] = {}

    @property
    def level(self) -> Severity:
        """How urgent it is."""
        return Severity(min(max(self.severity, Severity.INFO), Severity.CRITICAL))


class Flow(msgspec.Struct, frozen=True, kw_only=True):
    """What comes in: rates over the last minute or as much of it as was seen; None until they are known."""

    readings: int
    events: int
    lost_records: int
    refused: int
    readings_a_second: float | None = None
    events_a_minute: float | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None
    history: tuple[float, ...] = ()


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """A device of a rollout; ``update`` is what it reports itself, ``done`` of ``size`` bytes.

    ``is_holding`` says that its wave waits for it, and that it is not there.
    """

    id: str
    state: str = ""
    presence: str = ""
    is_holding: bool = False
    update: str = ""
    done: int = 0
    size: int = 0
    refusal: str = ""
    detail: str = ""
    since_ms: int | None = None


class Wave(msgspec.Struct, frozen=True, kw_only=True):
    """Devices that move together; ``next_ms`` is when the wave after it may open."""

    number: int
    state: str = ""
    started_ms: int | None = None
    ended_ms: int | None = None
    next_ms: int | None = None
    devices: tuple[Member, ...] = ()


class Rollout(msgspec.Struct, frozen=True, kw_only=True):
    """A move of a group to an artifact; ``counts`` are devices by where they stand."""

    id: str
    state: str
    detail: str = ""
    kind: str = ""
    name: str = ""
    release: int = 0
    version: str = ""
    group: str = ""
    reason: str = ""
    asked_by: str = ""
    approved_by: tuple[str, ...] = ()
    max_failures: int = 0
    created_ms: int | None = None
    counts: dict[str, int] = {}

    @property
    def target(self) -> str:
        """What it moves to."""
        return f"{self.name} {self.version or self.release}"

    @property
    def share(self) -> float:
        """How many of its devices have come to an end, 0 to 1."""
        total = sum(self.counts.values())
        settled = total - self.counts.get("waiting", 0) - self.counts.get("assigned", 0)
        return settled / total if total else 0.0


class RolloutPage(msgspec.Struct, frozen=True, kw_only=True):
    """One rollout with its waves; ``left_out`` are the devices that the artifact does not fit."""

    rollout: Rollout
    waves: tuple[Wave, ...] = ()
    left_out: tuple[Member, ...] = ()


class Proposal(msgspec.Struct, frozen=True, kw_only=True):
    """A change that somebody asks for; it reaches ``devices`` at ``sites``, or everything."""

    id: str
    action: str
    state: str
    proposer: str = ""
    reason: str = ""
    outcome: str = ""
    needed: int = 1
    approvals: int = 0
    devices: int = 0
    sites: tuple[str, ...] = ()
    everywhere: bool = False
    sha256: str = ""
    created_ms: int | None = None


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What is changed of one thing; None for nothing."""

    field: str
    before: Any = None
    after: Any = None


class Reached(msgspec.Struct, frozen=True, kw_only=True):
    """A device that a change reaches: the release that it is to have, and runs."""

    id: str
    site: str = ""
    has: int | None = None
    runs: int | None = None


class Vote(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody has said to a proposal; ``counts`` whether it still does."""

    person: str
    agrees: bool
    reason: str = ""
    counts: bool = True


class BreakGlass(msgspec.Struct, frozen=True, kw_only=True):
    """Who carried it out without approvals, and why."""

    person: str
    reason: str = ""
    acknowledged_by: str = ""


class ProposalPage(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that an approver has to see."""

    proposal: Proposal
    diff: tuple[Change, ...] = ()
    reached: tuple[Reached, ...] = ()
    votes: tuple[Vote, ...] = ()
    break_glass: BreakGlass | None = None


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One check of the doctor."""

    code: str
    ok: bool
    text: str
    next_step: str = ""


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """A value that was read just now."""

    metric: str
    unit: str
    value: float | None
    quality: Quality


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """A support bundle on the device's disk."""

    path: str
    bytes: int
    id: str


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """The fleet at a glance; ``rollouts`` is None where the server has none."""

    devices: tuple[Device, ...]
    server: tuple[Health, ...]
    flow: Flow
    rollouts: tuple[Rollout, ...] | None = None

    def counts(self) -> Mapping[str, int]:
        """Devices by state."""
        return Counter(device.state for device in self.devices)

    def ailing(self) -> list[tuple[Device, Health]]:
        """Every raised code of every device, the most severe and then the oldest first."""
        raised = [(device, health) for device in self.devices for health in device.health]
        return sorted(raised, key=lambda pair: (-pair[1].level, pair[1].since_ms, pair[0].id))


@dataclass(frozen=True, slots=True)
class Seen(Generic[T]):
    """An answer, and the source's clock when it was given: ages are differences on that clock."""

    content: T
    now_ms: int


def read(content: Any, shape: type[T]) -> T:
    """``content`` read into ``shape``.

    Raises:
        ConsoleError: it has another shape.
    """
    try:
        return msgspec.convert(content, shape, strict=False)
    except msgspec.ValidationError as error:
        raise ConsoleError(
            _("the answer is not understood ({reason}); update the older side").format(reason=error)
        ) from error


def health_in_words(reports: Iterable[Mapping[str, Any]]) -> tuple[Health, ...]:
    """What a device reports as raised, with the catalog's words, the most severe first.

    A code that is raised for several subjects is told once, with what is said of each.
    """
    raised: dict[str, list[Mapping[str, Any]]] = {}
    for each in reports:
        raised.setdefault(str(each["code"]), []).append(each)
    found = [_in_words(code, same, raised.keys()) for code, same in raised.items()]
    return tuple(sorted(found, key=lambda each: (-each.level, each.code)))


def _in_words(code: str, reports: Sequence[Mapping[str, Any]], raised: Iterable[str]) -> Health:
    known = CATALOG.get(code)
    return Health(
        code=code,
        severity=known.severity.name.lower() if known else "warning",
        title=known.title if known else code,
        meaning=known.meaning if known else _("This code is not known here."),
        next_step=known.next_step if known else _("Update the console: the device's agent is newer."),
        since_ms=min(int(each["since_wall_ms"]) for each in reports),
        detail="\n".join(str(each["detail"]) for each in reports if each.get("detail")),
        explained_by=tuple(sorted(set(known.depends_on).intersection(raised))) if known else (),
    )


def numbers(values: Iterable[float | None]) -> tuple[float, ...]:
    """A history with NaN for what has no value."""
    return tuple(math.nan if value is None else float(value) for value in values)
