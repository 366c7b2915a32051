"""What the agent remembers for whoever is on site, what it redacts, its socket, and its bundle."""

import asyncio
import json
import math
import socket
import stat
import tarfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from edge_agent.config import Broker, Config
from edge_agent.errors import LocalError, NotAvailable, SensorEnded, SensorTimeout
from edge_agent.sensors.base import Sample
from edge_agent.sensors.poller import Poller
from edge_agent.service import bundle, local_api
from edge_agent.service.bundle import Source
from edge_agent.service.health import HealthBoard
from edge_agent.service.json_rpc import MAX_REQUEST
from edge_agent.service.local_api import CONNECTIONS, LocalApi
from edge_agent.service.log_tail import LINE, LINES, LogTail
from edge_agent.service.recent import EVENTS, HISTORY, Recent
from edge_agent.service.redaction import REDACTED, redacted, redacted_text
from fleet_protocol.messages import Event, Inference, Quality, Severity
from tests.support.drafts import FLOW, PRESSURE, HandClock
from tests.support.rpc import Talk, talking
from tests.support.waiting import wait_until


class TestRecent:
    def test_the_newest_of_each_metric_with_a_bounded_history(self) -> None:
        recent = Recent()
        for number in range(HISTORY + 30):
            recent.see([Sample(FLOW, float(number), Quality.GOOD, 1000 + number)])
        recent.see([Sample(FLOW, None, Quality.BAD, 2000), Sample(PRESSURE, 3.5, Quality.SUSPECT, 2000)])
        flow, pressure = recent.values(2500)
        assert (flow.metric, flow.value, flow.quality, flow.age_ms) == ("flow", None, Quality.BAD, 500)
        assert (pressure.unit, pressure.value) == ("m", 3.5)
        history = recent.history()["flow"]
        assert len(history) == HISTORY
        assert history[-2] == HISTORY + 29
        assert math.isnan(history[-1])

    def test_answers_and_events_are_bounded_and_know_their_age(self) -> None:
        recent = Recent()
        for number in range(EVENTS + 5):
            answer = Inference(-10, f"m{number}", "1", "normal", 0.1, 0.9, 100)
            recent.conclude([answer], [Event(0, f"e{number}", Severity.INFO, "", "policy", {})], number)
        assert len(recent.inferences(EVENTS)) == 64
        events = recent.events(EVENTS + 4)
        assert (len(events), events[0].name, events[-1].name) == (EVENTS, "e5", f"e{EVENTS + 4}")
        assert (events[0].age_ms, events[-1].age_ms) == (EVENTS - 1, 0)
        assert {each.model: each.age_ms for each in recent.inferences(200)}[f"m{EVENTS}"] == 110


class _Sensor:
    """Gives what its script says; an exception is raised."""

    name = "cabinet"
    kind = "script"
    metrics = (FLOW,)
    interval_s = 0.001

    def __init__(self, *script: Any) -> None:
        self._script = list(script)
        self.polling = 0

    async def poll(self) -> list[Sample]:
        self.polling += 1
        assert self.polling == 1, "two polls at one time"
        await asyncio.sleep(0)
        self.polling -= 1
        step = self._script.pop(0)
        if isinstance(step, Exception):
            raise step
        return [step]

    async def close(self) -> None:
        return


class TestReadingNow:
    def test_what_is_read_now_is_recorded_and_never_beside_another_poll(self) -> None:
        clock, taken = HandClock(), []

        async def take(samples: list[Sample]) -> None:
            taken.append(samples[0].value)

        async def read_all() -> list[Any]:
            samples = [Sample(FLOW, float(n), Quality.GOOD, 0) for n in range(4)]
            poller = Poller(_Sensor(*samples), clock, HealthBoard(clock), take)
            return await asyncio.gather(*(poller.read() for _ in range(4)))

        read = asyncio.run(read_all())
        assert [samples[0].value for samples in read] == taken == [0.0, 1.0, 2.0, 3.0]

    def test_a_failure_is_raised_told_and_recorded_as_bad(self) -> None:
        clock, taken = HandClock(), []
        board = HealthBoard(clock)

        async def take(samples: list[Sample]) -> None:
            taken.extend(samples)

        poller = Poller(_Sensor(SensorTimeout("no answer"), SensorEnded("over")), clock, board, take)
        with pytest.raises(SensorTimeout):
            asyncio.run(poller.read())
        assert [(sample.value, sample.quality) for sample in taken] == [(None, Quality.BAD)]
        assert [report.code for report in board.reports()] == ["sensor.timeout"]
        for _ in range(2):
            with pytest.raises(SensorEnded):
                asyncio.run(poller.read())
        assert len(taken) == 1


PEM = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIabc\nxyz\n-----END EC PRIVATE KEY-----"


