"""Opening a model and asking it: choose the runtime, examine it, and hide where it runs."""

import importlib.util
import mmap
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, Protocol

import msgspec

from edge_agent.errors import InferenceError, ModelRefused, RuntimeMissing
from edge_agent.inference import wire
from edge_agent.inference.bundle import Bundle, read_bundle
from edge_agent.inference.process import Placed, Worker
from fleet_protocol.manifest import Manifest, Runtime
from fleet_protocol.texts import _

if TYPE_CHECKING:
    from edge_agent.inference.answers import Scored, Vector

Isolation = Literal["worker", "none"]

Window = memoryview
"""Float32 numbers (format ``f``), oldest first."""

PACKAGES: Final = {
    Runtime.LITERT: "ai_edge_litert",
    Runtime.OPENVINO: "openvino",
    Runtime.TFLITE: "tflite_runtime",
}
"""The package to look for; looking does not import it."""

_CLEARLY_FASTER: Final = 0.8
"""Of the time that a preferred runtime takes. Within that, timings on a busy board are chance, and a
model that changes its runtime from start to start changes its answers in the last digits."""


class Answer(msgspec.Struct, frozen=True, gc=False):
    """What a model says to one window; ``latency_us`` is the whole call, as the caller waited."""

    label: str
    score: float
    confidence: float
    latency_us: int


class Session(Protocol):
    """An open model that passed its golden check."""

    manifest: Manifest
    digest: str
    """SHA-256 of ``manifest.json`` in hex."""
    runtime: Runtime
    isolation: Isolation
    golden_us: float
    """Median microseconds that a golden input took here as it was opened."""

    @property
    def pid(self) -> int | None:
        """The worker process that it lives in; none where that is this one, or is just being started."""

    def infer(self, windows: Sequence[Window]) -> Answer:
        """The answer for one window a feature, each of the feature's ``window`` length.

        Raises:
            InferenceError: no answer to these windows; the session can be asked again.
        """

    def close(self) -> None:
        """Give the model back."""


def open_session(
    folder: Path,
    *,
    isolation: Isolation = "worker",
    runtime: Runtime | None = None,
    preferred: Sequence[Runtime] = tuple(Runtime),
    worker: Worker | None = None,
) -> Session:
    """Open the model in ``folder``.

    Of several runtimes in ``preferred`` that the manifest allows and that are installed, each is
    tried on the golden inputs in a process of its own. The first of them that is right wins, unless
    a later one is clearly faster; ``runtime`` names one instead, in ``preferred`` or not. Without
    isolation even a single one is tried so first: what kills a runtime is met while it loads.
    ``worker`` is shared with other models; else an isolated model gets its own.

    Raises:
        RuntimeMissing: no allowed runtime is preferred and installed.
        ModelRefused: the files or the golden inputs fail, or loading killed the worker.
    """
    bundle = read_bundle(folder)
    candidates = _candidates(bundle.manifest, runtime, preferred)
    if isolation == "none":
        return DirectSession(bundle, *_choose(bundle, candidates))
    # One that stands alone is examined where it will run.
    chosen = candidates[0] if len(candidates) == 1 else _choose(bundle, candidates)[0]
    host = worker or Worker()
    try:
        return WorkerSession(bundle, chosen, host, owned=worker is None)
    except BaseException:
        if worker is None:
            host.close()
        raise


