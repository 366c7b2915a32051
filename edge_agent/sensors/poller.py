"""Polls one sensor at its rate and hands on what it brings, good or bad."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from edge_agent.clock import Clock
from edge_agent.errors import SensorEnded, SensorError, SensorRefused, SensorTimeout
from edge_agent.sensors.base import Sample, Sensor, bad
from edge_agent.sensors.stuck import StuckWatch
from edge_agent.service.health import HealthBoard
from fleet_protocol.texts import _

_LEAST_PAUSE_S: Final = 0.2
"""After a failed poll, also where a recording sets the pace."""

Take = Callable[[list[Sample]], Awaitable[None]]
_CODES: Final = (SensorTimeout.code, SensorRefused.code)
_STUCK: Final = "sensor.stuck"


class Poller:
    """The loop of one sensor. A poll that failed is told as bad samples and as a health code."""

    def __init__(
        self,
        sensor: Sensor,
        clock: Clock,
        health: HealthBoard,
        take: Take,
        stuck_after_s: float | None = None,
    ) -> None:
        """Poll ``sensor``; a gauge that is the same for ``stuck_after_s`` is called stuck."""
        self._sensor = sensor
        self._stuck = StuckWatch(stuck_after_s) if stuck_after_s is not None else None
        self._clock = clock
        self._health = health
        self._take = take
        self._one_at_a_time = asyncio.Lock()
        self._ended = False

    async def read(self) -> list[Sample]:
        """Poll once outside the rhythm; what it brings is recorded as any other poll.

        Raises:
            SensorError: as the sensor's poll does.
        """
        if self._ended:
            raise SensorEnded(_("the recording of {sensor} is over").format(sensor=self._sensor.name))
        samples, problem = await self._once()
        if problem is not None:
            raise problem
        return samples

    async def run(self) -> None:
        """Poll until the recording ends, the task is cancelled, or never."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        try:
            while (wait_s := await self._poll()) is not None:
                # Polls that were missed are not made up for: the next one keeps the rhythm.
                due = max(due + wait_s, loop.time())
                await asyncio.sleep(due - loop.time())
        finally:
            await self._sensor.close()

    async def _poll(self) -> float | None:
        """Poll once; the seconds until the next time, or none if there is nothing more."""
        _samples, problem = await self._once()
        if self._ended:
            return None
        if problem is None:
            return self._sensor.interval_s
        return max(self._sensor.interval_s, _LEAST_PAUSE_S)

    def _judged(self, samples: list[Sample]) -> list[Sample]:
        if self._stuck is None or not samples:
            return samples
        judged, stuck = self._stuck.judge(samples)
        if stuck:
            self._health.raise_code(_STUCK, ", ".join(stuck), subject=self._sensor.name)
        else:
            self._health.clear(_STUCK, subject=self._sensor.name)
        return judged

    async def _once(self) -> tuple[list[Sample], SensorError | None]:
        """Poll, record and tell; no two at a time, because they would share one connection."""
        async with self._one_at_a_time:
            problem: SensorError | None = None
            try:
                samples = await self._sensor.poll()
            except SensorError as error:
                problem = error
                samples = list(error.samples)
            if isinstance(problem, SensorEnded):
                self._ended = True
                self._health.raise_code(problem.code, subject=self._sensor.name)
                return [], problem
            samples = self._judged(samples) or bad(self._sensor.metrics, self._clock.mono_ms())
            await self._take(samples)
            self._tell(problem)
            return samples, problem

    def _tell(self, problem: SensorError | None) -> None:
        for code in _CODES:
            if problem is None or problem.code != code:
                self._health.clear(code, subject=self._sensor.name)
        if problem is not None:
            self._health.raise_code(problem.code, str(problem), subject=self._sensor.name)
