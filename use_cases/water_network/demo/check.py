"""The demonstration without a terminal: every journey observed end to end, under kills, and accounted for.

The leak must be found by a gateway that guards it. On the way agents, the server's ingest and the
broker are killed with SIGKILL. At the end the plant stops, everything still on its way must arrive,
and each device's readings are held against what its meter served.
"""

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final

from fleet_console.errors import ConsoleError
from fleet_protocol.texts import _
from hil.account import Account, account
from hil.processes import proportional_memory_mib
from hil.stopping import pause
from use_cases.water_network.demo import plan
from use_cases.water_network.demo.city import City
from use_cases.water_network.demo.observe import Observer

WITHIN_S: Final = 120.0
"""Seconds in which a condition must come true beyond the time that the plant itself takes."""
DAY_S: Final = 86_400 / plan.TIME_FACTOR
"""Seconds that a day of the plant takes."""
LEAK_DAYS: Final = 4.0
"""Days in which the open leak has to be found."""
POLL_S: Final = 0.2
KILLED_AGENTS: Final = ("gw-213", "gw-129", plan.LEAK_GUARD)

Say = Callable[[str], None]


class CheckFailedError(RuntimeError):
    """A journey was not observed; the message says which."""


@dataclass(slots=True)
class Findings:
    """What the check saw."""

    started_ms: int
    leak_opened_ms: int
    counts: dict[str, int] = field(default_factory=dict)
    latency: dict[str, float] | None = None
    latency_us: dict[str, float] = field(default_factory=dict)
    memory_mib: dict[str, float] = field(default_factory=dict)
    kills_ms: dict[str, list[int]] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    accounts: list[Account] = field(default_factory=list)
    leak_event: dict[str, Any] = field(default_factory=dict)


def run(city: City, observer: Observer, started_ms: int, say: Say) -> Findings:
    """Observe every journey of a city that has just started.

    Raises:
        CheckFailedError: one was not observed in time.
    """
    leak_opened_ms = started_ms + int(plan.WARM_UP_DAYS * DAY_S * 1000)
    findings = Findings(started_ms, leak_opened_ms)
    wait = _Waiting(city)
    say(_("Waiting for the first reading of every agent"))
    reports = _all_report(observer)
    wait.until(_("every agent is online and its readings are stored"), reports, WITHIN_S)
    _kill_everything_once(city, findings, wait, reports, say)
    say(_("Gathering history until every model has answered"))
    wait.until(_("every model answers"), _all_answer(observer), plan.WARM_UP_DAYS * DAY_S + WITHIN_S)
    findings.memory_mib = _memory(city)
    say(_("Waiting for the leak to open and to be found"))
    opens_in_s = (leak_opened_ms - time.time() * 1000) / 1000
    found = _leak_found(observer, findings)
    wait.until(
        _("the leak is raised by its gateway"), found, max(0.0, opens_in_s) + LEAK_DAYS * DAY_S + WITHIN_S
    )
    _kill(city, plan.LEAK_GUARD, findings, say)
    wait.until(_("the killed agent reports again"), reports, WITHIN_S)
    findings.latency = observer.latency()
    findings.latency_us = _latency_us(observer)
    say(_("Stopping the plant and reconciling every reading from sensor to row"))
    _reconcile(city, observer, wait, findings)
    return findings


def failures(findings: Findings) -> list[str]:
    """What was seen and must not be; nothing when all is well."""
    wrong = [
        _("{device}: {lost} readings lost, {doubled} doubled, uneven: {uneven}").format(
            device=each.device,
            lost=len(each.lost),
            doubled=len(each.doubled),
            uneven=", ".join(each.uneven) or "-",
        )
        for each in findings.accounts
        if not each.balanced
    ]
    if findings.counts["lost_records"]:
        wrong.append(
            _("{count} records were dropped by agents").format(count=findings.counts["lost_records"])
        )
    if findings.counts["refused"]:
        wrong.append(_("{count} messages were refused").format(count=findings.counts["refused"]))
    return wrong


class _Waiting:
    """Waits for conditions while keeping the agents alive, as their boards' service managers would."""

    def __init__(self, city: City) -> None:
        self._city = city

    def until(self, what: str, holds: Callable[[], bool], within_s: float) -> None:
        """Return once ``holds``; a server that is away for a moment only delays.

        Raises:
            CheckFailedError: it did not come true in ``within_s`` seconds.
        """
        deadline = time.monotonic() + within_s
        while not self._holds(holds):
            if time.monotonic() > deadline:
                raise CheckFailedError(
                    _("not observed within {seconds:.0f} s: {what}").format(seconds=within_s, what=what)
                )
            self._city.mend()
            pause(POLL_S)

    @staticmethod
    def _holds(condition: Callable[[], bool]) -> bool:
        try:
            return condition()
        except ConsoleError:
            return False


