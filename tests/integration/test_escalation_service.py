"""The escalation service in a real server, asked by devices that follow the protocol, and by others."""

import math
import secrets
import signal
import time
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from fleet_protocol.messages import (
    MAX_PAYLOAD,
    Answer,
    AnswerState,
    ClockState,
    Metric,
    Reading,
    Series,
    Telemetry,
    decode,
    encode,
)
from fleet_protocol.topics import Channel, topic
from fleet_server.escalation.folder import open_folder
from tests.support import oip_server, triton
from tests.support.batches import base, telemetry
from tests.support.central import expected, write_central
from tests.support.escalating import next_answer, put, question
from tests.support.fleet_broker import Identity, MqttClient, connected
from tests.support.fleet_server import ServerProcess, add, approve_waiting, deliver
from tests.support.waiting import free_port, wait_until

GATEWAYS = ("gw-a", "gw-b", "gw-c")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("central")
    write_central(folder, GATEWAYS)
    return folder


class Fleet:
    """A server and its devices."""

    def __init__(self, server: ServerProcess, folder: Path) -> None:
        self.server = server
        self._folder = folder
        self.identities: dict[str, Identity] = {}

    def identity(self, name: str) -> Identity:
        if name not in self.identities:
            self.identities[name] = add(self.server, name, self._folder / name)
        return self.identities[name]

    @contextmanager
    def device(self, name: str) -> Iterator[MqttClient]:
        """A device that listens to its answers."""
        with connected(self.server.endpoints["mqtt_port"], self.identity(name)) as device:
            assert device.subscribe(topic(name, Channel.ANSWER)) == "accepted"
            yield device

    def escalations(self, device: str) -> list[dict[str, Any]]:
        items = self.server.get("/v1/escalations", limit=1000)["items"]
        return [item for item in items if item["device"] == device]

    def refusal(self, device: str) -> str:
        """Why the device's last message was refused."""

        def told() -> str:
            page = self.server.get(f"/v1/devices/{device}")["device"]["health"]
            return next((item["detail"] for item in page if item["code"] == "message.refused"), "")

        return wait_until(told, "the refusal is told")


@contextmanager
def running(folder: Path, *options: str) -> Iterator[Fleet]:
    server = ServerProcess(folder / "data", *options)
    server.start()
    try:
        yield Fleet(server, folder)
    finally:
        server.end()


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Iterator[Fleet]:
    with running(tmp_path_factory.mktemp("server"), "--central-model", str(folder)) as fleet:
        yield fleet


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def measured(
    fleet: Fleet, name: str, value: float, *, unit: str = "l/s", until_ms: int | None = None
) -> None:
    """The device delivers one value a second, for the last ten, until now or ``until_ms``."""
    now = base(until_ms or now_ms())
    readings = [Reading(0, -500 - 1000 * second, value) for second in range(10)]
    batch = Telemetry(secrets.token_hex(8), 1, now, [Metric(0, "flow", unit)], readings, [])
    deliver(fleet.server, fleet.identity(name), encode(batch))


def test_it_answers_with_the_whole_networks_windows(fleet: Fleet) -> None:
    """The asker's own window comes along; what the neighbor measured is in the database."""
    at_ms = now_ms()
    measured(fleet, "gw-b", 5.0, until_ms=at_ms)
    measured(fleet, "gw-c", 70.0, unit="m3/h", until_ms=at_ms)
    with fleet.device("gw-a") as device:
        asked = question(values=[1.0] * 4, wall_ms=at_ms)
        put(device, "gw-a", asked)
        message = device.received.get(timeout=10)
    answer = decode(Channel.ANSWER, message.payload)
    assert isinstance(answer, Answer)
    assert message.properties.CorrelationData == bytes.fromhex(asked.id)
    assert message.properties.MessageExpiryInterval <= 5
    assert (answer.id, answer.state, answer.label) == (asked.id, AnswerState.ANSWERED, "gw-b")
    probabilities = expected([1.0, 5.0, 0.0])
    assert answer.confidence == pytest.approx(probabilities[2], abs=1e-5)
    assert answer.score == pytest.approx(1 - probabilities[0], abs=1e-5)
    assert (answer.model, answer.version, answer.reason) == ("network", "7", "")


def test_the_askers_own_window_wins_over_what_is_stored(fleet: Fleet) -> None:
    at_ms = now_ms()
    measured(fleet, "gw-a", 3.0, until_ms=at_ms)
    measured(fleet, "gw-b", 5.0, until_ms=at_ms)
    with fleet.device("gw-a") as device:
        put(device, "gw-a", question(values=[9.0, 9.0], wall_ms=at_ms))
        half = next_answer(device)
        put(device, "gw-a", question(values=[100.0] * 3 + [9.0] * 4, wall_ms=at_ms))
        whole = next_answer(device)
    assert half.label == whole.label == "gw-a"
    # Two steps of 3 from the database and two of 9 from the question.
    assert half.confidence == pytest.approx(expected([6.0, 5.0, 0.0])[1], abs=1e-4)
    assert whole.confidence == pytest.approx(expected([9.0, 5.0, 0.0])[1], abs=1e-4)


