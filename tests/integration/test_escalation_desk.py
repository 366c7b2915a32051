"""The agent's desk over a real broker: what it sends, when it sends again, and what it makes of answers."""

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from edge_agent.clock import Clock, boot_id
from edge_agent.config import Broker
from edge_agent.errors import LinkError
from edge_agent.escalation.desk import MAX_OPEN, Desk
from edge_agent.identity.identity import load_identity
from edge_agent.link.transport import Connection, Transport
from edge_agent.service.health import HealthBoard
from edge_agent.tasks import Work, together
from fleet_protocol.messages import Answer, AnswerState, Inference, Request, decode, encode
from fleet_protocol.topics import Channel, topic
from tests.support.authority import Credentials, TestAuthority
from tests.support.broker import SERVICE, TestBroker
from tests.support.escalating import question
from tests.support.fleet_broker import Identity, MqttClient, connected
from tests.support.waiting import wait_until

pytestmark = pytest.mark.anyio

DEVICE = "gw-desk"
UNANSWERED = "escalation.unanswered"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def credentials(authority: TestAuthority) -> Credentials:
    return authority.issue(DEVICE)


@pytest.fixture
def center(broker: TestBroker, authority: TestAuthority) -> Iterator[MqttClient]:
    """Somebody at the center who reads every question."""
    mine = authority.issue(SERVICE)
    with connected(broker.port, Identity(SERVICE, mine.certificate, mine.key, mine.ca)) as client:
        assert client.subscribe(topic(DEVICE, Channel.REQUEST)) == "accepted"
        yield client


class Bench:
    """A desk with what it needs, and what it recorded."""

    def __init__(self, port: int, credentials: Credentials) -> None:
        self.clock = Clock(boot_id())
        self.health = HealthBoard(self.clock)
        self.desk = Desk(self.clock, self.health)
        self.recorded: list[tuple[Inference, int]] = []
        self.desk.record = lambda inference, at: self.recorded.append((inference, at))
        broker = Broker(
            host="127.0.0.1",
            port=port,
            ca=credentials.ca,
            certificate=credentials.certificate,
            key=credentials.key,
        )
        self.transport = Transport(load_identity(DEVICE, broker), broker, self.clock)

    @property
    def codes(self) -> dict[str, str]:
        return {report.code: report.detail for report in self.health.reports()}

    @contextlib.asynccontextmanager
    async def session(self) -> AsyncIterator[Connection]:
        """The desk at work over one session; it hears what comes."""
        async with self.transport.connect(b"", lambda: b"") as connection:
            await connection.subscribe(Channel.ANSWER)
            work: dict[str, Work] = {
                "ask": lambda: self.desk.send(connection),
                "hear": lambda: self._hear(connection),
                "end": self.desk.run,
            }
            running = asyncio.create_task(together(work, 0.2))
            try:
                yield connection
            finally:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)

    async def _hear(self, connection: Connection) -> None:
        async for message in connection.messages():
            answer = decode(message.channel, message.payload)
            assert isinstance(answer, Answer)
            self.desk.hear(answer)


@pytest.fixture
def bench(broker: TestBroker, credentials: Credentials) -> Bench:
    return Bench(broker.port, credentials)


async def until(condition: Callable[[], object]) -> None:
    """Like ``wait_until``, while the loop runs on."""
    await asyncio.to_thread(wait_until, condition)


async def next_question(center: MqttClient) -> Request:
    message = await asyncio.to_thread(center.received.get, True, 10)
    request = decode(Channel.REQUEST, message.payload)
    assert isinstance(request, Request)
    return request


def answer_to(request: Request, **changes: object) -> Answer:
    fields = {
        "id": request.id,
        "state": AnswerState.ANSWERED,
        "model": "network",
        "version": "7",
        "label": "gw-1",
        "score": 0.9,
        "confidence": 0.8,
    }
    return Answer(**(fields | changes))  # type: ignore[arg-type]


def say(center: MqttClient, answer: Answer) -> None:
    assert center.publish(topic(DEVICE, Channel.ANSWER), encode(answer)) == "accepted"


async def test_a_question_goes_out_as_the_protocol_asks_and_its_answer_is_recorded(
    bench: Bench, center: MqttClient
) -> None:
    request = question(deadline_ms=4200)
    async with bench.session():
        assert bench.desk.take(request, asked_ms=77)
        message = await asyncio.to_thread(center.received.get, True, 10)
        assert message.topic == topic(DEVICE, Channel.REQUEST)
        assert message.properties.ResponseTopic == topic(DEVICE, Channel.ANSWER)
        assert message.properties.CorrelationData == bytes.fromhex(request.id)
        assert message.properties.MessageExpiryInterval in {4, 5}
        sent = decode(Channel.REQUEST, message.payload)
        assert isinstance(sent, Request)
        assert (sent.id, sent.series) == (request.id, request.series)
        assert 0 < sent.deadline_ms <= 4200
        say(center, answer_to(request))
        await until(lambda: bench.recorded)
    ((inference, at),) = bench.recorded
    assert at == 77
    assert (inference.request, inference.supersedes, inference.uncertain) == (request.id, True, False)
    assert (inference.model, inference.version, inference.label) == ("network", "7", "gw-1")
    assert (inference.score, inference.confidence) == (0.9, 0.8)
    assert 0 < inference.latency_us < 10_000_000
    assert bench.desk.waiting == 0
    assert bench.desk.counts == {"answered": 1}
    assert bench.codes == {}


