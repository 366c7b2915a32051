"""Models in shadow: opened, asked and closed each in a thread and a worker of its own.

Nothing here is waited for by what acts. A shadow that hangs holds up its own thread, one that crashes
takes its own worker with it, and the worker yields the processor to everybody else.
"""

import asyncio
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from edge_agent.errors import InferenceError, UpdateUnfit
from edge_agent.pipeline.vitals import Vitals
from edge_agent.service.board import used_memory_mib
from edge_agent.updates import budget
from edge_agent.updates.budget import Pace
from fleet_protocol.manifest import Manifest, Runtime
from fleet_protocol.messages import Inference, ShadowReport
from fleet_protocol.texts import _

if TYPE_CHECKING:
    from edge_agent.inference.process import Worker
    from edge_agent.inference.session import Answer, Session
    from edge_agent.lineup import Choice
    from edge_agent.pipeline.pipeline import Pipeline
    from edge_agent.pipeline.shadow import Shadow, Told

NICENESS: Final = 10
"""Of a shadow's worker: it gets what processor time is left over."""

WAITING: Final = 32
"""Windows that a shadow has been asked about and not answered; further ones it misses. A busy board makes it
late before it makes it fail."""

T = TypeVar("T")


@dataclass(slots=True)
class _Open:
    """One shadow; ``shadow`` once it has joined."""

    choice: "Choice"
    session: "Session"
    worker: "Worker"
    thread: ThreadPoolExecutor
    waiting: int = 0
    shadow: "Shadow | None" = field(default=None)


@dataclass(frozen=True, slots=True)
class Acting:
    """What the shadows need of the models that act: the pipeline, and the pace of each by its name."""

    pipeline: "Callable[[], Pipeline]"
    paces: Callable[[], dict[str, Pace]]


