"""The agent put together: sensors, pipeline, store, session, under one supervisor."""

import asyncio
import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edge_agent.clock import Clock
from edge_agent.config import Config, Modbus, SensorConfig
from edge_agent.errors import ConfigError, FolderInUse
from edge_agent.escalation.desk import Desk
from edge_agent.link.identity import Identity
from edge_agent.link.transport import Transport
from edge_agent.link.uplink import Uplink
from edge_agent.models import Models
from edge_agent.pipeline.keeper import Keeper
from edge_agent.sensors.base import Sensor
from edge_agent.sensors.poller import Poller
from edge_agent.sensors.replay import ReplaySensor
from edge_agent.service.health import HealthBoard
from edge_agent.service.reporter import Reporter
from edge_agent.supervisor import Supervisor
from edge_agent.tasks import Work
from edge_agent.telemetry.recorder import Recorder
from edge_agent.telemetry.sender import Limits, Sender
from edge_agent.telemetry.store import Store
from fleet_protocol.messages import ModelReport
from fleet_protocol.texts import _

if TYPE_CHECKING:
    from edge_agent.pipeline.pipeline import Pipeline

_STOP_S: Final = 1.5
"""A stop takes no longer, whatever hangs."""


class Agent:
    """One device's agent. ``run`` ends when it is cancelled, with everything committed."""

    def __init__(
        self, config: Config, identity: Identity, clock: Clock, limits: Limits | None = None
    ) -> None:
        self._config = config
        self._identity = identity
        self._clock = clock
        self.health: Final = HealthBoard(clock)
        self.store: Final = Store(config.data, config.spool.max_bytes, clock, self.health)
        self._sender = Sender(self.store, clock, self.health, limits)
        self._desk = Desk(clock, self.health)
        self._models = Models(config.models, self.health, config.time_factor, clock, self._desk)
        self._keeper = Keeper(config.data, clock)
        self._sensors = [_sensor(each, clock, config.time_factor) for each in config.sensors]

    async def run(self) -> None:
        """Run until cancelled."""
        config = self._config
        with _alone_in(config.data):
            recorder = Recorder(self._clock, self.store, self.health, config.spool.flush_interval_s)
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

    def _tasks(self, recorder: Recorder) -> dict[str, Work]:
        config = self._config
        self._desk.record = recorder.note
        reporter = Reporter(config, self._clock, self.health, self.store, self._sensors)

        def use(pipeline: "Pipeline", models: list[ModelReport]) -> None:
            self._keeper.take(pipeline)
            recorder.pipeline, reporter.models = pipeline, models
            self.health.changed.set()

        uplink = Uplink(
            Transport(self._identity, config.broker, self._clock),
            self._sender,
            self._desk,
            reporter,
            self.health,
            config.broker.reconnect_cap_s,
        )
        pollers = {
            f"sensor.{sensor.name}": Poller(sensor, self._clock, self.health, recorder.take).run
            for sensor in self._sensors
        }
        models: dict[str, Work] = (
            {
                "models": lambda: self._models.run(use),
                "memory": self._keeper.run,
                "escalation": self._desk.run,
            }
            if config.models
            else {}
        )
        return {"recorder": recorder.run, "uplink": uplink.run, **models, **pollers}


def _sensor(config: SensorConfig, clock: Clock, time_factor: float) -> Sensor:
    if isinstance(config, Modbus):
        from edge_agent.sensors.modbus import ModbusSensor

        return ModbusSensor(config, clock)
    return ReplaySensor(config, clock, time_factor)


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
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
