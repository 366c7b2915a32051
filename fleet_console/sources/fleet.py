"""The screens' source for a whole fleet: the server's API, asked without waiting for it."""

import asyncio
import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
import msgspec

from fleet_console.errors import Absent
from fleet_console.sources.base import Ability, Step
from fleet_console.sources.http import Access, Answer, answer_of, unreachable
from fleet_console.sources.views import (
    Conclusion,
    Device,
    DevicePage,
    Event,
    Flow,
    Health,
    Overview,
    Proposal,
    ProposalPage,
    Report,
    Rollout,
    RolloutPage,
    Seen,
    Value,
    Version,
    Wanted,
    numbers,
    read,
)
from fleet_protocol.texts import _

TIMEOUT_S: Final = 10.0
"""A screen that says 'no answer' early and is wrong once is better than one that shows old things."""

AT_ONCE: Final = 8
"""Questions under way at one time: one technician must not crowd out the others."""

HISTORY: Final = 120
"""Readings of one metric that are drawn."""

METRICS: Final = 40
"""Metrics whose history is asked for; the rest are shown without one."""

EVENTS: Final = 500
"""Events that are shown, the newest."""

_DAY_MS: Final = 86_400_000
_HISTORY_AGE_S: Final = 60.0
"""A history is asked for anew so often; in between it grows by the newest readings."""

_RATE_S: Final = 60.0
_PAGE: Final = 1000
_NEWEST_ANSWERS: Final = 50


@dataclass(slots=True)
class _History:
    """One device's histories by metric, as far as they are known."""

    device: str
    asked_s: float
    tracks: dict[str, deque[tuple[int, float | None]]] = field(default_factory=dict)

    def grow(self, readings: Iterable[Mapping[str, Any]]) -> None:
        """Add the newest readings where they are new."""
        for each in readings:
            track = self.tracks.setdefault(each["metric"], deque(maxlen=HISTORY))
            if not track or each["time_ms"] > track[-1][0]:
                track.append((each["time_ms"], each["value"]))


