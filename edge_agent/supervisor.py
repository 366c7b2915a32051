"""Keeps named tasks running: one that fails is started again after a pause, for ever.

Failures that the agent foresees raise their health code; a bug is logged with its trace. Neither
ends the others, and neither repeats without a pause.
"""

import asyncio
import logging
from collections.abc import Mapping
from functools import partial
from typing import Final

from edge_agent.backoff import FullJitter
from edge_agent.errors import AgentError
from edge_agent.service.health import HealthBoard
from edge_agent.tasks import Work, together
from fleet_protocol.texts import _

_LOG: Final = logging.getLogger(__name__)

_FAULT: Final = "agent.fault"

_PATIENCE_S: Final = 1.1
"""Longer than the session's farewell to a broker that is gone."""


class Supervisor:
    """Runs tasks until it is cancelled; a task that returns has done its work.

    ``base_s`` and ``cap_s`` bound the pause before a restart; a task that ran for longer than
    ``cap_s`` is thought well and begins again with the short one. ``least_s`` is always waited.
    """

    def __init__(
        self, health: HealthBoard, *, base_s: float = 1.0, cap_s: float = 60.0, least_s: float = 0.1
    ) -> None:
        self._health = health
        self._base_s = base_s
        self._cap_s = cap_s
        self._least_s = least_s

    async def run(self, tasks: Mapping[str, Work]) -> None:
        """Run every task under its name."""
        kept: dict[str, Work] = {name: partial(self._keep, name, work) for name, work in tasks.items()}
        await together(kept, _PATIENCE_S)

    async def _keep(self, name: str, work: Work) -> None:
        backoff = FullJitter(self._base_s, self._cap_s)
        loop = asyncio.get_running_loop()
        while True:
            started = loop.time()
            try:
                await work()
            except Exception as error:  # noqa: BLE001 - the purpose: nothing ends the agent
                self._tell(name, error)
            else:
                return
            if loop.time() - started > self._cap_s:
                backoff.reset()
            await asyncio.sleep(self._least_s + backoff.next_s())

    def _tell(self, name: str, error: Exception) -> None:
        if isinstance(error, AgentError) and error.code:
            self._health.raise_code(error.code, str(error), subject=name)
            return
        _LOG.error(_("task {name} failed and is started again").format(name=name), exc_info=error)
        self._health.raise_code(_FAULT, f"{type(error).__name__}: {error}", subject=name)
