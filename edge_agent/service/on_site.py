"""What can be asked of an agent on site: the methods behind its local socket.

``status``, ``events``, ``sensor.read``, ``doctor``, ``update.apply``, ``update.cancel``, ``update.resume``,
``update.status``, ``update.receipt`` and ``bundle``.
Work that somebody began is finished whether or not they stay to see it.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

from edge_agent.clock import Clock
from edge_agent.config import Config
from edge_agent.errors import BadParameter, LocalError, NotAvailable
from edge_agent.sensors.base import Sample
from edge_agent.service.local_api import LocalApi, Method, text_of
from edge_agent.service.log_tail import LogTail
from edge_agent.service.recent import Recent
from fleet_protocol.messages import Reported
from fleet_protocol.targets import Target
from fleet_protocol.texts import _

READ_S: Final = 10.0
"""A sensor that takes longer is told as such; the read goes on."""

DOCTOR_S: Final = 60.0
"""The doctor opens models and writes to the disk; a worn card takes its time."""


class Reader(Protocol):
    """One sensor, as far as reading it now goes."""

    async def read(self) -> list[Sample]:
        """Poll once; raises the sensor's own errors."""


class Reports(Protocol):
    """Who says what the agent is."""

    async def report(self) -> Reported:
        """The report now."""


class Link(Protocol):
    """The session with the broker; times on the event loop's clock."""

    @property
    def up_since_s(self) -> float | None:
        """Since when there is one, if there is one."""

    @property
    def acknowledged_s(self) -> float | None:
        """When the server confirmed something last, if ever."""


class Updates(Protocol):
    """The part of the agent that applies updates."""

    async def apply(self, path: Path) -> object:
        """Apply the bundle in a file; raises a family of AgentError that says why not."""

    async def cancel(self) -> list[Target]:
        """Fetch nothing more of what is being fetched; what that was."""

    async def resume(self) -> list[Target]:
        """Let what was canceled go on; what that is."""

    async def receipt(self) -> Mapping[str, object]:
        """The signed receipt that the last bundle asked for; raises a family of AgentError."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What the methods speak for; a part that an agent lacks is None."""

    config: Config
    clock: Clock
    reports: Reports
    recent: Recent
    link: Link
    readers: Mapping[str, Reader]
    log: LogTail
    doctor: Callable[[Config], Sequence[Any]] | None = None
    updates: Updates | None = None


