"""What becomes of each question from its arrival to its answer. One thread decides, a pool works.

The order is the promise. A question is answered only once its answer is durable, so that whoever
asks the same again hears the same; and only then it is given up to the broker (PUBACK), so that a
service that is killed gets it again.
"""

import logging
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Final, Protocol

from sqlalchemy.exc import SQLAlchemyError

from fleet_protocol.messages import Answer, AnswerState, encode
from fleet_protocol.texts import _
from fleet_protocol.topics import Channel, topic
from fleet_server.errors import StoreError
from fleet_server.escalation.admission import Question, Refusal, admit, objection
from fleet_server.escalation.fairness import Budgets, FairQueue
from fleet_server.escalation.lane import AT_ONCE, Lane, Outcome, unanswered
from fleet_server.escalation.ledger import Done, Known, Ledger
from fleet_server.link.mqtt import Arrival

_MS_PER_S: Final = 1000
_AT_ONCE_WRITTEN: Final = 500
log: Final = logging.getLogger(__name__)


class Post(Protocol):
    """What the clerk needs of the session with the broker."""

    def acknowledge(self, arrivals: Sequence[Arrival]) -> None:
        """Tell the broker that it need not send these again."""

    def publish(self, topic: str, payload: bytes, expiry_s: int, correlation: bytes | None = None) -> None:
        """Send a message at least once."""

    def wake(self) -> None:
        """End a wait for messages, from another thread."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A question that was let in; no answer is of use after ``deadline_s`` of the monotonic clock."""

    question: Question
    tenant: str
    deadline_s: float


class Clerk:
    """Takes questions in, has them answered, and hands the answers out."""

    def __init__(self, post: Post, ledger: Ledger, budgets: Budgets, pool: Executor) -> None:
        self._post: Final = post
        self._ledger: Final = ledger
        self._budgets: Final = budgets
        self._pool: Final = pool
        self._queue: Final[FairQueue[_Waiting]] = FairQueue()
        self._open: Final[dict[tuple[str, str], Question]] = {}
        self._at_work = 0
        self._worked: Final[deque[tuple[Done, bool]]] = deque()
        self._done: list[Done] = []
        self.lane: Lane | str = ""
        """Who answers, or why nobody can."""
        self.backend_fault: str | None = None
        """Why the backend did not answer the last question that it was asked; nothing where it did."""

    def take(self, arrivals: Sequence[Arrival]) -> None:
        """Let questions in, or refuse them.

        Raises:
            StoreError: the database is away; call again with the same.
        """
        judged = [admit(arrival) for arrival in arrivals]
        questions = [one for one in judged if isinstance(one, Question)]
        refusals = [one for one in judged if isinstance(one, Refusal)]
        known = self._ledger.known(questions, {one.device for one in judged})
        for question in questions:
            if question.device in known.tenants:
                self._admit(question, known)
            else:
                arrival = question.arrivals[0]
                refusals.append(Refusal(arrival, "", _("no device of this name is registered")))
        if refusals:
            self._ledger.refuse(refusals, known.tenants)
            self._post.acknowledge([one.arrival for one in refusals])

    def move(self, now_ms: int) -> None:
        """Hand out what was answered, and set to work what may be.

        Raises:
            StoreError: the database is away; nothing is lost, call again.
        """
        while self._worked:
            done, is_down = self._worked.popleft()
            self._at_work -= 1
            self._note_backend(done.answer, is_down=is_down)
            self._done.append(done)
        while self._done:
            self._hand_out(self._done[:_AT_ONCE_WRITTEN], now_ms)
            del self._done[:_AT_ONCE_WRITTEN]
        while self._at_work < AT_ONCE and (next_one := self._queue.pop()) is not None:
            self._begin(next_one)

    def _admit(self, question: Question, known: Known) -> None:
        """Begin with ``question``, unless it is known already."""
        tenant = known.tenants[question.device]
        earlier = known.answers.get(question.key)
        if earlier is not None:
            self._send(question, earlier)
            self._post.acknowledge(question.arrivals)
        elif question.key in self._open:
            self._open[question.key].arrivals.extend(question.arrivals)
        else:
            self._open[question.key] = question
            refusal = self._refusal(question, tenant)
            if refusal is not None:
                answer = unanswered(question.request.id, AnswerState.REFUSED, refusal)
                self._done.append(Done(question, tenant, answer))

    def _refusal(self, question: Question, tenant: str) -> str | None:
        """Let ``question`` wait for its turn, or say why not."""
        now_s = time.monotonic()
        if isinstance(self.lane, str):
            return self.lane
        reason = objection(question, self.lane.manifest) or self._budgets.objection(
            tenant, question.device, now_s
        )
        if reason is not None:
            return reason
        waiting = _Waiting(question, tenant, now_s + question.left_ms / _MS_PER_S)
        if not self._queue.push(question.device, waiting):
            return _("too many questions wait already")
        return None

    def _begin(self, waiting: _Waiting) -> None:
        assert isinstance(self.lane, Lane)  # noqa: S101 - nothing waits before there is one
        lane, question = self.lane, waiting.question
        future = self._pool.submit(lane.ask, question, waiting.tenant, waiting.deadline_s)
        self._at_work += 1

        def end(future: "Future[Outcome]") -> None:
            error = future.exception()
            if error is not None:
                log.error(_("a question could not be worked on"), exc_info=error)
            outcome = _mistake(question) if error is not None else future.result()
            self._worked.append((Done(question, waiting.tenant, outcome.answer, lane.by), outcome.is_down))
            self._post.wake()

        future.add_done_callback(end)

    def _hand_out(self, done: Sequence[Done], now_ms: int) -> None:
        """Make answers durable, and send them. What the database cannot hold costs itself alone."""
        try:
            self._ledger.write(done, now_ms)
        except StoreError:
            raise
        except SQLAlchemyError as error:
            if len(done) > 1:
                half = len(done) // 2
                self._hand_out(done[:half], now_ms)
                self._hand_out(done[half:], now_ms)
                return
            log.warning(_("an answer cannot be stored and is not given: {reason}").format(reason=error))
        else:
            for one in done:
                self._send(one.question, encode(one.answer))
        for one in done:
            self._post.acknowledge(one.question.arrivals)
            self._open.pop(one.question.key, None)

    def _send(self, question: Question, payload: bytes) -> None:
        request = question.request
        self._post.publish(
            topic(question.device, Channel.ANSWER),
            payload,
            -(-request.deadline_ms // _MS_PER_S),
            bytes.fromhex(request.id),
        )

    def _note_backend(self, answer: Answer, *, is_down: bool) -> None:
        if is_down:
            self.backend_fault = answer.reason
        elif answer.state is AnswerState.ANSWERED:
            self.backend_fault = None


def _mistake(question: Question) -> Outcome:
    reason = _("the server made a mistake; its log says which")
    return Outcome(unanswered(question.request.id, AnswerState.FAILED, reason))
