"""What the fleet server says of the city, asked over its API like any other client would."""

import itertools
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from fleet_console.sources.http import Server
from use_cases.water_network.demo import plan

HISTORY: Final = 60
"""Values that the sparkline shows."""


@dataclass(frozen=True, slots=True)
class DeviceView:
    """One agent as the server knows it; ages in ms, nothing where nothing has come yet."""

    post: plan.Post
    state: str
    pressure: float | None
    flow: float | None
    reading_age_ms: int | None
    version: str | None
    label: str | None
    score: float | None
    health: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CityView:
    """The whole city at one moment by the server's clock."""

    now_ms: int
    devices: tuple[DeviceView, ...]
    events: tuple[dict[str, Any], ...]
    counts: dict[str, int]
    readings_per_s: float
    pressure_history: tuple[float, ...]
    health: tuple[str, ...]
    rollout: dict[str, Any] | None
    escalation: dict[str, Any] | None
    """The newest question that was answered."""


class Observer:
    """Asks the server again and again, and remembers what only a history shows."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._events: list[dict[str, Any]] = []
        self._last_event = 0
        self._totals: deque[tuple[int, int]] = deque(maxlen=10)
        self._pressures: deque[float] = deque(maxlen=HISTORY)

    def look(self) -> CityView:
        """The city now.

        Raises:
            ConsoleError: the server does not answer, or refuses.
        """
        stats = self._server.get("/v1/stats").content
        now_ms = int(stats["now_ms"])
        known = {item["id"]: item for item in self._server.get("/v1/devices").content["items"]}
        devices = tuple(
            self._device(post, known[post.device], now_ms) for post in plan.POSTS if post.device in known
        )
        self._remember(now_ms, stats["counts"]["readings"], devices)
        return CityView(
            now_ms=now_ms,
            devices=devices,
            events=tuple(self.events()),
            counts=stats["counts"],
            readings_per_s=self._rate(),
            pressure_history=tuple(self._pressures),
            health=tuple(item["code"] for item in self._server.get("/v1/health").content["items"]),
            rollout=next(iter(self.rollouts()), None),
            escalation=next((one for one in self.escalations(limit=50) if one["label"]), None),
        )

    def events(self) -> list[dict[str, Any]]:
        """Every event so far, in the order of storing."""
        page = self._server.get("/v1/events", after=self._last_event, limit=1000).content
        self._events += page["items"]
        self._last_event = page["next_after"]
        return self._events

    def readings(self, device: str, metric: str, since_ms: int, until_ms: int) -> Iterator[dict[str, Any]]:
        """Every stored reading of a metric, a minute at a time."""
        for start in itertools.takewhile(lambda at: at < until_ms, itertools.count(since_ms, 60_000)):
            until = min(start + 60_000, until_ms)
            path = f"/v1/devices/{device}/readings"
            answer = self._server.get(path, metric=metric, since_ms=start, until_ms=until, limit=10_000)
            yield from answer.content["items"]

    def latency(self) -> dict[str, float] | None:
        """From sensor read to row over the last minute: ``p50_ms``, ``p99_ms`` over ``readings``."""
        found: dict[str, float] | None = self._server.get("/v1/stats").content["latency"]
        return found

    def streams(self, device: str) -> list[dict[str, Any]]:
        """Every numbered flow of a device."""
        items: list[dict[str, Any]] = self._server.get(f"/v1/devices/{device}/streams").content["items"]
        return items

    def inferences(self, device: str, limit: int) -> list[dict[str, Any]]:
        """The newest answers of a device's model."""
        path = f"/v1/devices/{device}/inferences"
        items: list[dict[str, Any]] = self._server.get(path, limit=limit).content["items"]
        return items

    def history(self, device: str, since_ms: int, until_ms: int) -> Iterator[dict[str, Any]]:
        """Every stored answer of a device's models, a minute at a time."""
        for start in itertools.takewhile(lambda at: at < until_ms, itertools.count(since_ms, 60_000)):
            path = f"/v1/devices/{device}/inferences"
            until = min(start + 60_000, until_ms)
            answer = self._server.get(path, since_ms=start, until_ms=until, limit=1000)
            yield from answer.content["items"]

    def rollouts(self, limit: int = 1) -> list[dict[str, Any]]:
        """The newest rollouts, the newest first."""
        items: list[dict[str, Any]] = self._server.get("/v1/rollouts", limit=limit).content["items"]
        return items

    def rollout(self, identity: str) -> dict[str, Any]:
        """One rollout's page."""
        page: dict[str, Any] = self._server.get(f"/v1/rollouts/{identity}").content
        return page

    def escalations(self, limit: int = 1000) -> list[dict[str, Any]]:
        """The newest questions of devices with their answers, the newest first."""
        items: list[dict[str, Any]] = self._server.get("/v1/escalations", limit=limit).content["items"]
        return items

    def update(self, device: str) -> dict[str, Any]:
        """Where the last update of a device's leak model stands; empty where there was none."""
        page = self._server.get(f"/v1/devices/{device}").content
        reported = page["reported"] or {}
        found: list[dict[str, Any]] = [
            each
            for each in reported.get("updates", [])
            if (each["name"], each["mode"]) == (plan.MODEL, "act")
        ]
        return found[0] if found else {}

    def running(self, device: str) -> int:
        """The release of the leak model that a device says it runs; 0 where it runs none."""
        reported = self._server.get(f"/v1/devices/{device}").content["reported"] or {}
        found = [each["release"] for each in reported.get("models", []) if each["name"] == plan.MODEL]
        return int(found[0]) if found else 0

    def shadows(self, device: str) -> list[dict[str, Any]]:
        """How what a device runs in shadow compares with what acts."""
        reported = self._server.get(f"/v1/devices/{device}").content["reported"] or {}
        found: list[dict[str, Any]] = reported.get("shadows", [])
        return found

    def versions(self, device: str) -> list[dict[str, Any]]:
        """What a device shall have and has, by whose word."""
        items: list[dict[str, Any]] = self._server.get(f"/v1/devices/{device}/versions").content["items"]
        return items

    def raised(self, device: str, code: str) -> list[str]:
        """The details under which a device raises ``code`` now."""
        page = self._server.get(f"/v1/devices/{device}").content
        return [item["detail"] for item in page["device"]["health"] if item["code"] == code]

    def _device(self, post: plan.Post, known: dict[str, Any], now_ms: int) -> DeviceView:
        latest = {
            item["metric"]: item
            for item in self._server.get(f"/v1/devices/{post.device}/readings").content["items"]
        }
        answers = [one for one in self.inferences(post.device, limit=8) if not one["supersedes"]]
        flow = latest.get("flow")
        return DeviceView(
            post=post,
            state=known["state"],
            pressure=_value(latest.get("pressure")) if post.source is plan.Source.NETWORK else None,
            flow=_value(flow),
            reading_age_ms=max(0, now_ms - flow["time_ms"]) if flow else None,
            version=answers[-1]["version"] if answers else None,
            label=answers[-1]["label"] if answers else None,
            score=answers[-1]["score"] if answers else None,
            health=tuple(item["code"] for item in known["health"]),
        )

    def _remember(self, now_ms: int, readings: int, devices: tuple[DeviceView, ...]) -> None:
        self._totals.append((now_ms, readings))
        self._pressures += [
            view.pressure
            for view in devices
            if view.post.device == plan.LEAK_GUARD and view.pressure is not None
        ]

    def _rate(self) -> float:
        (first_ms, first), (last_ms, last) = self._totals[0], self._totals[-1]
        return 1000.0 * (last - first) / (last_ms - first_ms) if last_ms > first_ms else 0.0


def _value(reading: dict[str, Any] | None) -> float | None:
    return None if reading is None else reading["value"]