class Fleet:
    """A server as a source; see :class:`fleet_console.sources.base.FleetSource`."""

    abilities: Final = frozenset({Ability.FLEET})

    def __init__(self, access: Access) -> None:
        self.name: Final = access.url
        limits = httpx.Limits(max_connections=AT_ONCE)
        self._client = httpx.AsyncClient(**access.options | {"timeout": TIMEOUT_S, "limits": limits})
        self._counts: deque[tuple[float, Mapping[str, int]]] = deque()
        self._rates: deque[float] = deque(maxlen=HISTORY)
        self._history = _History("", 0.0)
        self._events: deque[Event] = deque(maxlen=EVENTS)
        self._last_event = 0

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def overview(self) -> Seen[Overview]:
        """The fleet at a glance, in one round of questions."""
        devices, health, stats, rollouts = await asyncio.gather(
            self.devices(), self._get("/v1/health"), self._get("/v1/stats"), self._rollouts_if_any()
        )
        server = read(health.content["items"], tuple[Health, ...])
        flow = self._flow(stats.content)
        return Seen(
            Overview(devices=devices.content, server=server, flow=flow, rollouts=rollouts), stats.now_ms
        )

    async def devices(self) -> Seen[tuple[Device, ...]]:
        """Every device, page by page."""
        items: list[Any] = []
        after = ""
        while True:
            answer = await self._get("/v1/devices", limit=_PAGE, after=after)
            items += answer.content["items"]
            after = answer.content["next_after"]
            if not after:
                return Seen(read(items, tuple[Device, ...]), answer.now_ms)

    async def device(self, device: str) -> Seen[DevicePage]:
        """One device's page, its newest values with their history, and its models' newest answers."""
        base = f"/v1/devices/{device}"
        page, versions, latest, inferences = await asyncio.gather(
            self._get(base),
            self._get(f"{base}/versions"),
            self._get(f"{base}/readings"),
            self._get(f"{base}/inferences", limit=_NEWEST_ANSWERS),
        )
        readings = latest.content["items"]
        await self._follow(device, readings)
        newest = {each["model"]: each for each in inferences.content["items"]}
        reported = page.content["reported"]
        return Seen(
            DevicePage(
                device=read(page.content["device"], Device),
                report=None if reported is None else read(reported, Report),
                reported_ms=page.content["reported_ms"],
                desired=_wanted(page.content.get("desired")),
                versions=read(versions.content["items"], tuple[Version, ...]),
                values=tuple(self._value(each) for each in readings),
                conclusions=read(list(newest.values()), tuple[Conclusion, ...]),
            ),
            latest.now_ms,
        )

    async def events(self) -> Seen[tuple[Event, ...]]:
        """The newest events of the last day; only those that are new are fetched again."""
        since_ms = 0
        if not self._last_event:
            since_ms = max(0, (await self._get("/v1/health")).now_ms - _DAY_MS)
        while True:
            answer = await self._get("/v1/events", limit=_PAGE, after=self._last_event, since_ms=since_ms)
            items = read(answer.content["items"], tuple[Event, ...])
            self._events.extend(items)
            self._last_event = answer.content["next_after"]
            if len(items) < _PAGE:
                newest_first = sorted(self._events, key=lambda event: -event.time_ms)
                return Seen(tuple(newest_first), answer.now_ms)

    async def rollouts(self) -> Seen[tuple[Rollout, ...]]:
        """Every rollout, the newest first."""
        try:
            answer = await self._get("/v1/rollouts", limit=_PAGE)
        except Absent:
            raise Absent(_("this server has no rollouts yet")) from None
        items = read(answer.content["items"], tuple[Rollout, ...])
        newest_first = sorted(items, key=lambda each: -(each.created_ms or 0))
        return Seen(tuple(newest_first), answer.now_ms)

    async def rollout(self, rollout: str) -> Seen[RolloutPage]:
        """One rollout with its waves."""
        answer = await self._get(f"/v1/rollouts/{rollout}")
        return Seen(read(answer.content, RolloutPage), answer.now_ms)

    async def steer(self, rollout: str, step: Step) -> str:
        """Pause or abort, or ask to resume; what has become of it, empty where it was done."""
        body = {"reason": _("asked for on the console")} if step is Step.RESUME else {}
        answer = await self._ask("POST", f"/v1/rollouts/{rollout}/{step}", json=body)
        if step is not Step.RESUME:
            return ""
        proposal = read(answer.content, ProposalPage).proposal
        if proposal.state == "executed":
            return ""
        return _("Asked for as proposal {id}: somebody else approves it.").format(id=proposal.id)

    async def proposals(self) -> Seen[tuple[Proposal, ...]]:
        """What people have asked for, the newest first."""
        answer = await self._get("/v1/proposals", limit=_PAGE)
        return Seen(read(answer.content["items"], tuple[Proposal, ...]), answer.now_ms)

    async def proposal(self, proposal: str) -> Seen[ProposalPage]:
        """One proposal with all that an approver has to see."""
        answer = await self._get(f"/v1/proposals/{proposal}")
        return Seen(read(answer.content, ProposalPage), answer.now_ms)

    async def decide(self, proposal: str, verdict: str, said: str) -> None:
        """``approve`` what has the digest ``said``, or ``reject`` it for the reason ``said``."""
        body = {"sha256" if verdict == "approve" else "reason": said}
        await self._ask("POST", f"/v1/proposals/{proposal}/{verdict}", json=body)

    async def _rollouts_if_any(self) -> tuple[Rollout, ...] | None:
        try:
            return (await self.rollouts()).content
        except Absent:
            return None

    async def _get(self, path: str, **parameters: str | int) -> Answer:
        return await self._ask("GET", path, params=parameters)

    async def _ask(self, method: str, path: str, **how: Any) -> Answer:
        try:
            response = await self._client.request(method, path, **how)
        except httpx.TransportError as error:
            raise unreachable(self.name, error) from error
        return answer_of(response)

    def _flow(self, stats: Mapping[str, Any]) -> Flow:
        """Totals with rates over the last minute, or over as much of it as was seen."""
        counts, now_s = stats["counts"], time.monotonic()
        self._counts.append((now_s, counts))
        while len(self._counts) > 2 and now_s - self._counts[1][0] > _RATE_S:  # noqa: PLR2004 - a rate needs two
            self._counts.popleft()
        then_s, before = self._counts[0]
        seen_s = now_s - then_s
        rate = (counts["readings"] - before["readings"]) / seen_s if seen_s > 0 else None
        if rate is not None:
            self._rates.append(rate)
        flow = read({**(stats["latency"] or {}), **counts}, Flow)
        return msgspec.structs.replace(
            flow,
            readings_a_second=rate,
            events_a_minute=(counts["events"] - before["events"]) * 60 / seen_s if seen_s > 0 else None,
            history=tuple(self._rates),
        )

    async def _follow(self, device: str, readings: list[Mapping[str, Any]]) -> None:
        """Bring the histories of ``device`` up to its newest ``readings``."""
        now_s = time.monotonic()
        if self._history.device != device or now_s - self._history.asked_s > _HISTORY_AGE_S:
            history = _History(device, now_s)
            await asyncio.gather(*(self._fetch(history, each) for each in readings[:METRICS]))
            self._history = history
        self._history.grow(readings)

    async def _fetch(self, history: _History, newest: Mapping[str, Any]) -> None:
        since_ms = max(0, newest["time_ms"] - _DAY_MS)
        path = f"/v1/devices/{history.device}/readings"
        answer = await self._get(path, metric=newest["metric"], since_ms=since_ms, limit=HISTORY)
        history.grow(answer.content["items"])

    def _value(self, reading: Mapping[str, Any]) -> Value:
        track = self._history.tracks.get(reading["metric"], ())
        return msgspec.structs.replace(read(reading, Value), history=numbers(value for _ms, value in track))


def _wanted(desired: Any) -> tuple[Wanted, ...] | None:
    """What a device shall have: a list, or the twin's document that holds it; None where nobody says."""
    if isinstance(desired, Mapping):
        desired = desired.get("assignments")
    return None if desired is None else read(desired, tuple[Wanted, ...])