class DirectSession:
    """The model in this process: fastest, and a crash in native code is the agent's."""

    isolation: Isolation = "none"
    pid: int | None = None

    def __init__(self, bundle: Bundle, runtime: Runtime, golden_us: float) -> None:
        """Load the model, which was examined in another process, and with it NumPy and the runtime."""
        import numpy as np

        from edge_agent.inference.engine import Engine

        self.manifest, self.digest, self.runtime = bundle.manifest, bundle.digest, runtime
        self.golden_us = golden_us
        self._infer: Callable[[Sequence[Vector]], Scored] = Engine(bundle, runtime).infer
        self._labels: Final = self.manifest.output.labels
        self._numbers: Final = np.frombuffer
        self._types: Final = [np.float32] * len(self.manifest.features)

    def infer(self, windows: Sequence[Window]) -> Answer:
        """See :class:`Session`."""
        started = time.perf_counter_ns()
        try:
            label, score, confidence = self._infer(list(map(self._numbers, windows, self._types)))
        except (RuntimeError, ValueError, SystemError) as error:
            raise InferenceError(f"{self.manifest.name}: {error}") from error
        return Answer(self._labels[label], score, confidence, (time.perf_counter_ns() - started) // 1000)

    def close(self) -> None:
        """See :class:`Session`; the runtime goes with the last reference."""
        del self._infer


class WorkerSession:
    """The model in a worker process; windows and answers lie in memory that both map."""

    isolation: Isolation = "worker"

    def __init__(self, bundle: Bundle, runtime: Runtime, worker: Worker, *, owned: bool) -> None:
        self.manifest, self.digest, self.runtime = bundle.manifest, bundle.digest, runtime
        layout = wire.Layout(self.manifest)
        self._worker: Final = worker
        self._owned: Final = owned
        self._placed: Final = worker.load(bundle.folder, runtime, layout)
        _require_same(bundle, self._placed)
        self.golden_us = self._placed.median_us
        self._memory: Final = mmap.mmap(self._placed.region, layout.size)
        self._view: Final = memoryview(self._memory)
        self._windows: Final = [self._view[place].cast("f") for place in layout.windows]
        self._read: Final = wire.ANSWER.unpack_from
        self._place: Final = layout.answer
        self._reason_place: Final = slice(layout.reason, layout.reason + wire.MAX_REASON)
        self._labels: Final = self.manifest.output.labels

    @property
    def pid(self) -> int | None:
        """See :class:`Session`."""
        return self._worker.pid

    def infer(self, windows: Sequence[Window]) -> Answer:
        """See :class:`Session`. Raises WorkerCrashed where the worker died or hung over it."""
        started = time.perf_counter_ns()
        for mine, given in zip(self._windows, windows, strict=True):
            mine[:] = given
        self._worker.call(self._placed)
        state, label, score, confidence = self._read(self._memory, self._place)
        if state != wire.ANSWERED:
            raise InferenceError(self._reason())
        return Answer(self._labels[label], score, confidence, (time.perf_counter_ns() - started) // 1000)

    def close(self) -> None:
        """See :class:`Session`; a shared worker keeps the model until it is closed itself."""
        for view in self._windows:
            view.release()
        self._view.release()
        self._memory.close()
        if self._owned:
            self._worker.close()

    def _reason(self) -> str:
        text = bytes(self._view[self._reason_place])
        return text.rstrip(b"\0").decode(errors="replace")


def _require_same(bundle: Bundle, placed: Placed) -> None:
    if placed.digest != bundle.digest:
        raise ModelRefused(_("{folder} changed while it was opened").format(folder=bundle.folder))


def _candidates(manifest: Manifest, wanted: Runtime | None, preferred: Sequence[Runtime]) -> list[Runtime]:
    """The runtimes that the model allows, that were asked for, and that are installed, best first."""
    allowed = [each for each in Runtime if manifest.variant(each)]
    if wanted is not None and wanted not in allowed:
        raise ModelRefused(
            _("{model}: no variant for {runtime}; it has {allowed}").format(
                model=manifest.name, runtime=wanted, allowed=", ".join(allowed)
            )
        )
    asked = [each for each in preferred if each in allowed] if wanted is None else [wanted]
    if not asked:
        raise RuntimeMissing(
            _("{model} needs {runtimes}; this board's profile has {preferred}").format(
                model=manifest.name, runtimes=_(" or ").join(allowed), preferred=_(" or ").join(preferred)
            )
        )
    found = [each for each in asked if importlib.util.find_spec(PACKAGES[each])]
    if not found:
        raise RuntimeMissing(
            _("{model} needs {runtimes}, not installed here; install 'argan[{first}]'").format(
                model=manifest.name, runtimes=_(" or ").join(asked), first=asked[0]
            )
        )
    return found


def _choose(bundle: Bundle, candidates: list[Runtime]) -> tuple[Runtime, float]:
    """The first runtime that is right, or a later one that is clearly faster; with its median microseconds.

    Raises:
        RuntimeMissing: one was tried, and it does not import.
        ModelRefused: none is right.
    """
    speeds: dict[Runtime, float] = {}
    refusals: list[InferenceError] = []
    for each in candidates:
        try:
            speeds[each] = _try(bundle, each)
        except InferenceError as error:
            refusals.append(error)
    if not speeds and len(refusals) == 1:
        raise refusals[0]
    if not speeds:
        raise ModelRefused("; ".join(map(str, refusals)))
    chosen = next(iter(speeds))
    for each, median_us in speeds.items():
        if median_us < _CLEARLY_FASTER * speeds[chosen]:
            chosen = each
    return chosen, speeds[chosen]


def _try(bundle: Bundle, runtime: Runtime) -> float:
    """Median microseconds a golden input takes, in a process that is gone afterwards."""
    worker = Worker()
    try:
        placed = worker.load(bundle.folder, runtime, wire.Layout(bundle.manifest))
        _require_same(bundle, placed)
        return placed.median_us
    finally:
        worker.close()