def test_the_same_question_twice_gives_the_first_answer(fleet: Fleet) -> None:
    with fleet.device("gw-a") as device:
        asked = question(values=[7.0] * 4)
        put(device, "gw-a", asked)
        first = next_answer(device)
        # Replayed with other numbers, by whoever: what was said stands.
        put(device, "gw-a", question(values=[0.0] * 4, id=asked.id))
        assert next_answer(device) == first
        put(device, "gw-a", asked)
        assert next_answer(device) == first
    assert len([one for one in fleet.escalations("gw-a") if one["id"] == asked.id]) == 1


def test_twice_at_once_is_answered_once(fleet: Fleet) -> None:
    with fleet.device("gw-a") as device:
        asked = question()
        for _time in range(3):
            put(device, "gw-a", asked)
        first = next_answer(device)
        put(device, "gw-a", question())
        others = [next_answer(device)]
        while others[-1].id == asked.id:
            assert others[-1] == first
            others.append(next_answer(device))
    assert len([one for one in fleet.escalations("gw-a") if one["id"] == asked.id]) == 1


def test_another_device_may_use_the_same_id(fleet: Fleet) -> None:
    asked = question(values=[8.0] * 4)
    for name in ("gw-b", "gw-c"):
        with fleet.device(name) as device:
            put(device, name, asked)
            assert next_answer(device).label == name


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model": "other"}, "does not serve other"),
        ({"series": [Series("flow", array("f", [1.0, math.nan]).tobytes())]}, "no number"),
        ({"series": [Series("flow", array("f", [1.0, -math.inf]).tobytes())]}, "no number"),
        ({"series": [Series("flow", b"12345")]}, "no number"),
        ({"series": [Series("flow", b""), Series("flow", b"")]}, "twice"),
        ({"series": [Series("secret", b"")]}, "no metric"),
        ({"step_ms": 1e-9}, "not of this model"),
        ({"step_ms": math.inf}, "not of this model"),
        ({"step_ms": 1e12}, "not of this model"),
    ],
)
def test_a_question_that_cannot_be_asked_is_refused_with_the_reason(
    fleet: Fleet, changes: dict[str, Any], reason: str
) -> None:
    with fleet.device("gw-a") as device:
        asked = question(**changes)
        put(device, "gw-a", asked)
        answer = next_answer(device)
        assert (answer.id, answer.state) == (asked.id, AnswerState.REFUSED)
        assert reason in answer.reason
        put(device, "gw-a", question())
        assert next_answer(device).state is AnswerState.ANSWERED


def test_numbers_as_large_as_they_get_are_answered_or_told(fleet: Fleet) -> None:
    """The model's own arithmetic overflows; that is said, and nothing else suffers."""
    with fleet.device("gw-a") as device:
        put(device, "gw-a", question(values=[3.4e38] * 4))
        answer = next_answer(device)
        assert answer.state in {AnswerState.FAILED, AnswerState.ANSWERED}
        assert 0.0 <= answer.confidence <= 1.0
        put(device, "gw-a", question())
        assert next_answer(device).state is AnswerState.ANSWERED


def test_a_device_that_the_model_does_not_know_is_refused(fleet: Fleet) -> None:
    with fleet.device("gw-stranger") as device:
        put(device, "gw-stranger", question())
        answer = next_answer(device)
    assert (answer.state, answer.reason) == (
        AnswerState.REFUSED,
        "the central model does not know this device",
    )


def test_a_clock_of_1970_dates_no_window(fleet: Fleet) -> None:
    measured(fleet, "gw-b", 5.0)
    with fleet.device("gw-c") as device:
        put(device, "gw-c", question(values=[1.0] * 4, wall_ms=5, clock=ClockState.UNTRUSTED))
        assert next_answer(device).label == "gw-b"
        put(device, "gw-c", question(values=[1.0] * 4, wall_ms=2**45))
        assert next_answer(device).label == "gw-b"


def silent_after(device: MqttClient, name: str) -> None:
    """Whatever was sent before had no answer: the next question's comes first."""
    asked = question()
    put(device, name, asked)
    assert next_answer(device).id == asked.id