async def test_a_question_of_before_a_session_goes_out_with_it_and_is_told_only_what_is_left(
    bench: Bench, center: MqttClient
) -> None:
    request = question(deadline_ms=60_000)
    bench.desk.take(request, asked_ms=0)
    before = time.monotonic()
    await asyncio.sleep(0.05)
    async with bench.session():
        sent = await next_question(center)
        waited_ms = (time.monotonic() - before) * 1000
    assert sent.id == request.id
    assert 60_000 - waited_ms - 50 <= sent.deadline_ms <= 60_000 - 40


async def test_after_a_lost_link_it_is_sent_once_more_under_the_same_id_and_never_a_third_time(
    bench: Bench, center: MqttClient
) -> None:
    request = question(deadline_ms=60_000)
    bench.desk.take(request, asked_ms=0)
    for _session in range(2):
        async with bench.session():
            assert (await next_question(center)).id == request.id
    async with bench.session():
        bench.desk.take(question(), asked_ms=0)
        assert (await next_question(center)).id != request.id
        say(center, answer_to(request))
        await until(lambda: bench.recorded)
    assert center.received.empty()


async def test_a_broker_that_dies_under_it_costs_no_question(
    bench: Bench, broker: TestBroker, authority: TestAuthority
) -> None:
    request = question(deadline_ms=60_000)
    with pytest.raises((LinkError, ExceptionGroup)):  # noqa: PT012 - the session ends where the broker does
        async with bench.session() as connection:
            broker.kill()
            bench.desk.take(request, asked_ms=0)
            await connection.publish(Channel.EVENT, b"")
    broker.start()
    mine = authority.issue(SERVICE)
    with connected(broker.port, Identity(SERVICE, mine.certificate, mine.key, mine.ca)) as center:
        center.subscribe(topic(DEVICE, Channel.REQUEST))
        async with bench.session():
            assert (await next_question(center)).id == request.id
            say(center, answer_to(request))
            await until(lambda: bench.recorded)


async def test_a_question_without_an_answer_ends_at_its_deadline(bench: Bench, center: MqttClient) -> None:
    request = question(deadline_ms=300)
    async with bench.session():
        bench.desk.take(request, asked_ms=0)
        await until(lambda: UNANSWERED in bench.codes)
        assert bench.desk.waiting == 0
        assert bench.desk.counts == {"unanswered": 1}
        assert bench.codes[UNANSWERED] == "unanswered, 1 so far: no answer came in time"
        # What comes now is too late, and leaves everything as it is.
        say(center, answer_to(request))
        await until(lambda: bench.desk.counts["unasked"])
        assert bench.recorded == []
        later = question()
        bench.desk.take(later, asked_ms=0)
        say(center, answer_to(later))
        await until(lambda: bench.codes == {})


async def test_it_ends_without_a_link_too(bench: Bench) -> None:
    running = asyncio.create_task(bench.desk.run())
    bench.desk.take(question(deadline_ms=200), asked_ms=0)
    bench.desk.take(question(deadline_ms=100), asked_ms=0)
    await until(lambda: bench.desk.counts["unanswered"] == 2)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize(
    ("changes", "end", "told"),
    [
        ({"state": AnswerState.REFUSED, "reason": "too often"}, "refused", "refused, 1 so far: too often"),
        ({"state": AnswerState.LATE, "reason": "slow"}, "late", "late, 1 so far: slow"),
        ({"state": AnswerState.FAILED, "reason": "broken"}, "failed", "failed, 1 so far: broken"),
        ({"model": ""}, "failed", "failed, 1 so far: the answer does not name its model"),
        ({"version": "x" * 65}, "failed", "failed, 1 so far: the answer does not name its model"),
    ],
)
async def test_an_answer_that_is_none_is_told_and_recorded_nowhere(
    bench: Bench, center: MqttClient, changes: dict[str, object], end: str, told: str
) -> None:
    async with bench.session():
        request = question()
        bench.desk.take(request, asked_ms=0)
        say(center, answer_to(request, **changes))
        await until(lambda: bench.desk.counts[end])
        assert bench.codes == {UNANSWERED: told}
        assert bench.recorded == []


async def test_answers_that_nobody_asked_for_and_second_ones_are_left_out(
    bench: Bench, center: MqttClient
) -> None:
    async with bench.session():
        request = question()
        bench.desk.take(request, asked_ms=0)
        say(center, answer_to(question()))
        say(center, answer_to(request))
        say(center, answer_to(request, label="another"))
        await until(lambda: bench.desk.counts["unasked"] == 2)
    assert [inference.label for inference, _at in bench.recorded] == ["gw-1"]


async def test_only_so_many_are_open(bench: Bench) -> None:
    taken = [bench.desk.take(question(id=secrets.token_hex(16)), asked_ms=0) for _n in range(MAX_OPEN + 1)]
    assert taken == [True] * MAX_OPEN + [False]
    assert bench.desk.waiting == MAX_OPEN
