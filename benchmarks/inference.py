"""The agent's path from window to answer against a bare loop over the runtime, on the same int8 files.

Everything is measured in turns within one run, so that a busy machine is busy for all; what is
reported is the median over the turns of the difference *within* a turn. The caller is pinned to
one core except where it says otherwise; the worker follows the caller. A tight loop keeps every
cache warm for what it repeats, so the same is also measured at a pace, where nothing is warm.
"""

import os
import signal
import tempfile
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from itertools import count
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Final

import numpy as np

from benchmarks import autoencoder, bundles
from edge_agent.errors import WorkerCrashed
from edge_agent.inference.process import Worker
from edge_agent.inference.session import Session, open_session
from edge_agent.pipeline.pipeline import Model, Pipeline
from edge_agent.pipeline.rules import Rules
from edge_agent.sensors.base import MetricSpec, Sample
from fleet_protocol import manifest as mf
from fleet_protocol import policy as pl
from fleet_protocol.messages import MetricKind, Quality

TURNS: Final = 60
CALLS: Final = 60
"""Calls of each kind in a turn; a turn counts with their median."""

PACED_TURNS: Final = 8
PACED_CALLS: Final = 25
PACE_S: Final = 0.003

CRASHES: Final = 4
"""One fewer than the agent takes for an accident."""

ELEMENTS: Final = 512
WATER: Final = Path(__file__).parents[1] / "use_cases" / "water_network" / "models"

Call = Callable[[], object]
Windows = list[memoryview]

RULES: Final = """
format = 1
name = "benchmark"
version = "1"
release = 1
model = "{model}"
[[rules]]
name = "first"
when = "label == '{alarm}' && score > 0.9 && reading.{metric} > -1000.0"
for_windows = 3
outcome = "event"
[[rules]]
name = "second"
when = "confidence < 0.6 || (score > 0.4 && score < 0.5)"
outcome = "uncertain"
cooldown_s = 3600
[[rules]]
name = "third"
when = "reading.{metric} > 1000.0 && label != '{alarm}'"
outcome = "event"
cooldown_s = 3600
"""


def measure() -> dict[str, object]:
    """Every model on every runtime that takes it, and what a crash of the worker costs."""
    with tempfile.TemporaryDirectory() as place:
        folders = _folders(Path(place))
        results: dict[str, object] = {
            f"{name} on {runtime}": _model(folder, runtime)
            for name, folder in folders.items()
            for runtime in (mf.Runtime.LITERT, mf.Runtime.OPENVINO)
            if mf.parse((folder / "manifest.json").read_bytes()).variant(runtime)
        }
        results["crash"] = _crash(folders["autoencoder"])
    return results


def _folders(place: Path) -> dict[str, Path]:
    autoencoder.write_bundle(place / "autoencoder", ELEMENTS)
    folders = {"autoencoder": place / "autoencoder"}
    for model in bundles.WAKE_WORDS:
        bundles.write_wake_word(place / model.stem, model)
        folders[model.stem] = place / model.stem
    return folders | {path.parent.name: path.parent for path in sorted(WATER.glob("*/manifest.json"))}


def _model(folder: Path, runtime: mf.Runtime) -> dict[str, object]:
    with ExitStack() as stack:
        here = stack.enter_context(closing(open_session(folder, isolation="none", runtime=runtime)))
        apart = stack.enter_context(closing(open_session(folder, isolation="worker", runtime=runtime)))
        manifest = here.manifest
        windows = _windows(manifest)
        calls = {
            "raw": _raw(folder, manifest, runtime),
            "in_process": lambda: here.infer(windows),
            "with_rules": _with_rules(here, windows),
            "whole_step": _whole_step(here, windows),
            "worker": lambda: apart.infer(windows),
            "worker_unpinned": lambda: apart.infer(windows),
        }
        warm = _turns(calls)
        paced = _turns(
            {name: calls[name] for name in ("raw", "in_process", "worker")}, PACED_TURNS, PACED_CALLS, PACE_S
        )
    given = manifest.variant(runtime)
    return {
        "window_numbers": sum(feature.window for feature in manifest.features),
        "input": f"{given.input.dtype} {list(given.input.shape)}" if given else "",
        "features": ", ".join(feature.kind for feature in manifest.features),
        **{f"{name}_us": _summary(turns) for name, turns in warm.items()},
        "in_process_over_raw_us": _difference(warm, "in_process", "raw"),
        "in_process_to_raw_ratio": _ratio(warm, "in_process", "raw"),
        "with_three_rules_over_raw_us": _difference(warm, "with_rules", "raw"),
        "whole_step_over_raw_us": _difference(warm, "whole_step", "raw"),
        "worker_over_in_process_us": _difference(warm, "worker", "in_process"),
        "worker_unpinned_over_in_process_us": _difference(warm, "worker_unpinned", "in_process"),
        "at_a_pace": {
            **{f"{name}_us": _summary(turns) for name, turns in paced.items()},
            "in_process_over_raw_us": _difference(paced, "in_process", "raw"),
            "worker_over_in_process_us": _difference(paced, "worker", "in_process"),
        },
    }


def _turns(
    calls: dict[str, Call], turns: int = TURNS, repeats: int = CALLS, pause_s: float = 0.0
) -> dict[str, list[float]]:
    """Median microseconds of each call, turn by turn."""
    timings: dict[str, list[float]] = {name: [] for name in calls}
    with _pinned() as unpinned:
        for _turn in range(turns):
            for name, call in calls.items():
                with unpinned() if name.endswith("unpinned") else ExitStack():
                    call()
                    timings[name].append(median(_timed(call, pause_s) for _each in range(repeats)))
    return timings


