"""The agent put together: sensors, pipeline, store, session, under one supervisor."""

import asyncio
import contextlib
import fcntl
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edge_agent.allowance import Allowance, allowance
from edge_agent.clock import Clock
from edge_agent.config import Config, Modbus, SensorConfig
from edge_agent.errors import ConfigError, FolderInUse
from edge_agent.escalation.desk import Desk
from edge_agent.identity.identity import Identity
from edge_agent.identity.renewal import Renewal
from edge_agent.link.transport import Transport
from edge_agent.link.uplink import Uplink
from edge_agent.models import Models, Setting
from edge_agent.pipeline.keeper import SAVE_EVERY_S, Keeper
from edge_agent.sensors.base import Sensor
from edge_agent.sensors.poller import Poller
from edge_agent.sensors.replay import ReplaySensor
from edge_agent.service.doctor import findings
from edge_agent.service.health import HealthBoard
from edge_agent.service.limits import LimitWatch
from edge_agent.service.log_tail import LogTail
from edge_agent.service.on_site import OnSite, Parts
from edge_agent.service.reporter import Reporter
from edge_agent.slots.installer import AgentInstaller, Launched, NotLaunched
from edge_agent.slots.room import Room
from edge_agent.slots.signs import Signs
from edge_agent.supervisor import Supervisor
from edge_agent.tasks import Work
from edge_agent.telemetry.recorder import Recorder
from edge_agent.telemetry.sender import Limits, Sender
from edge_agent.telemetry.store import Store
from edge_agent.updates import records
from edge_agent.updates.executor import Executor, Terms
from edge_agent.updates.installers import Installer
from edge_agent.updates.osimage.choice import updater_of
from edge_agent.updates.osimage.installer import OsInstaller
from edge_agent.updates.records import Installed
from edge_agent.updates.store import Store as Artifacts
from edge_agent.updates.updates import Updates, folder_of
from fleet_protocol.messages import Answer, Hint, Message, ModelReport
from fleet_protocol.targets import Kind
from fleet_protocol.texts import _
from fleet_protocol.topics import Channel

if TYPE_CHECKING:
    from edge_agent.pipeline.pipeline import Pipeline

_STOP_S: Final = 1.5
"""A stop takes no longer, whatever hangs."""


