"""Driving the console: a clock that stands still, sources that always say the same, and waiting."""

import asyncio
import functools
import math
import time
from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Any

from rich.text import Text
from textual.pilot import Pilot
from textual.widgets import Static

from fleet_console.errors import Absent, ConsoleError, Unreachable
from fleet_console.screens.app import Console
from fleet_console.screens.grid import Grid
from fleet_console.sources.base import Ability, Step
from fleet_console.sources.views import (
    Change,
    Conclusion,
    Device,
    DevicePage,
    Event,
    Finding,
    Flow,
    Health,
    Link,
    Member,
    Model,
    Overview,
    Proposal,
    ProposalPage,
    Reached,
    Reading,
    Report,
    Rollout,
    RolloutPage,
    Seen,
    Sensor,
    Spool,
    Update,
    Value,
    Vote,
    Wanted,
    Wave,
    Written,
    health_in_words,
)
from fleet_protocol.messages import Quality
from tests.support.waiting import DEADLINE_S

NOW = 1_800_000_000_000
MINUTE = 60_000
HOUR = 60 * MINUTE


class StillClock:
    """Moves only by hand."""

    def __init__(self) -> None:
        self.at_s = 1000.0

    def monotonic_s(self) -> float:
        return self.at_s

    def wall(self) -> datetime:
        return datetime(2026, 11, 24, 14, 2, 9)  # noqa: DTZ001 - the time of day on the console's wall


