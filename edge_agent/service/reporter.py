"""Says what this agent is: the retained status and the retained report, the reported half of the twin."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from edge_agent import AGENT
from edge_agent.clock import Clock
from edge_agent.config import Config
from edge_agent.sensors.base import Sensor
from edge_agent.service.health import HealthBoard
from edge_agent.telemetry.store import Store
from fleet_protocol.messages import (
    ModelReport,
    Reported,
    SensorReport,
    ShadowReport,
    Status,
    UpdateReport,
    encode,
)
from fleet_protocol.topics import Channel

REPORT_INTERVAL_S: Final = 60.0
"""A report at least this often: its age tells whether the rest can be believed."""

_SETTLE_S: Final = 0.2
"""Several codes change together; they are reported together."""


_MAX_UPDATES: Final = 128
"""As many as a report has room for."""


class Publisher(Protocol):
    """What the reporter needs of a session."""

    async def publish(self, channel: Channel, payload: bytes) -> None:
        """Publish one message and wait until the broker has it."""


class Reporter:
    """Builds status and report from the parts of the agent, and publishes the report on change."""

    models: Sequence[ModelReport] = ()
    """What is open now."""

    def __init__(
        self,
        config: Config,
        clock: Clock,
        health: HealthBoard,
        store: Store,
        sensors: Sequence[Sensor],
        updates: Callable[[], list[UpdateReport]] = list,
        shadows: Callable[[], list[ShadowReport]] = list,
    ) -> None:
        self._config = config
        self._clock = clock
        self._health = health
        self._store = store
        self._updates = updates
        self._shadows = shadows
        self._sensors = [
            SensorReport(
                name=sensor.name, kind=sensor.kind, metrics=[metric.name for metric in sensor.metrics]
            )
            for sensor in sensors
        ]

    def status(self, *, online: bool) -> bytes:
        """The status now."""
        return encode(
            Status(
                online=online,
                boot_id=self._clock.boot_id,
                epoch=self._store.epoch,
                agent=AGENT,
                wall_ms=self._clock.wall_ms(),
            )
        )

    async def report(self) -> Reported:
        """The report now."""
        return Reported(
            agent=AGENT,
            profile=self._config.profile,
            boot_id=self._clock.boot_id,
            epoch=self._store.epoch,
            wall_ms=self._clock.wall_ms(),
            clock=self._clock.state(),
            sensors=self._sensors,
            models=list(self.models),
            health=self._health.reports(),
            spool=await self._store.report(),
            updates=self._updates()[:_MAX_UPDATES],
            shadows=self._shadows(),
        )

    async def run(self, connection: Publisher) -> None:
        """Publish the report now, on every change of health, and at least every minute."""
        while True:
            self._health.changed.clear()
            await connection.publish(Channel.REPORTED, encode(await self.report()))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REPORT_INTERVAL_S):
                    await self._health.changed.wait()
                    await asyncio.sleep(_SETTLE_S)
