"""A question from device to answer, against the bare call of the model behind it, in the same run.

*Whole* is a real server: MQTT over mutual TLS, admission, the windows of fifteen gateways from the
database (eight days of two metrics every quarter of an hour), the model, the answer committed and
sent. *Bare* is the call of the backend alone, with the same tensors. One question at a time gives
the latencies; many at once the rate.

``python -m benchmarks.escalation --device cuda`` has NVIDIA Triton run the model on a GPU, ``--triton``
on the CPU; else it runs in the service itself. Never measured on a GPU so far.
"""

import argparse
import json
import math
import tempfile
import time
from array import array
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Final

from benchmarks.machine import describe, now
from fleet_protocol.central import MASK, READINGS, CentralManifest
from fleet_protocol.messages import Answer, AnswerState, Metric, Reading, Series, Telemetry, decode, encode
from fleet_protocol.topics import Channel, topic
from fleet_server.escalation.backend import InferenceBackend, Tensor
from fleet_server.escalation.folder import open_folder
from tests.support import triton
from tests.support.batches import base
from tests.support.central import write_central
from tests.support.escalating import put, question
from tests.support.fleet_broker import MqttClient, connected
from tests.support.fleet_server import ServerProcess, add, deliver

GATEWAYS: Final = tuple(f"bench-{number}" for number in range(15))
STEPS: Final = 768
STEP_MS: Final = 1000
QUESTIONS: Final = 200
AT_ONCE: Final = 32
_METRICS: Final = (Metric(0, "flow", "l/s"), Metric(1, "pressure", "m"))


def measure(device: str = "cpu", *, with_triton: bool = False) -> dict[str, object]:
    """Both, in turns; times in ms."""
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/tmp")))
        write_central(place / "central", GATEWAYS, steps=STEPS, step_s=900.0)
        manifest = open_folder(place / "central").manifest
        url = None
        if with_triton or device != "cpu":
            (place / "triton").mkdir()
            serving = triton.serving(place / "triton", place / "central", device)
            url, _process = stack.enter_context(serving)
        bare = _backend(place / "central", url)
        stack.callback(bare.close)
        server = stack.enter_context(_server(place, url))
        client = stack.enter_context(_device(server, place))
        _fill(server, place)
        return _compared(bare, manifest, client)


@contextmanager
def _server(place: Path, url: str | None) -> Iterator[ServerProcess]:
    options = ["--central-model", str(place / "central"), "--device-questions-per-hour", "1000000"]
    options += ["--tenant-questions-per-hour", "1000000"]
    options += ["--inference-url", url] if url else []
    server = ServerProcess(place / "data", *options)
    server.start()
    try:
        yield server
    finally:
        server.end()


@contextmanager
def _device(server: ServerProcess, place: Path) -> Iterator[MqttClient]:
    identity = add(server, GATEWAYS[0], place / GATEWAYS[0])
    with connected(server.endpoints["mqtt_port"], identity) as client:
        client.subscribe(topic(GATEWAYS[0], Channel.ANSWER))
        yield client


def _fill(server: ServerProcess, place: Path) -> None:
    """Eight days of every other gateway, as recent as a question's window."""
    for name in GATEWAYS[1:]:
        identity = add(server, name, place / name)
        readings = [
            Reading(metric.id, -STEP_MS * step, math.sin(step / 15))
            for step in range(STEPS)
            for metric in _METRICS
        ]
        moment = base(time.time_ns() // 1_000_000)
        batch = Telemetry(f"{GATEWAYS.index(name):016x}", 1, moment, list(_METRICS), readings, [])
        deliver(server, identity, encode(batch))


def _backend(folder: Path, url: str | None) -> InferenceBackend:
    if url is not None:
        from fleet_server.escalation.oip import OipBackend

        return OipBackend(url)
    from fleet_server.escalation.openvino import OpenVinoBackend

    return OpenVinoBackend(open_folder(folder), 1)


def _compared(bare: InferenceBackend, manifest: CentralManifest, client: MqttClient) -> dict[str, object]:
    numbers = bytes(4 * math.prod(manifest.shape))
    tensors = {name: Tensor(manifest.shape, numbers) for name in (READINGS, MASK)}
    bare_ms: list[float] = []
    whole_ms: list[float] = []
    for _number in range(QUESTIONS):
        began = time.perf_counter()
        bare.infer(manifest.name, tensors, time.monotonic() + 10.0)
        bare_ms.append(1000 * (time.perf_counter() - began))
        began = time.perf_counter()
        _ask(client, 1)
        whole_ms.append(1000 * (time.perf_counter() - began))
    began = time.perf_counter()
    for _round in range(QUESTIONS // AT_ONCE):
        _ask(client, AT_ONCE)
    seconds = time.perf_counter() - began
    return {
        "questions": QUESTIONS,
        "bare": _summary(bare_ms),
        "whole": _summary(whole_ms),
        "whole_over_bare": round(median(whole_ms) / median(bare_ms), 2),
        "answers_per_s": round(QUESTIONS // AT_ONCE * AT_ONCE / seconds, 1),
    }


def _ask(client: MqttClient, count: int) -> None:
    """Ask ``count`` questions at once and wait for every answer."""
    window = array("f", [1.0] * STEPS).tobytes()
    for _number in range(count):
        series = [Series(metric.name, window) for metric in _METRICS]
        put(client, GATEWAYS[0], question(series=series, step_ms=float(STEP_MS)))
    for _number in range(count):
        answer = decode(Channel.ANSWER, bytes(client.received.get(timeout=30).payload))
        assert isinstance(answer, Answer)
        assert answer.state is AnswerState.ANSWERED, answer


def _summary(times_ms: list[float]) -> dict[str, float]:
    return {
        "p50_ms": round(median(times_ms), 3),
        "p99_ms": round(quantiles(times_ms, n=100)[98], 3),
    }


def main() -> None:
    """Measure, and print one JSON document."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.escalation", description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--triton", action="store_true", help="have Triton run the model on the CPU too")
    arguments = parser.parse_args()
    began = now()
    results: dict[str, Any] = measure(arguments.device, with_triton=arguments.triton)
    print(json.dumps({"benchmark": "escalation", "results": results, "machine": describe(began)}, indent=2))


if __name__ == "__main__":
    main()