@pytest.mark.attack
def test_an_answer_is_reflected_to_nobody_else(fleet: Fleet) -> None:
    """A device that names another's topic would have the server speak to it."""
    with fleet.device("gw-a") as victim, fleet.device("gw-b") as attacker:
        for response in (topic("gw-a", Channel.ANSWER), topic("gw-a", Channel.COMMAND), "elsewhere", ""):
            put(attacker, "gw-b", question(), response=response)
        silent_after(attacker, "gw-b")
        silent_after(victim, "gw-a")
    assert "response topic is not the device's own" in fleet.refusal("gw-b")


@pytest.mark.attack
@pytest.mark.parametrize("response", [Channel.ACK, Channel.COMMAND, Channel.HINT])
def test_an_answer_passes_for_no_command(fleet: Fleet, response: Channel) -> None:
    with fleet.device("gw-c") as device:
        assert device.subscribe(topic("gw-c", response)) == "accepted"
        put(device, "gw-c", question(), response=topic("gw-c", response))
        silent_after(device, "gw-c")


@pytest.mark.attack
def test_a_key_that_is_not_the_questions_is_refused(fleet: Fleet) -> None:
    with fleet.device("gw-b") as device:
        for correlation in (b"", b"x" * 16, b"x" * 1000):
            put(device, "gw-b", question(), correlation=correlation)
        silent_after(device, "gw-b")
    assert "correlation data" in fleet.refusal("gw-b")


@pytest.mark.attack
def test_a_retained_question_is_refused(fleet: Fleet) -> None:
    with fleet.device("gw-c") as device:
        put(device, "gw-c", question(), retain=True)
        silent_after(device, "gw-c")
    assert "retained" in fleet.refusal("gw-c")


@pytest.mark.attack
def test_what_is_too_long_cuts_its_sender_off_or_is_refused(fleet: Fleet) -> None:
    with fleet.device("gw-b") as device:
        long = question(series=[Series("flow", bytes(MAX_PAYLOAD))])
        put(device, "gw-b", long)
        silent_after(device, "gw-b")
        assert "travel over MQTT" in fleet.refusal("gw-b")
        put(device, "gw-b", question(series=[Series("flow", bytes(2 * MAX_PAYLOAD))]))
        assert device.gone.wait(10)
    with fleet.device("gw-b") as device:
        silent_after(device, "gw-b")


@pytest.mark.attack
def test_bytes_that_are_no_question_are_refused(fleet: Fleet) -> None:
    with fleet.device("gw-a") as device:
        for payload in (b"", b"\xff" * 100, b"{}", encode(telemetry(1))):
            device.client.publish(topic("gw-a", Channel.REQUEST), payload, qos=1)
        silent_after(device, "gw-a")
    assert fleet.refusal("gw-a")


def test_a_killed_service_gets_its_questions_again(fleet: Fleet) -> None:
    with fleet.device("gw-a") as device:
        put(device, "gw-a", question())
        next_answer(device)
        killed = fleet.server.children()["escalation"]
        killed.send_signal(signal.SIGKILL)
        asked = [question(deadline_ms=60_000) for _number in range(5)]
        for one in asked:
            put(device, "gw-a", one)
        answers = [next_answer(device, 40) for _number in asked]
    assert {one.id for one in answers} == {one.id for one in asked}
    assert {one.state for one in answers} == {AnswerState.ANSWERED}
    assert fleet.server.children()["escalation"].pid != killed.pid


def test_a_question_that_lay_in_the_broker_until_its_deadline_is_told_as_late(fleet: Fleet) -> None:
    """The expiry that is left says how long it lay there: here, all of the deadline but a millisecond."""
    with fleet.device("gw-a") as device:
        put(device, "gw-a", question(deadline_ms=86_399_001), expiry_s=1)
        late = next_answer(device)
    assert (late.state, late.model) == (AnswerState.LATE, "")


def test_the_list_of_escalations_goes_back_page_by_page(fleet: Fleet) -> None:
    with fleet.device("gw-b") as device:
        for _number in range(5):
            put(device, "gw-b", question())
            next_answer(device)
    whole = fleet.server.get("/v1/escalations", limit=1000)
    assert whole["next_after"] is None
    found, after = [], ""
    while after is not None:
        page = fleet.server.get("/v1/escalations", limit=2, after=after)
        found += page["items"]
        after = page["next_after"]
    assert found == whole["items"]
    times = [item["received_ms"] for item in found]
    assert times == sorted(times, reverse=True)
    newest = found[0]
    assert newest["answered_by"] == "network 7 (openvino)"
    assert newest["answered_ms"] >= newest["received_ms"]
    assert (newest["device"], newest["model"], newest["state"]) == ("gw-b", "autoencoder", "answered")
    with fleet.server.client() as client:
        assert client.get("/v1/escalations", params={"after": "x"}).status_code == 422


