"""Opens the models of the configuration while readings already flow.

The golden check of a model takes its time, so it runs in a thread; the thread lives as long as the
agent, because the worker process dies with the thread that started it.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from edge_agent.clock import Clock
from edge_agent.config import Model as ModelConfig
from edge_agent.errors import InferenceError, ModelRefused
from edge_agent.escalation.desk import Desk
from edge_agent.service.health import HealthBoard
from fleet_protocol.errors import PolicyError
from fleet_protocol.messages import ModelReport
from fleet_protocol.texts import _

if TYPE_CHECKING:
    # CEL and what else the pipeline needs are loaded by an agent that has a model, not by others.
    from edge_agent.escalation.doubts import Doubts
    from edge_agent.inference.process import Worker
    from edge_agent.inference.session import Session
    from edge_agent.pipeline.pipeline import Model, Pipeline
    from fleet_protocol.policy import CompiledPolicy

_LOG: Final = logging.getLogger(__name__)


class Models:
    """The open models of one agent; what cannot be opened is a health code, and the rest work."""

    def __init__(
        self,
        configs: Sequence[ModelConfig],
        health: HealthBoard,
        time_factor: float,
        clock: Clock,
        desk: Desk,
    ) -> None:
        """Open ``configs``; what they doubt goes to ``desk``."""
        self._configs = configs
        self._health = health
        self._time_factor = time_factor
        self._clock = clock
        self._desk = desk
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="models")
        self._worker: Worker | None = None
        self._open: list[Model] = []

    async def run(self, use: Callable[["Pipeline", list[ModelReport]], None]) -> None:
        """Open all models, then hand the pipeline over them to ``use``."""
        from edge_agent.pipeline.pipeline import Pipeline

        loop = asyncio.get_running_loop()
        self._close_models()
        reports = []
        for config in self._configs:
            try:
                model = await loop.run_in_executor(self._thread, self._opened, config)
            except InferenceError as error:
                self._health.raise_code(
                    error.code or ModelRefused.code, str(error), subject=config.folder.name
                )
                continue
            policy = self._policy(config, model)
            self._open.append(model._replace(policy=policy, doubts=self._doubts(model.session, policy)))
            reports.append(_report(model.session, policy))
        use(Pipeline(self._open, self._health, self._time_factor), reports)

    def close(self) -> None:
        """Give the models and the worker process back."""
        self._close_models()
        if self._worker is not None:
            self._worker.close()
            self._worker = None
        self._thread.shutdown(wait=False)

    def _close_models(self) -> None:
        """Also before a second attempt: a model that is open twice would answer twice."""
        for model in self._open:
            model.session.close()
        self._open.clear()

    def _opened(self, config: ModelConfig) -> "Model":
        from edge_agent.inference.process import Worker
        from edge_agent.inference.session import open_session
        from edge_agent.pipeline.pipeline import Model

        if config.isolation == "worker" and self._worker is None:
            self._worker = Worker()
        session = open_session(
            config.folder, isolation=config.isolation, runtime=config.runtime, worker=self._worker
        )
        _LOG.info(
            _("model {name} {version} answers on {runtime}").format(
                name=session.manifest.name, version=session.manifest.version, runtime=session.runtime
            )
        )
        return Model(session, None)

    def _policy(self, config: ModelConfig, model: "Model") -> "CompiledPolicy | None":
        from fleet_protocol.policy import CompiledPolicy, parse

        if config.policy is None:
            return None
        try:
            return CompiledPolicy(parse(config.policy.read_bytes()), model.session.manifest)
        except (PolicyError, OSError) as error:
            self._health.raise_code("policy.refused", str(error), subject=config.policy.name)
            return None

    def _doubts(self, session: "Session", policy: "CompiledPolicy | None") -> "Doubts | None":
        from edge_agent.escalation.doubts import Doubts
        from edge_agent.escalation.phrasing import Phrasing

        escalation = policy.policy.escalation if policy else None
        if escalation is None:
            return None
        phrasing = Phrasing(session.manifest, self._time_factor)
        return Doubts(session.digest, escalation, phrasing, self._desk, self._clock, self._health)


def _report(session: "Session", policy: "CompiledPolicy | None") -> ModelReport:
    manifest = session.manifest
    return ModelReport(
        name=manifest.name,
        version=manifest.version,
        release=manifest.release,
        digest=session.digest,
        runtime=session.runtime,
        isolation=session.isolation,
        policy=f"{policy.policy.name} {policy.policy.version}" if policy else "",
    )