class Agent:
    """One device's agent. ``run`` ends when it is cancelled, with everything committed."""

    def __init__(
        self,
        config: Config,
        identity: Identity,
        clock: Clock,
        limits: Limits | None = None,
        log_tail: LogTail | None = None,
        launched: Launched | None = None,
    ) -> None:
        self._config = config
        self._identity = identity
        self._clock = clock
        self._log_tail = log_tail or LogTail()
        self._launched = launched
        self._running: asyncio.Task[None] | None = None
        self.wants_restart = False
        """Whether it ended to be started anew."""
        self.health: Final = HealthBoard(clock)
        self.allowance: Final[Allowance] = allowance(config)
        self.store: Final = Store(config.data, self.allowance.spool_bytes, clock, self.health)
        self._sender = Sender(self.store, clock, self.health, limits)
        self._artifacts = Artifacts(folder_of(config))
        self._executor: Executor | None = None
        self._desk = Desk(clock, self.health)
        self._models = Models(
            config.models,
            self.health,
            Setting(config.time_factor, clock, self._desk, self.allowance.profile.runtimes.allowed),
            self._artifacts,
            self._installed,
        )
        self.updates: Final = Updates(config, config.updates, clock, self.health) if config.updates else None
        self._keeper = Keeper(config.data, clock, max(SAVE_EVERY_S, self.allowance.flush_interval_s))
        self._sensors = [_sensor(each, clock, config.time_factor) for each in config.sensors]

    async def run(self) -> None:
        """Run until cancelled."""
        config = self._config
        self._running = asyncio.current_task()
        with alone_in(config.data):
            self._open_updates()
            recorder = Recorder(self._clock, self.store, self.health, self.allowance.flush_interval_s)
            try:
                await self.store.open()
                await Supervisor(self.health).run(self._tasks(recorder))
            finally:
                await self._stop(recorder)

    async def _stop(self, recorder: Recorder) -> None:
        """Commit first; what comes after may hang or fail without costing a reading."""
        try:
            async with asyncio.timeout(_STOP_S):
                await recorder.flush()
                await self.store.close()
        finally:
            await self._keeper.save()
            self._models.close()

    def _open_updates(self) -> None:
        """Read what is installed; only once nobody else can write it."""
        config = self._config
        if self.updates is not None:
            self._executor = open_executor(config, self._artifacts, self._clock)
            self._executor.installers = self._installers()
            self.updates.take(self._executor)

    def _install_agents(self, signs: Signs) -> None:
        """Take updates of this very software, where a launcher is there to start them."""
        if self._executor is None:
            return
        if self._launched is None:
            self._executor.installers = {**self._executor.installers, Kind.AGENT: NotLaunched()}
            return
        room = Room(self._config.data, self._launched.fitted)
        installer = AgentInstaller(room, self._artifacts, self._launched, signs, self._leave)
        self._executor.installers = {**self._executor.installers, Kind.AGENT: installer}
        installer.account(self._executor)

    def _leave(self) -> None:
        """End in an orderly way, to be started anew."""
        self.wants_restart = True
        if self._running is not None:
            self._running.cancel()

    def _installers(self) -> dict[Kind, Installer]:
        """What carries on the updates that no model runs, as far as this board has it."""
        config, settings = self._config, self._config.updates
        updater = updater_of(config, self.allowance.profile)
        if updater is None or settings is None:
            return {}

        def raised() -> set[str]:
            return {report.code for report in self.health.reports()}

        return {
            Kind.OS: OsInstaller(
                folder_of(config), self._artifacts, updater, config.os, self._clock,
                probation_s=settings.probation_s, raised=raised,
            )
        }  # fmt: skip

    def _installed(self) -> Installed:
        if self._executor is not None:
            return self._executor.installed
        return records.load(folder_of(self._config), Installed)

    def _tasks(self, recorder: Recorder) -> dict[str, Work]:
        """Everything that runs, by name."""
        updates = self.updates
        self._desk.record = recorder.note
        reporter = self._reporter()
        uplink = self._uplink(reporter)
        self._install_agents(Signs(self.store, self.health, recorder, uplink))
        pollers = self._pollers(recorder)
        tasks: dict[str, Work] = {
            "recorder": recorder.run,
            "uplink": uplink.run,
            "renewal": Renewal(self._config, self._clock, self.health, uplink.hurry).run,
            "limits": LimitWatch(self.allowance, self._config.data, self.health).run,
            "on_site": self._on_site(recorder, reporter, uplink, pollers).run,
        }
        if self._config.models or updates or self._installed().slots:
            tasks |= self._model_tasks(recorder, reporter)
        if updates:
            tasks |= self._update_tasks(updates, recorder, uplink)
        return tasks | {f"sensor.{name}": poller.run for name, poller in pollers.items()}

    def _reporter(self) -> Reporter:
        updates = self.updates.reports if self.updates else list
        return Reporter(self._config, self._clock, self.health, self.store, self._sensors, updates)

    def _uplink(self, reporter: Reporter) -> Uplink:
        broker = self._config.broker
        transport = Transport(self._identity, broker, self._clock)
        uplink = Uplink(transport, self._sender, self._desk, reporter, self.health, broker.reconnect_cap_s)

        def answered(message: Message) -> None:
            if isinstance(message, Answer):
                self._desk.hear(message)

        uplink.listen(Channel.ANSWER, answered)
        return uplink

    def _pollers(self, recorder: Recorder) -> dict[str, Poller]:
        return {
            sensor.name: Poller(sensor, self._clock, self.health, recorder.take, asked.stuck_after_s)
            for sensor, asked in zip(self._sensors, self._config.sensors, strict=True)
        }

    def _on_site(
        self, recorder: Recorder, reporter: Reporter, uplink: Uplink, pollers: dict[str, Poller]
    ) -> OnSite:
        return OnSite(
            Parts(
                self._config, self._clock, reporter, recorder.recent, uplink, pollers, self._log_tail,
                findings, self.updates,
            )
        )  # fmt: skip

    def _model_tasks(self, recorder: Recorder, reporter: Reporter) -> dict[str, Work]:
        def use(pipeline: "Pipeline", models: list[ModelReport]) -> None:
            if recorder.pipeline is not pipeline:
                self._keeper.take(pipeline)
            recorder.pipeline, reporter.models = pipeline, models
            self.health.changed.set()

        return {
            "models": lambda: self._models.run(use),
            "memory": self._keeper.run,
            "escalation": self._desk.run,
        }

    def _update_tasks(self, updates: Updates, recorder: Recorder, uplink: Uplink) -> dict[str, Work]:
        def hinted(message: Message) -> None:
            if isinstance(message, Hint):
                updates.hint(message.version)

        uplink.listen(Channel.HINT, hinted)
        return {
            "updates.look": updates.watch,
            "updates.work": partial(updates.work, self._models),
            "updates.events": partial(updates.events, recorder.tell),
        }


def open_executor(config: Config, artifacts: Artifacts, clock: Clock) -> Executor:
    """The updates of ``config``'s device as they were written down; the data folder must be held.

    Raises:
        ConfigError: it has no ``[updates]``.
        UpdateBroken: what was written down can neither be read nor set aside.
    """
    settings = config.updates
    if settings is None:
        raise ConfigError(_("the configuration has no [updates]; enroll the device with a server that has"))
    terms = Terms(settings.probation_s, settings.probation_windows)
    metrics = frozenset(metric for sensor in config.sensors for metric in sensor.metrics)
    return Executor(folder_of(config), artifacts, clock, terms, metrics)


def _sensor(config: SensorConfig, clock: Clock, time_factor: float) -> Sensor:
    if isinstance(config, Modbus):
        from edge_agent.sensors.modbus import ModbusSensor

        return ModbusSensor(config, clock)
    return ReplaySensor(config, clock, time_factor)


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold the data folder: two agents in one would send everything twice and fight for the session."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "agent.lock").open("a")
    except OSError as error:
        raise ConfigError(
            _("{folder} cannot be written ({reason}); give the agent a writable 'data' folder").format(
                folder=folder, reason=error.strerror
            )
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FolderInUse(
                _("another agent runs on {folder}; stop it, or give this one its own 'data'").format(
                    folder=folder
                )
            ) from None
        yield