@pytest.mark.attack
def test_who_asks_too_often_is_refused_and_the_others_are_not(tmp_path: Path, folder: Path) -> None:
    options = ("--central-model", str(folder), "--device-questions-per-hour", "18")
    with running(tmp_path, *options) as fleet, fleet.device("gw-a") as device:
        for _number in range(5):
            put(device, "gw-a", question())
        states = [next_answer(device) for _number in range(5)]
        assert [one.state for one in states].count(AnswerState.ANSWERED) == 3
        refused = next(one for one in states if one.state is AnswerState.REFUSED)
        assert refused.reason == "this device has used up what it may ask"
        with fleet.device("gw-b") as other:
            put(other, "gw-b", question())
            assert next_answer(other).state is AnswerState.ANSWERED
        budget = {"device_per_hour": 3600.0, "tenant_per_hour": 36000.0, "reason": "a storm"}
        with fleet.server.client() as client:
            assert client.put("/v1/escalations/budget", json=budget).status_code == 202
        approve_waiting(fleet.server.data)
        assert fleet.server.get("/v1/escalations/budget") | {"reason": "a storm"} == budget

        def is_answered() -> bool:
            put(device, "gw-a", question())
            return next_answer(device).state is AnswerState.ANSWERED

        wait_until(is_answered, "the new budget holds, without a restart", 20.0)


def test_a_server_without_a_central_model_says_so(tmp_path: Path) -> None:
    with running(tmp_path) as fleet, fleet.device("gw-a") as device:
        put(device, "gw-a", question())
        answer = next_answer(device)
        assert answer.state is AnswerState.REFUSED
        assert "--central-model" in answer.reason
        assert fleet.server.codes() == set()


def test_a_broken_central_model_is_a_health_code_until_it_is_mended(tmp_path: Path) -> None:
    broken = tmp_path / "central"
    write_central(broken, GATEWAYS)
    good = (broken / "network.xml").read_bytes()
    (broken / "network.xml").write_bytes(good + b" ")
    with running(tmp_path, "--central-model", str(broken)) as fleet, fleet.device("gw-a") as device:
        wait_until(lambda: "escalation.down" in fleet.server.codes(), "the broken model is told")
        put(device, "gw-a", question())
        assert "network.xml is not the file" in next_answer(device).reason
        (broken / "network.xml").write_bytes(good)
        wait_until(lambda: fleet.server.codes() == set(), "it is opened again", 40)
        put(device, "gw-a", question())
        assert next_answer(device).state is AnswerState.ANSWERED


def test_an_inference_server_that_is_slow_or_goes_away(tmp_path: Path, folder: Path) -> None:
    port = free_port()
    manifest = open_folder(folder).manifest
    options = ("--central-model", str(folder), "--inference-url", f"http://127.0.0.1:{port}")
    with oip_server.serving(manifest, port) as server, running(tmp_path, *options) as fleet:
        with fleet.device("gw-a") as device:
            put(device, "gw-a", question())
            assert next_answer(device).state is AnswerState.ANSWERED
            server.held.clear()
            put(device, "gw-a", question(deadline_ms=400))
            assert next_answer(device).state is AnswerState.LATE
            server.held.set()
        with fleet.device("gw-b") as device:
            server.misbehave = hang_up
            put(device, "gw-b", question())
            answer = next_answer(device)
            assert answer.state is AnswerState.FAILED
            assert "broke off" in answer.reason
            wait_until(lambda: "escalation.down" in fleet.server.codes(), "it is told")
            server.misbehave = None
            put(device, "gw-b", question())
            assert next_answer(device).state is AnswerState.ANSWERED
            wait_until(lambda: fleet.server.codes() == set(), "it is over")


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    handler.close_connection = True


@pytest.mark.triton
def test_triton_answers_for_the_service_and_a_killed_one_is_told(tmp_path: Path, folder: Path) -> None:
    if not triton.is_installed():
        pytest.skip("NVIDIA Triton is not installed; run scripts/bootstrap tests")
    (tmp_path / "triton").mkdir()
    with triton.serving(tmp_path / "triton", folder) as (url, process):
        options = ("--central-model", str(folder), "--inference-url", url)
        with running(tmp_path, *options) as fleet, fleet.device("gw-a") as device:
            put(device, "gw-a", question(values=[9.0] * 4))
            answer = next_answer(device)
            assert (answer.state, answer.label) == (AnswerState.ANSWERED, "gw-a")
            assert answer.confidence == pytest.approx(expected([9.0, 0.0, 0.0])[1], abs=1e-5)
            (item,) = fleet.escalations("gw-a")
            assert item["answered_by"] == f"network 7 ({url})"
            process.kill()
            process.wait()
            put(device, "gw-a", question())
            answer = next_answer(device)
            assert (answer.state, "cannot be reached" in answer.reason) == (AnswerState.FAILED, True)
            wait_until(lambda: "escalation.down" in fleet.server.codes(), "it is told")