class Shadows:
    """The models in shadow of one agent."""

    def __init__(
        self, time_factor: float, runtimes: Sequence[Runtime], memory_mib: int | None, acting: Acting
    ) -> None:
        """``memory_mib``: what the profile allows agent and workers together; None is no limit."""
        self._time_factor: Final = time_factor
        self._runtimes: Final = runtimes
        self._memory_mib: Final = memory_mib
        self._acting: Final = acting
        self._places: Final[dict[str, _Open]] = {}
        self._examined: _Open | None = None
        self.record: Callable[[Inference, int], None] = lambda _inference, _mono_ms: None
        """Takes every answer, as of monotonic ms."""

    async def examine(self, name: str, choice: "Choice", metrics: frozenset[str]) -> None:
        """Open the model in ``choice``, on its golden inputs and within what the board has left for it.

        Raises:
            InferenceError: it does not answer as it should, or not on this board.
            UpdateUnfit: nothing acts under this name, no sensor measures what it looks at, or there is no
                time or memory left for it.
        """
        await self.forget()
        beside = self._acting.paces()
        if name not in beside:
            raise UpdateUnfit(
                _("no model {name!r} acts here that it could be held against; install one first").format(
                    name=name
                )
            )
        used_mib = await asyncio.to_thread(used_memory_mib)
        opened = await self._open(choice)
        try:
            manifest = opened.session.manifest
            require_metrics(manifest, metrics)
            others = [each.session for place, each in self._places.items() if place != name]
            paces = [*beside.values(), *(pace_of(each, self._time_factor) for each in others)]
            budget.require_time(name, pace_of(opened.session, self._time_factor), paces)
            if self._memory_mib is not None:
                needed_mib = await asyncio.to_thread(used_memory_mib)
                budget.require_memory(name, needed_mib, used_mib, self._memory_mib)
        except BaseException:
            await _close(opened)
            raise
        self._examined = opened

    async def bring(self, name: str, choice: "Choice | None") -> None:
        """Let what is in ``choice`` run in shadow of the model called ``name``; None is nothing.

        Raises:
            InferenceError: it cannot be opened; nothing runs in shadow then.
        """
        before = self._places.get(name)
        if before is not None and before.choice == choice:
            return
        await self._end(name)
        if choice is None:
            return
        opened = self._at_hand(choice) or await self._open(choice)
        self._places[name] = opened
        self._join(name, opened)

    async def keep(self, digests: AbstractSet[str]) -> None:
        """End every shadow whose artifact is none of ``digests``."""
        for name in [name for name, each in self._places.items() if each.choice.sha256 not in digests]:
            await self._end(name)

    def rejoin(self) -> None:
        """Let every shadow run beside the models of a new pipeline."""
        for name, opened in self._places.items():
            self._join(name, opened)

    def vitals(self, name: str) -> Vitals:
        """How what runs in shadow of the model called ``name`` has done."""
        opened = self._places.get(name)
        return opened.shadow.pulse.read() if opened and opened.shadow else Vitals()

    def reports(self) -> list[ShadowReport]:
        """How every shadow compares with what acts."""
        return [each.shadow.report() for each in self._places.values() if each.shadow]

    async def forget(self) -> None:
        """Close what was examined and not brought."""
        examined, self._examined = self._examined, None
        if examined is not None:
            await _close(examined)

    def close(self) -> None:
        """End every shadow at once."""
        for opened in (*self._places.values(), *([self._examined] if self._examined else [])):
            opened.thread.shutdown(wait=False, cancel_futures=True)
            opened.worker.close()
        self._places.clear()
        self._examined = None

    async def _end(self, name: str) -> None:
        opened = self._places.pop(name, None)
        if opened is not None:
            self._acting.pipeline().part(name)
            await _close(opened)

    def _at_hand(self, choice: "Choice") -> _Open | None:
        if self._examined is None or self._examined.choice != choice:
            return None
        examined, self._examined = self._examined, None
        return examined

    async def _open(self, choice: "Choice") -> _Open:
        # A worker dies with the thread that started it.
        thread = ThreadPoolExecutor(1, thread_name_prefix="shadow")
        try:
            return await _in(thread, partial(_opened, choice, self._runtimes, thread))
        except BaseException:
            thread.shutdown(wait=False)
            raise

    def _join(self, name: str, opened: _Open) -> None:
        from edge_agent.pipeline.shadow import Shadow

        if opened.shadow is None:
            ask = partial(self._ask, name, opened)
            opened.shadow = Shadow(opened.session, self._time_factor, ask, self._note)
        self._acting.pipeline().join(opened.shadow)

    def _note(self, inference: Inference, mono_ms: int) -> None:
        self.record(inference, mono_ms)

    def _ask(self, name: str, opened: _Open, windows: "Sequence[memoryview]", told: "Told") -> bool:
        if opened.waiting >= WAITING:
            return False
        opened.waiting += 1

        def done(answer: "asyncio.Future[Answer | None]") -> None:
            opened.waiting -= 1
            if not answer.cancelled() and self._places.get(name) is opened:
                told(answer.result())

        _in(opened.thread, partial(_infer, opened.session, windows)).add_done_callback(done)
        return True


def pace_of(session: "Session", time_factor: float) -> Pace:
    """What an answer of ``session`` takes in a world ``time_factor`` times as fast."""
    return Pace(session.golden_us, session.manifest.step_s * 1e6 / time_factor)


def require_metrics(manifest: Manifest, metrics: frozenset[str]) -> None:
    """See to it that a sensor measures everything that the model looks at.

    Raises:
        UpdateUnfit: none does.
    """
    missing = sorted({feature.metric for feature in manifest.features} - metrics)
    if missing:
        raise UpdateUnfit(
            _("{name} looks at {missing}, which no sensor here measures").format(
                name=manifest.name, missing=", ".join(missing)
            )
        )


def _in(thread: ThreadPoolExecutor, work: Callable[[], T]) -> "asyncio.Future[T]":
    return asyncio.get_running_loop().run_in_executor(thread, work)


def _opened(choice: "Choice", runtimes: Sequence[Runtime], thread: ThreadPoolExecutor) -> _Open:
    from edge_agent.inference.process import Worker
    from edge_agent.inference.session import open_session

    worker = Worker(NICENESS)
    try:
        return _Open(choice, open_session(choice.path, preferred=runtimes, worker=worker), worker, thread)
    except BaseException:
        worker.close()
        raise


def _infer(session: "Session", windows: "Sequence[memoryview]") -> "Answer | None":
    try:
        return session.infer(windows)
    except InferenceError:
        return None


async def _close(opened: _Open) -> None:
    """In its own thread, after what it was still asked."""

    def close() -> None:
        opened.session.close()
        opened.worker.close()

    await asyncio.shield(_in(opened.thread, close))
    opened.thread.shutdown(wait=False)