class TestRedaction:
    @pytest.mark.parametrize(
        ("text", "secret"),
        [
            (f"read {PEM} here", "MHcCAQEEIabc"),
            ("-----BEGIN PRIVATE KEY-----\nMHcCAQ", "MHcCAQ"),
            ("Authorization: Bearer abcdef0123456789", "abcdef0123456789"),
            ("https://user:hunter2@host/x", "hunter2"),
            ("mqtt_password = hunter2, next", "hunter2"),
            ("api-key: s3cr3t", "s3cr3t"),
            ("got eyJhbGciOi.eyJzdWIi.sig_nature", "eyJzdWIi"),
        ],
    )
    def test_secrets_are_cut_out_by_their_shape(self, text: str, secret: str) -> None:
        assert secret not in redacted_text(text)
        assert REDACTED in redacted_text(text)

    def test_ordinary_words_stay(self) -> None:
        text = "2026-11-24 WARNING link.down: broker localhost:8883 [Errno 111] at https://host:8443/v1"
        assert redacted_text(text) == text

    def test_documents_by_the_names_of_their_values(self) -> None:
        document = {"broker": {"password": "x", "host": "h"}, "list": [{"token": "t"}, PEM], "secret": 4}
        assert redacted(document) == {
            "broker": {"password": REDACTED, "host": "h"},
            "list": [{"token": REDACTED}, REDACTED],
            "secret": 4,
        }


def test_the_tail_of_the_log_is_bounded() -> None:
    import logging

    tail = LogTail()
    logger = logging.Logger("test")  # noqa: LOG001 - a logger of its own
    logger.addHandler(tail)
    for number in range(LINES + 10):
        logger.warning("line %d %s", number, "x" * LINE)
    lines = tail.text.splitlines()
    assert len(lines) == LINES
    assert "line 10 " in lines[0]
    assert max(map(len, lines)) == LINE


def config(folder: Path) -> Config:
    broker = Broker(host="fleet.example", ca=folder / "ca.pem", certificate=folder / "c", key=folder / "k")
    return Config(device="gw-01", data=folder / "data", broker=broker)


STATUS: Mapping[str, Any] = {
    "device": "gw-01",
    "health": [
        {"code": "link.down", "since_wall_ms": 1, "detail": "https://me:hunter2@broker"},
        {"code": "from.the_future", "since_wall_ms": 2, "detail": ""},
    ],
}


class TestBundle:
    def test_what_it_holds_and_what_it_does_not(self, tmp_path: Path) -> None:
        updates = tmp_path / "data" / "updates"
        updates.mkdir(parents=True)
        (updates / "journal.json").write_text('{"state": "probation", "token": "hunter2"}')
        (updates / "marks.json").write_text("{broken")
        source = Source(config(tmp_path), STATUS, f"a line\n{PEM}\n")
        written = bundle.write(tmp_path / "b.tar.gz", source)
        with tarfile.open(tmp_path / "b.tar.gz") as archive:
            assert [member.name for member in archive] == list(written.files)
            found = {name: archive.extractfile(name).read().decode() for name in written.files}  # type: ignore[union-attr]
        assert json.loads(found["updates/journal.json"])["state"] == "probation"
        assert "unreadable" in found["updates/marks.json"]
        health = json.loads(found["health.json"])
        assert health[0]["title"] == "No link to the broker"
        assert health[1]["code"] == "from.the_future"
        assert json.loads(found["versions.json"])["packages"]["msgspec"]
        assert json.loads(found["config.json"])["device"] == "gw-01"
        everything = "".join(found.values())
        assert "hunter2" not in everything
        assert "BEGIN" not in everything
        assert stat.S_IMODE((tmp_path / "b.tar.gz").stat().st_mode) == 0o600
        assert len(written.id) == 8

    @pytest.mark.parametrize("name", ["there.tar.gz", "missing/b.tar.gz", "b.zip", "link.tar.gz"])
    def test_it_is_written_nowhere_else(self, tmp_path: Path, name: str) -> None:
        (tmp_path / "there.tar.gz").write_text("mine")
        (tmp_path / "link.tar.gz").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(LocalError):
            bundle.write(tmp_path / name, Source(config(tmp_path), STATUS, ""))
        assert (tmp_path / "there.tar.gz").read_text() == "mine"
        assert not (tmp_path / "elsewhere").exists()


async def _echo(params: Mapping[str, Any]) -> Any:
    return dict(params)


async def _fail(params: Mapping[str, Any]) -> Any:
    raise {"refused": LocalError("no"), "missing": NotAvailable("none"), "bug": ZeroDivisionError("0")}[
        params["how"]
    ]


async def _large(params: Mapping[str, Any]) -> Any:
    return "x" * 8_000_000


METHODS = {"echo": _echo, "fail": _fail, "large": _large}


@contextmanager
def serving(folder: Path) -> Iterator[None]:
    """The API in a loop of its own; ended as the agent ends it."""
    loop = asyncio.new_event_loop()
    task = loop.create_task(LocalApi(folder, METHODS).run())

    def work() -> None:
        with pytest.raises(asyncio.CancelledError):
            loop.run_until_complete(task)
        loop.close()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        wait_until(lambda: answers(folder), "the socket answers")
        yield
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join(10)
        assert not thread.is_alive()