def _all_report(observer: Observer) -> Callable[[], bool]:
    def holds() -> bool:
        devices = observer.look().devices
        fresh = [view.reading_age_ms is not None and view.reading_age_ms < 5_000 for view in devices]
        return len(devices) == len(plan.POSTS) and all(fresh) and all(v.state == "online" for v in devices)

    return holds


def _all_answer(observer: Observer) -> Callable[[], bool]:
    return lambda: all(view.label is not None for view in observer.look().devices)


def _leak_found(observer: Observer, findings: Findings) -> Callable[[], bool]:
    def holds() -> bool:
        findings.events = observer.events()
        for event in findings.events:
            guards = event["device"] == plan.LEAK_GUARD and event["name"] == "leak"
            if guards and event["time_ms"] >= findings.leak_opened_ms:
                findings.leak_event = event
                return True
        return False

    return holds


def _kill_everything_once(
    city: City, findings: Findings, wait: _Waiting, reports: Callable[[], bool], say: Say
) -> None:
    for device in KILLED_AGENTS:
        _kill(city, device, findings, say)
    for part in ("ingest", "mosquitto"):
        before = _service_pid(city, part)
        say(_("Killing {part} with SIGKILL").format(part=part))
        os.kill(before, signal.SIGKILL)
        _note_kill(findings, part)
        restarted = _Restarted(city, part, before)
        wait.until(_("{part} is started again").format(part=part), restarted, WITHIN_S)
    wait.until(_("readings flow again after the kills"), reports, WITHIN_S)


@dataclass(frozen=True, slots=True)
class _Restarted:
    """Whether a part of the server runs with another process id than ``before``."""

    city: City
    part: str
    before: int

    def __call__(self) -> bool:
        return _service_pid(self.city, self.part) not in {0, self.before}


def _kill(city: City, device: str, findings: Findings, say: Say) -> None:
    say(_("Killing agent {device} with SIGKILL").format(device=device))
    city.agents[device].kill()
    _note_kill(findings, device)


def _note_kill(findings: Findings, name: str) -> None:
    findings.kills_ms.setdefault(name, []).append(time.time_ns() // 1_000_000)


def _service_pid(city: City, part: str) -> int:
    """Process id of the server's child whose command line names ``part``; 0 where there is none."""
    server = city.server.pid
    children = Path(f"/proc/{server}/task/{server}/children").read_text().split()
    return next((child for child in map(int, children) if _runs(child, part)), 0)


def _runs(process: int, part: str) -> bool:
    try:
        words = Path(f"/proc/{process}/cmdline").read_bytes().decode().split("\0")
    except FileNotFoundError:
        return False
    return part in words or words[0].endswith(f"/{part}")


def _memory(city: City) -> dict[str, float]:
    return {
        device: proportional_memory_mib(agent.pid)
        for device, agent in city.agents.items()
        if agent.pid is not None
    }


def _latency_us(observer: Observer) -> dict[str, float]:
    """Median inference time by runtime, in microseconds."""
    spent: dict[str, list[int]] = {}
    for post in plan.POSTS:
        answers = observer.inferences(post.device, limit=200)
        spent.setdefault(post.runtime, []).extend(answer["latency_us"] for answer in answers)
    return {runtime: median(values) for runtime, values in spent.items() if values}


def _reconcile(city: City, observer: Observer, wait: _Waiting, findings: Findings) -> None:
    city.plant.stop()
    served = city.served()
    for post in plan.POSTS:
        arrived = _Arrived(observer, post, served[post.unit], findings.started_ms)
        wait.until(_("the last reading of {device} arrives").format(device=post.device), arrived, WITHIN_S)
    until_ms = observer.look().now_ms + 60_000
    for post in plan.POSTS:
        since_ms = findings.started_ms - 60_000
        rows = {
            metric: [
                (row["value"], row["time_ms"])
                for row in observer.readings(post.device, metric, since_ms, until_ms)
                if row["value"] is not None
            ]
            for metric in ("served", "pressure", "flow")
        }
        counter = rows.pop("served")
        others = {metric: len(values) for metric, values in rows.items()}
        kills_ms = findings.kills_ms.get(post.device, [])
        findings.accounts.append(account(post.device, served[post.unit], counter, kills_ms, others))
    findings.counts = observer.look().counts
    findings.events = observer.events()


@dataclass(frozen=True, slots=True)
class _Arrived:
    """Whether the last reading that a meter served is in the database."""

    observer: Observer
    post: plan.Post
    served: int
    since_ms: int

    def __call__(self) -> bool:
        now_ms = self.observer.look().now_ms
        rows = self.observer.readings(self.post.device, "served", self.since_ms, now_ms + 60_000)
        return any(row["value"] == self.served for row in rows)
