"""Opens the models while readings already flow, and exchanges one for another while they flow on.

Opening a model takes its time (the golden check above all), so it is done in a thread; the thread
lives as long as the agent, because a worker process dies with the thread that started it. A new
version is opened in a worker of its own and examined there; the pipeline then takes exactly what was
examined, between two samples.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from edge_agent.clock import Clock
from edge_agent.config import Model as ModelConfig
from edge_agent.errors import InferenceError, ModelRefused, UpdateUnfit
from edge_agent.escalation.desk import Desk
from edge_agent.lineup import Choice, Fitting, line_up
from edge_agent.pipeline.vitals import Vitals
from edge_agent.service.board import used_by_mib, used_memory_mib
from edge_agent.service.health import HealthBoard
from edge_agent.shadows import Acting, Shadows, pace_of, require_metrics
from edge_agent.updates import budget
from edge_agent.updates.budget import Pace
from edge_agent.updates.records import Installed
from edge_agent.updates.store import Store, read_policy
from fleet_protocol.errors import PolicyError
from fleet_protocol.manifest import Runtime
from fleet_protocol.messages import ModelReport
from fleet_protocol.targets import Kind
from fleet_protocol.texts import _

if TYPE_CHECKING:
    # CEL and what else the pipeline needs are loaded by an agent that has a model, not by others.
    from edge_agent.inference.process import Worker
    from edge_agent.inference.session import Session
    from edge_agent.pipeline.pipeline import Model, Pipeline
    from fleet_protocol.manifest import Manifest
    from fleet_protocol.policy import CompiledPolicy

_LOG: Final = logging.getLogger(__name__)

_POLICY_REFUSED: Final = "policy.refused"

T = TypeVar("T")

Use = Callable[["Pipeline", list[ModelReport]], None]
"""Takes the pipeline over, and what to report of its models; again after every exchange."""


class _Open(NamedTuple):
    """An open model: the choice that it is, its session, and whether it lives in the shared worker."""

    choice: Choice
    session: "Session"
    shared: bool


@dataclass(slots=True)
class _Place:
    """What runs under one name."""

    open: _Open
    policy_choice: Choice | None
    policy: "CompiledPolicy | None"


@dataclass(frozen=True, slots=True)
class Setting:
    """What all models of an agent share: their world's pace, the desk for doubts, runtimes by preference.

    ``memory_mib``: what the profile allows agent and workers together; None is no limit.
    """

    time_factor: float
    clock: Clock
    desk: Desk
    runtimes: Sequence[Runtime] = tuple(Runtime)
    memory_mib: int | None = None


class Models:
    """The open models of one agent; what cannot be opened is a health code, and the rest work."""

    def __init__(
        self,
        configs: Sequence[ModelConfig],
        health: HealthBoard,
        setting: Setting,
        store: Store,
        installed: Callable[[], Installed],
    ) -> None:
        self._configs = configs
        self._health = health
        self._setting = setting
        self._store = store
        self._installed = installed
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="models")
        self._worker: Worker | None = None
        self._places: dict[str, _Place] = {}
        self._examined: _Open | None = None
        self._pipeline: Pipeline | None = None
        self._use: Use = lambda _pipeline, _reports: None
        self.shadows: Final = Shadows(
            setting.time_factor, setting.runtimes, setting.memory_mib, Acting(self._piped, self._paces)
        )
        self.ready: Final = asyncio.Event()
        """Set once the pipeline is in use."""

    async def run(self, use: Use) -> None:
        """Open all models, then hand the pipeline over them to ``use``; without any, nothing yet."""
        self._use, self._pipeline = use, None
        self.ready.clear()
        self._close_models()
        for fitting in await self._in_thread(self._fittings):
            try:
                opened = await self._in_thread(partial(self._best, fitting))
            except InferenceError:
                continue
            self._places[fitting.name] = await self._in_thread(partial(self._placed, fitting, opened))
        if self._configs or self._places:
            self._piped()
            self._hand_over()
            self.shadows.rejoin()
        self.ready.set()

    async def examine(self, name: str, choice: Choice, metrics: frozenset[str]) -> None:
        """Open the model in ``choice`` beside what runs, on its golden inputs; it is kept for :meth:`bring`.

        Args:
            name: the model's name.
            choice: where it lies.
            metrics: what the sensors of this device measure.

        Raises:
            InferenceError: it does not answer as it should, or not on this board.
            UpdateUnfit: no sensor measures what it looks at, the policy here cannot read its answers, or it
                takes more time or memory than there is.
        """
        self.forget()
        fitting = await self._in_thread(lambda: self._fitting(name))
        opened = await self._in_thread(lambda: self._opened(fitting, choice, shared=False))
        try:
            require_metrics(opened.session.manifest, metrics)
            await self._in_thread(lambda: self._require_room(fitting, opened.session))
            await self._in_thread(lambda: self._require_readable(fitting, opened.session.manifest))
        except BaseException:
            self._give_back(opened)
            raise
        self._examined = opened

    async def compile(self, model: str, choice: Choice) -> None:
        """Compile the policy in ``choice`` for the answers of the ``model`` that runs.

        Raises:
            UpdateUnfit: no such model runs, or it does not fit its answers.
        """
        place = self._places.get(model)
        if place is None:
            raise UpdateUnfit(_("no model {model!r} runs here; install it first").format(model=model))
        manifest = place.open.session.manifest
        try:
            await self._in_thread(lambda: _compiled(choice, manifest))
        except (PolicyError, OSError) as error:
            raise UpdateUnfit(str(error)) from error

    async def bring(self, name: str, kind: Kind) -> None:
        """Make the pipeline run what is installed under the model's ``name`` now, between two samples.

        Args:
            name: the model's name, also where its policy is what changed.
            kind: what changed.

        Raises:
            InferenceError: of this kind the first choice cannot be used; another runs, or what ran before.
        """
        pipeline = self._piped()
        fitting = await self._in_thread(lambda: self._fitting(name))
        before = self._places.get(name)
        if not fitting.models:
            if before is not None:
                del self._places[name]
                pipeline.remove(name)
                self._give_back(before.open)
                self._hand_over()
            return
        opened = await self._in_thread(partial(self._best, fitting))
        place = await self._in_thread(partial(self._placed, fitting, opened))
        if before is None or (before.open, before.policy_choice) != (place.open, place.policy_choice):
            self._places[name] = place
            pipeline.replace(self._model(place))
            if before is not None and before.open is not opened:
                self._give_back(before.open)
            self._hand_over()
        wanted: tuple[Choice, ...] = fitting.models
        runs: Choice | None = opened.choice
        if kind is Kind.POLICY:
            wanted, runs = fitting.policies, place.policy_choice
        if wanted and runs != wanted[0]:
            raise ModelRefused(_("{name}: another version runs in its place").format(name=name))

    def vitals(self, name: str) -> Vitals:
        """How the model called ``name`` and its policy have done since they took their place."""
        return self._pipeline.vitals(name) if self._pipeline else Vitals()

    def usual(self, name: str) -> Vitals:
        """What is usual of the model called ``name`` and its policy at present."""
        return self._pipeline.usual(name) if self._pipeline else Vitals()

    def forget(self) -> None:
        """Close what was examined and not brought."""
        examined, self._examined = self._examined, None
        if examined is not None:
            self._give_back(examined)

    def close(self) -> None:
        """Give the models and the worker process back."""
        self.shadows.close()
        self.forget()
        self._close_models()
        if self._worker is not None:
            self._worker.close()
            self._worker = None
        self._thread.shutdown(wait=False)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _piped(self) -> "Pipeline":
        """The pipeline; an agent whose models all come later builds it with the first."""
        from edge_agent.pipeline.pipeline import Pipeline

        if self._pipeline is None:
            models = list(map(self._model, self._places.values()))
            self._pipeline = Pipeline(models, self._health, self._setting.time_factor)
        return self._pipeline

    def _model(self, place: _Place) -> "Model":
        """What the pipeline needs of ``place``: its doubts, where its policy has an escalation table."""
        from edge_agent.escalation.doubts import Doubts
        from edge_agent.escalation.phrasing import Phrasing
        from edge_agent.pipeline.pipeline import Model

        session, setting = place.open.session, self._setting
        escalation = place.policy.policy.escalation if place.policy else None
        if escalation is None:
            return Model(session, place.policy)
        phrasing = Phrasing(session.manifest, setting.time_factor)
        doubts = Doubts(session.digest, escalation, phrasing, setting.desk, setting.clock, self._health)
        return Model(session, place.policy, doubts)

    def _close_models(self) -> None:
        """Also before a second attempt: a model that is open twice would answer twice."""
        for place in self._places.values():
            place.open.session.close()
        self._places.clear()

    def _give_back(self, opened: _Open) -> None:
        """Close a model; the shared worker goes with the last one that it hosts."""
        opened.session.close()
        shared = [place.open for place in self._places.values() if place.open.shared]
        if opened.shared and not shared and self._worker is not None:
            self._worker.close()
            self._worker = None

    def _hand_over(self) -> None:
        self._use(self._piped(), list(map(_report, self._places.values())))

    def _fittings(self) -> list[Fitting]:
        return line_up(self._configs, self._installed(), self._store)

    def _fitting(self, name: str) -> Fitting:
        return next((each for each in self._fittings() if each.name == name), Fitting(name, (), ()))

    def _at_hand(self, fitting: Fitting, choice: Choice) -> _Open | None:
        """What is open already: it runs, or it was examined."""
        place = self._places.get(fitting.name)
        if place is not None and place.open.choice == choice:
            return place.open
        if self._examined is not None and self._examined.choice == choice:
            examined, self._examined = self._examined, None
            return examined
        return None

    def _best(self, fitting: Fitting) -> _Open:
        """The first of the choices that opens; those that do not are told."""
        refused: InferenceError = ModelRefused(_("{name}: nothing to open").format(name=fitting.name))
        for choice in fitting.models:
            subject = choice.path.name if not choice.sha256 else fitting.name
            try:
                opened = self._at_hand(fitting, choice) or self._opened(
                    fitting, choice, shared=not self.ready.is_set()
                )
            except InferenceError as error:
                self._health.raise_code(error.code or ModelRefused.code, str(error), subject=subject)
                refused = error
            else:
                if choice == fitting.models[0]:
                    self._health.clear(ModelRefused.code, subject=subject)
                return opened
        raise refused

    def _opened(self, fitting: Fitting, choice: Choice, *, shared: bool) -> _Open:
        from edge_agent.inference.process import Worker
        from edge_agent.inference.session import open_session

        shared &= fitting.isolation == "worker"
        if shared and self._worker is None:
            self._worker = Worker()
        session = open_session(
            choice.path,
            isolation=fitting.isolation,
            runtime=fitting.runtime,
            preferred=self._setting.runtimes,
            worker=self._worker if shared else None,
        )
        _LOG.info(
            _("model {name} {version} answers on {runtime}").format(
                name=session.manifest.name, version=session.manifest.version, runtime=session.runtime
            )
        )
        return _Open(choice, session, shared)

    def _placed(self, fitting: Fitting, opened: _Open) -> _Place:
        """``opened`` with the first of the policies that fits it; those that do not are told.

        They are told under the model's name: every installed policy has the same file name.
        """
        for choice in fitting.policies:
            try:
                policy = _compiled(choice, opened.session.manifest)
            except (PolicyError, OSError) as error:
                self._health.raise_code(_POLICY_REFUSED, str(error), subject=fitting.name)
                continue
            if choice == fitting.policies[0]:
                self._health.clear(_POLICY_REFUSED, subject=fitting.name)
            return _Place(opened, choice, policy)
        if not fitting.policies:
            self._health.clear(_POLICY_REFUSED, subject=fitting.name)
        return _Place(opened, None, None)

    def _paces(self) -> dict[str, Pace]:
        return {
            name: pace_of(place.open.session, self._setting.time_factor)
            for name, place in self._places.items()
        }

    def _require_room(self, fitting: Fitting, session: "Session") -> None:
        """There must be time and memory for it once the version that runs has gone.

        What a model takes that lives in the agent's own process cannot be told apart, and is not counted.
        """
        budget.require_time(fitting.name, pace_of(session, self._setting.time_factor))
        if self._setting.memory_mib is None or session.pid is None:
            return
        place = self._places.get(fitting.name)
        goes = place.open.session.pid if place and not place.open.shared else None
        all_mib = used_memory_mib()
        used_mib = all_mib - used_by_mib(session.pid)
        needed_mib = all_mib - (used_by_mib(goes) if goes else 0)
        budget.require_memory(fitting.name, needed_mib, used_mib, self._setting.memory_mib)

    def _require_readable(self, fitting: Fitting, manifest: "Manifest") -> None:
        """The policy that runs must go on running: a model that would silence its alarms is not taken."""
        place = self._places.get(fitting.name)
        if place is None or place.policy_choice is None:
            return
        try:
            _compiled(place.policy_choice, manifest)
        except (PolicyError, OSError) as error:
            raise UpdateUnfit(
                _("the policy here does not fit it ({reason}); publish one that fits both first").format(
                    reason=error
                )
            ) from error


def _compiled(choice: Choice, manifest: "Manifest") -> "CompiledPolicy":
    from fleet_protocol.policy import CompiledPolicy, parse

    if choice.sha256:
        return CompiledPolicy(read_policy(choice.path, choice.sha256), manifest)
    return CompiledPolicy(parse(choice.path.read_bytes()), manifest)


def _report(place: _Place) -> ModelReport:
    session, policy = place.open.session, place.policy
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