def driven(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an asynchronous test in a loop of its own."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


async def until(pilot: Pilot[None], condition: Callable[[], object], what: str) -> None:
    """Let the console work until ``condition`` holds."""
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, f"did not come about: {what}\n{screen(pilot)}"
        await pilot.pause(0.02)


def screen(pilot: Pilot[None]) -> str:
    """What stands on the screen, line by line."""
    return "\n".join(
        "".join(segment.text for segment in line) for line in pilot.app.screen._compositor.render_strips()
    )


def shows(pilot: Pilot[None], *texts: str) -> Callable[[], bool]:
    """Whether all of ``texts`` stand on the screen."""
    return lambda: all(text in screen(pilot) for text in texts)


def asks(pilot: Pilot[None], *texts: str) -> Callable[[], bool]:
    """Whether a question with ``texts`` stands there, and keys go to the button that changes nothing."""

    def stands() -> bool:
        focused = pilot.app.focused
        return shows(pilot, *texts)() and focused is not None and focused.id == "cancel"

    return stands


def rows(pilot: Pilot[None]) -> list[str]:
    """The first cell of every row of the screen's table."""
    grid = pilot.app.screen.query_one(Grid)
    return [grid.get_row_at(number)[0].plain for number in range(grid.row_count)]


def text_of(pilot: Pilot[None], selector: str) -> str:
    """What one widget says."""
    content = pilot.app.screen.query_one(selector, Static).content
    return content.plain if isinstance(content, Text) else str(content)


def told(pilot: Pilot[None]) -> str:
    """What the console says beside the screen."""
    return "\n".join(each.message for each in pilot.app._notifications)


def way(pilot: Pilot[None]) -> list[str]:
    """The places that the title bar names."""
    left = text_of(pilot, "#title").split("  ")[0]
    return [place.strip() for place in left.split("\u203a")]


def health(code: str, ago_ms: int, detail: str = "") -> Health:
    return health_in_words([{"code": code, "since_wall_ms": NOW - ago_ms, "detail": detail}])[0]


def device(name: str, state: str, heard_ms: int | None, *codes: Health, site: str = "old-town") -> Device:
    heard = None if heard_ms is None else NOW - heard_ms
    return Device(id=name, site=site, profile="raspberry-pi-5", state=state, heard_ms=heard, health=codes)


DEVICES = (
    device("gw-canal-01", "online", 1_000),
    device("gw-canal-02", "online", 3_000, health("sensor.timeout", 4 * MINUTE, "pump: 10.0.0.7:502")),
    device("gw-hill-01", "offline", 9 * MINUTE, health("link.down", 9 * MINUTE)),
    device("gw-hill-02", "silent", 26 * HOUR, health("device.silent", 26 * HOUR), site="hill"),
    device("gw-hill-03", "online", 2_000, health("model.refused", HOUR, "pressure_leak: golden 3 fails")),
    device("gw-spare-99", "new", None, site="store"),
)

_WAVES = tuple(20 + 4 * math.sin(number / 9) + (number % 7) / 5 for number in range(120))

VALUES = (
    Value(metric="flow", unit="l/s", value=21.348, quality=Quality.GOOD, time_ms=NOW - 2000, history=_WAVES),
    Value(metric="ph", unit="", value=8.1, quality=Quality.SUSPECT, time_ms=NOW - 2000, history=_WAVES[::-1]),
    Value(
        metric="pressure", unit="bar", value=None, quality=Quality.BAD, time_ms=NOW - 4 * MINUTE,
        history=(*_WAVES[:40], *(math.nan,) * 6),
    ),
)  # fmt: skip

MODEL = Model(
    name="pressure_leak",
    version="1.2",
    release=3,
    runtime="litert",
    isolation="worker",
    policy="leak_watch 2",
)

UPDATES = (
    Update(
        kind="model", name="pressure_leak", release=4, version="1.3", state="downloading", installed=3,
        since_wall_ms=NOW - 40_000, done=3_400_000, size=8_100_000,
    ),
    Update(
        kind="policy", name="leak_watch", release=1, version="1", state="failed", installed=2,
        since_wall_ms=NOW - 3 * HOUR, refusal="rollback", detail="release 1 of leak_watch, 2 was accepted",
    ),
)  # fmt: skip

PAGE = DevicePage(
    device=device("gw-canal-02", "online", 3_000, health("sensor.timeout", 4 * MINUTE, "pump: 10.0.0.7:502")),
    report=Report(
        agent="argan-0.1.0",
        sensors=(Sensor(name="cabinet", kind="modbus"), Sensor(name="pump", kind="modbus")),
        models=(MODEL,),
        spool=Spool(batches=12, bytes=48_200, dropped_records=0),
        updates=UPDATES,
    ),
    reported_ms=NOW - 40_000,
    desired=(
        Wanted(kind="model", name="pressure_leak", release=4, version="1.3"),
        Wanted(kind="policy", name="leak_watch", release=2, version="2"),
    ),
    values=VALUES,
    conclusions=(
        Conclusion(
            model="pressure_leak", version="1.2", label="normal", score=0.12, confidence=0.93,
            latency_us=341, time_ms=NOW - 12_000, uncertain=True,
        ),
    ),
)  # fmt: skip

EVENTS = (
    Event(device="gw-canal-02", time_ms=NOW - 30_000, name="leak", severity=2, text="Leak in zone 4?",
          source="leak_watch", figures={"score": 0.94, "reading.pressure": 2.81}),
    Event(device="gw-hill-01", time_ms=NOW - 9 * MINUTE, name="pressure_low", severity=1,
          text="Pressure below 2 bar for 10 minutes", source="leak_watch"),
    Event(device="gw-canal-01", time_ms=NOW - 2 * HOUR, name="clock_jump", severity=0,
          text="The wall clock was set by 2.4 s", source="agent"),
)  # fmt: skip

ROLLOUT = Rollout(
    id="3f2a9c10", state="running", kind="model", name="pressure_leak", release=4, version="1.3",
    group="old-town", reason="finds small leaks sooner", created_ms=NOW - 2 * HOUR,
    counts={"waiting": 2, "assigned": 2, "done": 1, "failed": 1}, asked_by="olga", approved_by=("anna",),
)  # fmt: skip

ROLLOUTS = (
    ROLLOUT,
    Rollout(id="1b", state="done", kind="policy", name="leak_watch", release=2, version="2", group="all",
            reason="fewer alarms at night", created_ms=NOW - 72 * HOUR, counts={"done": 12}),
)  # fmt: skip

ROLLOUT_PAGE = RolloutPage(
    rollout=ROLLOUT,
    waves=(
        Wave(number=1, state="ended", started_ms=NOW - 2 * HOUR, devices=(
            Member(id="gw-canal-01", state="done", since_ms=NOW - HOUR),
            Member(id="gw-hill-03", state="failed", since_ms=NOW - HOUR, refusal="wrong_hardware"),
        )),
        Wave(number=2, state="open", started_ms=NOW - 20 * MINUTE, devices=(
            Member(id="gw-canal-02", state="assigned", since_ms=NOW - 20 * MINUTE, update="downloading",
                   done=3_400_000, size=8_100_000),
            Member(id="gw-hill-01", state="assigned", since_ms=NOW - 20 * MINUTE, presence="offline",
                   is_holding=True),
        )),
        Wave(number=3, state="waiting", devices=(
            Member(id="gw-hill-02", state="waiting"), Member(id="gw-spare-99", state="waiting"),
        )),
    ),
)  # fmt: skip


PROPOSAL = Proposal(
    id="7e11c0de", action="rollout.start", state="proposed", proposer="olga",
    reason="finds small leaks sooner", needed=2, approvals=1, devices=3, sites=("hill", "old-town"),
    sha256="5f" * 32, created_ms=NOW - 5 * MINUTE,
)  # fmt: skip

PROPOSALS = (
    PROPOSAL,
    Proposal(id="3f2a9c10", action="rollout.start", state="executed", proposer="olga", needed=1, approvals=1,
             reason="the night model", created_ms=NOW - 2 * HOUR),
    Proposal(id="b0a7", action="device.assign", state="stale", proposer="otto", reason="a try",
             outcome="'radius' is no longer as it was shown; propose it anew", created_ms=NOW - 30 * HOUR),
    Proposal(id="b0a8", action="policy.publish", state="rejected", proposer="otto", reason="fewer alarms",
             created_ms=NOW - 50 * HOUR),
)  # fmt: skip

PROPOSAL_PAGE = ProposalPage(
    proposal=PROPOSAL,
    diff=(
        Change(field="model pressure_leak", before={"release 3": 2, "none": 1}, after={"release 4": 3}),
        Change(field="version", after="1.3"),
        Change(field="group", after="old-town"),
        Change(field="waves", after=[["gw-hill-02"], ["gw-canal-01", "gw-canal-02"]]),
        Change(field="max_failures", after=0),
    ),
    reached=(
        Reached(id="gw-canal-01", site="old-town", has=3, runs=3),
        Reached(id="gw-canal-02", site="old-town", has=3, runs=2),
        Reached(id="gw-hill-02", site="hill"),
    ),
    votes=(Vote(person="anna", agrees=True, reason="looked at the trial"),),
)


class ShownFleet:
    """A server that always says the same, and nothing once it is ``dead``; steps are written down."""

    name = "http://fleet.example:8080"
    abilities = frozenset({Ability.FLEET})

    def __init__(self, *, has_rollouts: bool = True) -> None:
        self.dead: ConsoleError | None = None
        self.steps: list[tuple[str, Step]] = []
        self.decided: list[tuple[str, str, str]] = []
        self._has_rollouts = has_rollouts

    async def close(self) -> None:
        return

    async def overview(self) -> Seen[Overview]:
        flow = Flow(
            readings=81_234_567, events=412, lost_records=0, refused=3, readings_a_second=126.4,
            events_a_minute=0.4, p50_ms=84.0, p99_ms=1210.0, history=_WAVES,
        )  # fmt: skip
        server = (health("broker.dropping", 3 * MINUTE),)
        rollouts = ROLLOUTS if self._has_rollouts else None
        return self._said(Overview(devices=DEVICES, server=server, flow=flow, rollouts=rollouts))

    async def devices(self) -> Seen[tuple[Device, ...]]:
        return self._said(DEVICES)

    async def device(self, device: str) -> Seen[DevicePage]:
        return self._said(PAGE)

    async def events(self) -> Seen[tuple[Event, ...]]:
        return self._said(EVENTS)

    async def rollouts(self) -> Seen[tuple[Rollout, ...]]:
        if not self._has_rollouts:
            raise Absent("this server has no rollouts yet")
        return self._said(ROLLOUTS)

    async def rollout(self, rollout: str) -> Seen[RolloutPage]:
        return self._said(ROLLOUT_PAGE)

    async def steer(self, rollout: str, step: Step) -> str:
        self.steps.append((rollout, step))
        return "Asked for as proposal 5e: somebody else approves it." if step is Step.RESUME else ""

    async def proposals(self) -> Seen[tuple[Proposal, ...]]:
        return self._said(PROPOSALS)

    async def proposal(self, proposal: str) -> Seen[ProposalPage]:
        return self._said(PROPOSAL_PAGE)

    async def decide(self, proposal: str, verdict: str, said: str) -> None:
        self.decided.append((proposal, verdict, said))

    def die(self) -> None:
        self.dead = Unreachable("the server at http://fleet.example:8080 does not answer (refused)")

    def _said(self, content: Any) -> Seen[Any]:
        if self.dead:
            raise self.dead
        return Seen(content, NOW)


class ShownAgent:
    """An agent that always says the same; what it is asked to do is written down."""

    name = "/var/lib/argan/agent.sock"
    abilities = frozenset({Ability.ON_SITE})

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    async def close(self) -> None:
        return

    async def device(self, device: str) -> Seen[DevicePage]:
        link = Link(up=True, broker="fleet.example:8883", up_ms=3 * HOUR, acknowledged_age_ms=2000)
        values = (PAGE.device, PAGE.report, PAGE.values, PAGE.conclusions)
        known, report, readings, conclusions = values
        return Seen(
            DevicePage(device=known, report=report, reported_ms=NOW, values=readings,
                       conclusions=conclusions, link=link),
            NOW,
        )  # fmt: skip

    async def events(self) -> Seen[tuple[Event, ...]]:
        return Seen(EVENTS, NOW)

    async def doctor(self) -> Seen[tuple[Finding, ...]]:
        return Seen(
            (
                Finding(code="disk", ok=True, text="Disk: 11.2 GB free, commits take 4 ms"),
                Finding(code="clock", ok=False, text="The clock is 94 s behind",
                        next_step="Check the time service."),
                Finding(code="profile", ok=True, text="Board fits its profile raspberry-pi-5"),
            ),
            NOW,
        )  # fmt: skip

    async def read_sensor(self, sensor: str) -> Seen[tuple[Reading, ...]]:
        self.asked.append(("read", sensor))
        return Seen((Reading(metric="flow", unit="l/s", value=21.4, quality=Quality.GOOD),), NOW)

    async def apply_update(self, path: str) -> Seen[None]:
        self.asked.append(("apply", path))
        raise ConsoleError("updates: not available in this agent")

    async def write_bundle(self, path: str) -> Seen[Written]:
        self.asked.append(("bundle", path))
        return Seen(Written(path=path, bytes=12_345, id="60ec2918"), NOW)


def console(source: Any, clock: Any = None) -> Console:
    """A console over ``source`` that draws without animations."""
    app = Console(source, clock or StillClock())
    app.animation_level = "none"
    return app