def _timed(call: Call, pause_s: float) -> float:
    if pause_s:
        time.sleep(pause_s)
    started = time.perf_counter_ns()
    call()
    return (time.perf_counter_ns() - started) / 1000


@contextmanager
def _pinned() -> Iterator[Callable[[], Any]]:
    """Keep this thread on one core; what it gives lifts that for a while."""
    allowed = os.sched_getaffinity(0)
    core = {max(allowed)}

    @contextmanager
    def unpinned() -> Iterator[None]:
        os.sched_setaffinity(0, allowed)
        try:
            yield
        finally:
            os.sched_setaffinity(0, core)

    os.sched_setaffinity(0, core)
    try:
        yield unpinned
    finally:
        os.sched_setaffinity(0, allowed)


def _windows(manifest: mf.Manifest) -> Windows:
    random = np.random.default_rng(2)
    return [
        memoryview(array("f", random.normal(feature.center, feature.scale, feature.window).tolist()))
        for feature in manifest.features
    ]


def _raw(folder: Path, manifest: mf.Manifest, runtime: mf.Runtime) -> Call:
    """The bare loop: the input is there in the model's own format, the output is left as it is."""
    variant = manifest.variant(runtime)
    if variant is None:
        raise ValueError(runtime)
    given = np.zeros(variant.input.shape, dtype=str(variant.input.dtype))
    if runtime is mf.Runtime.LITERT:
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(model_path=str(folder / variant.file), num_threads=1)
        interpreter.allocate_tensors()
        put, take = (
            details[0]["index"]
            for details in (interpreter.get_input_details(), interpreter.get_output_details())
        )

        def run() -> object:
            interpreter.set_tensor(put, given)
            interpreter.invoke()
            return interpreter.get_tensor(take)

        return run
    return _raw_openvino(folder / variant.file, given, manifest.precision)


def _raw_openvino(path: Path, given: Any, precision: mf.Precision) -> Call:
    import openvino

    core = openvino.Core()
    model = core.read_model(path)
    model.reshape(list(given.shape))
    settings = {
        "INFERENCE_PRECISION_HINT": precision.value,
        "INFERENCE_NUM_THREADS": 1,
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,
    }
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    request.set_input_tensor(openvino.Tensor(given, shared_memory=True))

    def run() -> object:
        return request.infer(share_outputs=True)

    return run


class _Silence:
    """A health board that nobody looks at."""

    def raise_code(self, code: str, detail: str = "", *, subject: str = "") -> None:
        raise AssertionError(f"{code} {subject} {detail}")

    def clear(self, code: str, *, subject: str = "") -> None:
        raise AssertionError(f"{code} {subject}")


def _policy(manifest: mf.Manifest) -> pl.CompiledPolicy:
    rules = RULES.format(
        model=manifest.name, alarm=manifest.output.alarm_label, metric=manifest.features[0].metric
    )
    return pl.CompiledPolicy(pl.parse(rules.encode()), manifest)


def _with_rules(session: Session, windows: Windows) -> Call:
    """Window to answer, and three rules on it."""
    rules = Rules(_policy(session.manifest))
    readings = {f"reading.{feature.metric}": 1.0 for feature in session.manifest.features}

    def run() -> object:
        answer = session.infer(windows)
        facts: dict[str, pl.Value] = {
            "label": answer.label,
            "score": answer.score,
            "confidence": answer.confidence,
            **readings,
        }
        return rules.judge(facts, 0)

    return run


def _whole_step(session: Session, windows: Windows) -> Call:
    """One step of the pipeline: a sample of each metric, buckets, model, three rules, telemetry."""
    manifest = session.manifest
    values = {
        MetricSpec(feature.metric, "1", MetricKind.GAUGE): list(window)
        for feature, window in zip(manifest.features, windows, strict=True)
    }
    # One second a step, however long the model's own is.
    pipeline = Pipeline([Model(session, _policy(manifest))], _Silence(), time_factor=manifest.step_s)
    steps = count()

    def step() -> object:
        place = next(steps)
        mono_ms = place * 1000
        samples = [
            Sample(metric, numbers[place % len(numbers)], Quality.GOOD, mono_ms)
            for metric, numbers in values.items()
        ]
        return pipeline.process(samples, mono_ms)

    for _each in range(max(feature.window for feature in manifest.features) + 1):
        step()
    return step


def _crash(folder: Path) -> dict[str, object]:
    """From the signal to the next good answer of a successor."""
    told, answered = [], []
    with closing(Worker()) as worker:
        session = open_session(folder, runtime=mf.Runtime.LITERT, worker=worker)
        windows = _windows(session.manifest)
        before = session.infer(windows)
        for _crash in range(CRASHES):
            began = time.perf_counter()
            os.kill(worker.pid or 0, signal.SIGSEGV)
            try:
                session.infer(windows)
            except WorkerCrashed:
                told.append((time.perf_counter() - began) * 1000)
            answer = session.infer(windows)
            answered.append((time.perf_counter() - began) * 1000)
            if (answer.label, answer.score) != (before.label, before.score):
                raise AssertionError(answer)
        session.close()
    return {
        "crashes": CRASHES,
        "told_ms": round(median(told), 1),
        "next_answer_ms": round(median(answered), 1),
        "worst_next_answer_ms": round(max(answered), 1),
    }


def _summary(turns: list[float]) -> dict[str, float]:
    low, middle, high = (round(each, 2) for each in quantiles(turns, n=4))
    return {"median": middle, "lower_quartile": low, "upper_quartile": high}


def _difference(timings: dict[str, list[float]], one: str, other: str) -> dict[str, float]:
    return _summary([a - b for a, b in zip(timings[one], timings[other], strict=True)])


def _ratio(timings: dict[str, list[float]], one: str, other: str) -> float:
    return round(median(a / b for a, b in zip(timings[one], timings[other], strict=True)), 2)