class OnSite:
    """The methods, over the parts of one agent."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._running: dict[str, asyncio.Task[Any]] = {}

    async def run(self) -> None:
        """Answer on the socket in the data folder until cancelled."""
        try:
            await LocalApi(self._parts.config.data, self.methods).run()
        finally:
            for task in self._running.values():
                task.cancel()

    @property
    def methods(self) -> dict[str, Method]:
        """Every method by its name on the wire."""
        return {
            "status": self._status,
            "events": self._events,
            "sensor.read": self._read,
            "doctor": self._doctor,
            "update.apply": self._apply,
            "update.cancel": self._cancel,
            "update.resume": self._resume,
            "update.status": self._update_status,
            "update.receipt": self._receipt,
            "bundle": self._bundle,
        }

    async def status(self) -> dict[str, Any]:
        """The report with the newest values, answers and the state of the link beside it."""
        parts, mono_ms = self._parts, self._parts.clock.mono_ms()
        report: dict[str, Any] = msgspec.to_builtins(await parts.reports.report())
        return report | {
            "device": parts.config.device,
            "values": msgspec.to_builtins(parts.recent.values(mono_ms)),
            "history": parts.recent.history(),
            "inferences": msgspec.to_builtins(parts.recent.inferences(mono_ms)),
            "link": self._link(),
        }

    async def _status(self, _params: Mapping[str, Any]) -> dict[str, Any]:
        return await self.status()

    async def _events(self, _params: Mapping[str, Any]) -> dict[str, Any]:
        clock, recent = self._parts.clock, self._parts.recent
        return {"now_ms": clock.wall_ms(), "items": msgspec.to_builtins(recent.events(clock.mono_ms()))}

    async def _read(self, params: Mapping[str, Any]) -> dict[str, Any]:
        name = text_of(params, "name")
        reader = self._parts.readers.get(name)
        if reader is None:
            known = ", ".join(sorted(self._parts.readers)) or _("none")
            raise BadParameter(
                _("no sensor {name!r}; there are: {known}").format(name=name[:80], known=known)
            )
        try:
            async with asyncio.timeout(READ_S):
                samples = await self._once(f"read {name}", reader.read)
        except TimeoutError:
            raise LocalError(
                _("{sensor} did not answer within {seconds:.0f} s; see its health code").format(
                    sensor=name, seconds=READ_S
                )
            ) from None
        return {"name": name, "items": [_value(sample) for sample in samples]}

    async def _doctor(self, _params: Mapping[str, Any]) -> dict[str, Any]:
        findings = self._parts.doctor
        if findings is None:
            raise _not_available(_("doctor"))
        work = self._once("doctor", lambda: asyncio.to_thread(findings, self._parts.config))
        try:
            async with asyncio.timeout(DOCTOR_S):
                found = await work
        except TimeoutError:
            raise LocalError(
                _("the checks did not end within {seconds:.0f} s").format(seconds=DOCTOR_S)
            ) from None
        return {"items": [_finding(each) for each in found]}

    async def _apply(self, params: Mapping[str, Any]) -> dict[str, Any]:
        path = _absolute(params)
        updates = self._updates()
        running = self._running.get("apply")
        if running is not None and not running.done():
            raise LocalError(_("an update is being applied already; watch it with update.status"))
        await self._once("apply", lambda: updates.apply(path))
        return await self._update_status({})

    async def _cancel(self, _params: Mapping[str, Any]) -> dict[str, Any]:
        return _paths(await self._updates().cancel())

    async def _resume(self, _params: Mapping[str, Any]) -> dict[str, Any]:
        return _paths(await self._updates().resume())

    def _updates(self) -> Updates:
        updates = self._parts.updates
        if updates is None:
            raise _not_available(_("updates"))
        return updates

    async def _update_status(self, _params: Mapping[str, Any]) -> dict[str, Any]:
        report = await self._parts.reports.report()
        return {"items": msgspec.to_builtins(report.updates), "now_ms": report.wall_ms}

    async def _receipt(self, _params: Mapping[str, Any]) -> dict[str, Any]:
        updates = self._parts.updates
        if updates is None:
            raise _not_available(_("updates"))
        return dict(await updates.receipt())

    async def _bundle(self, params: Mapping[str, Any]) -> dict[str, Any]:
        from edge_agent.service import bundle  # what it needs is loaded by who asks for one

        path = _absolute(params)
        source = bundle.Source(
            config=self._parts.config, status=await self.status(), log=self._parts.log.text
        )
        written = await self._once("bundle", lambda: asyncio.to_thread(bundle.write, path, source))
        return {"path": str(path), "bytes": written.size, "id": written.id, "files": list(written.files)}

    async def _once(self, name: str, work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """The result of ``work``; who asks while it runs waits for the same, and nobody's leaving ends it."""
        task = self._running.get(name)
        if task is None or task.done():
            task = self._running[name] = asyncio.create_task(work(), name=f"local {name}")
            task.add_done_callback(_look_at)
        return await asyncio.shield(task)

    def _link(self) -> dict[str, Any]:
        link, now_s = self._parts.link, asyncio.get_running_loop().time()
        broker = self._parts.config.broker
        return {
            "up": link.up_since_s is not None,
            "up_ms": _elapsed_ms(link.up_since_s, now_s),
            "acknowledged_age_ms": _elapsed_ms(link.acknowledged_s, now_s),
            "broker": f"{broker.host}:{broker.port}",
        }


def _elapsed_ms(since_s: float | None, now_s: float) -> int | None:
    return None if since_s is None else max(0, int((now_s - since_s) * 1000))


def _paths(targets: Sequence[Target]) -> dict[str, Any]:
    return {"items": [target.path for target in targets]}


def _value(sample: Sample) -> dict[str, Any]:
    return {
        "metric": sample.metric.name,
        "unit": sample.metric.unit,
        "value": sample.value,
        "quality": int(sample.quality),
    }


def _finding(finding: Any) -> dict[str, Any]:
    return {name: getattr(finding, name) for name in ("code", "ok", "text", "next_step")}


def _absolute(params: Mapping[str, Any]) -> Path:
    """The parameter ``path``; relative to what would be anybody's guess."""
    path = Path(text_of(params, "path"))
    if not path.is_absolute():
        raise BadParameter(_("give the whole path, from / on"))
    return path


def _not_available(part: str) -> NotAvailable:
    return NotAvailable(_("{part}: not available in this agent").format(part=part))


def _look_at(task: "asyncio.Task[Any]") -> None:
    """Read the outcome, lest asyncio complain that nobody did when the caller has left."""
    if not task.cancelled():
        task.exception()