def answers(folder: Path) -> bool:
    try:
        with talking(folder) as talk:
            return bool(talk.result("echo") == {})
    except (OSError, AssertionError):
        return False


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder with a served socket, whose path is longer than a socket's name may be."""
    folder = tmp_path / ("d" * 120)
    folder.mkdir()
    with serving(folder):
        yield folder


class TestSocket:
    def test_one_request_after_the_other(self, folder: Path) -> None:
        with talking(folder) as talk:
            assert talk.ask("echo", a=[1]) == {"jsonrpc": "2.0", "id": 7, "result": {"a": [1]}}
            talk.send(b'{"jsonrpc":"2.0","method":"echo"}\n{"jsonrpc":"2.0","id":"x","method":"echo"}\n')
            assert talk.line() == {"jsonrpc": "2.0", "id": "x", "result": {}}

    def test_only_its_owner_may_open_it_and_it_goes_with_the_agent(self, tmp_path: Path) -> None:
        with serving(tmp_path):
            assert stat.S_IMODE((tmp_path / "agent.sock").stat().st_mode) == 0o600
        assert not (tmp_path / "agent.sock").exists()

    def test_a_dead_agents_socket_is_replaced(self, tmp_path: Path) -> None:
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(tmp_path / "agent.sock"))
        with serving(tmp_path):
            assert answers(tmp_path)

    def test_what_is_no_socket_is_left_alone(self, tmp_path: Path) -> None:
        (tmp_path / "agent.sock").write_text("precious")
        with pytest.raises(LocalError, match="is no socket"):
            asyncio.run(LocalApi(tmp_path, METHODS).run())
        assert (tmp_path / "agent.sock").read_text() == "precious"

    @pytest.mark.parametrize(
        ("line", "code", "call_id"),
        [
            (b"", -32700, None),
            (b"\xff\xfe\x00", -32700, None),
            (b"{" * 30_000, -32700, None),
            (b"[" * 60_000, -32700, None),
            (b"null", -32600, None),
            (b"[]", -32600, None),
            (b'{"jsonrpc":"1.0","id":3,"method":"echo"}', -32600, 3),
            (b'{"jsonrpc":"2.0","id":3}', -32600, 3),
            (b'{"jsonrpc":"2.0","id":{},"method":"echo"}', -32600, None),
            (b'{"jsonrpc":"2.0","id":3,"method":"echo","params":[1]}', -32600, 3),
            (b'{"jsonrpc":"2.0","id":1e400,"method":"echo"}', -32700, None),
            (b'{"jsonrpc":"2.0","id":3,"method":"' + b"m" * 65 + b'"}', -32600, 3),
            (b'{"jsonrpc":"2.0","id":3,"method":"none"}', -32601, 3),
            (b'{"jsonrpc":"2.0","id":3,"method":"fail","params":{"how":"refused"}}', -32000, 3),
            (b'{"jsonrpc":"2.0","id":3,"method":"fail","params":{"how":"missing"}}', -32001, 3),
            (b'{"jsonrpc":"2.0","id":3,"method":"fail","params":{"how":"bug"}}', -32603, 3),
        ],
    )
    def test_bad_requests_get_an_error_and_the_next_one_an_answer(
        self, folder: Path, line: bytes, code: int, call_id: int | None
    ) -> None:
        with talking(folder) as talk:
            talk.send(line + b"\n")
            answer = talk.line()
            assert (answer["error"]["code"], answer["id"]) == (code, call_id), answer
            assert talk.result("echo", b=1) == {"b": 1}

    def test_a_request_without_an_end_is_cut_off(self, folder: Path) -> None:
        with talking(folder) as talk:
            talk.send(b"x" * (2 * MAX_REQUEST + 2))
            assert talk.line()["error"]["code"] == -32600
        assert answers(folder)

    def test_a_client_too_many_is_told_so(self, folder: Path) -> None:
        with _many(folder, CONNECTIONS), talking(folder) as talk:
            assert "too many clients" in talk.line()["error"]["message"]
        wait_until(lambda: answers(folder), "there is room again")

    def test_who_does_not_take_the_answer_is_let_go(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(local_api, "WRITE_S", 0.3)
        with serving(tmp_path), talking(tmp_path) as slow:
            slow.send(b'{"jsonrpc":"2.0","id":1,"method":"large"}\n')
            with talking(tmp_path) as other:
                assert other.result("echo") == {}
            wait_until(lambda: _is_cut(slow), "the slow client is cut off")

    def test_who_says_nothing_is_let_go(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(local_api, "IDLE_S", 0.2)
        with serving(tmp_path), talking(tmp_path) as idle:
            assert idle.line() is None


def _is_cut(talk: Talk) -> bool:
    """Whether the other side has closed; asked by sending, because what it sent is not read."""
    try:
        talk.send(b"\n")
    except OSError:
        return True
    return False


@contextmanager
def _many(folder: Path, count: int) -> Iterator[None]:
    from contextlib import ExitStack

    with ExitStack() as stack:
        for _ in range(count):
            assert stack.enter_context(talking(folder)).result("echo") == {}
        yield
