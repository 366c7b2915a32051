"""Carries questions to the center and answers back, over one session after another.

A question lives until its deadline, in memory alone: what a restart forgets is a local answer that
stays uncertain. It is sent once, and once more under the same id when the link was lost before its
answer came; the center then says what it said, or would have said, the first time.
"""

import asyncio
import contextlib
import logging
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec

from edge_agent.clock import Clock
from edge_agent.service.health import HealthBoard
from fleet_protocol.messages import Answer, AnswerState, Inference, Request, encode
from fleet_protocol.texts import _

_LOG: Final = logging.getLogger(__name__)

UNANSWERED: Final = "escalation.unanswered"

MAX_OPEN: Final = 256
"""Questions without an answer; each keeps its windows, some kilobytes."""

MOST_SENDINGS: Final = 2

_MS_PER_S: Final = 1000.0
_NAME: Final = 64
"""Characters that the name of a model or of its version may have in an inference."""


class Link(Protocol):
    """What the desk needs of a session."""

    async def ask(self, payload: bytes, request: str, expiry_s: int) -> None:
        """Publish the question ``request`` and wait until the broker has it."""


@dataclass(slots=True)
class _Open:
    """A question without an answer; times are monotonic ms."""

    request: Request
    asked_ms: int
    taken_ms: int
    deadline_ms: int
    sendings: int = 0
    is_under_way: bool = False

    @property
    def may_go(self) -> bool:
        """Whether it is to be sent over the present session."""
        return not self.is_under_way and self.sendings < MOST_SENDINGS


class Desk:
    """The open questions of one agent."""

    record: Callable[[Inference, int], None] | None = None
    """Takes what the center answered, and the monotonic ms that it is about."""

    def __init__(self, clock: Clock, health: HealthBoard) -> None:
        self._clock = clock
        self._health = health
        self._open: dict[str, _Open] = {}
        self._changed = asyncio.Event()
        self._unsent = asyncio.Event()
        self.counts: Final[Counter[str]] = Counter()
        """How many questions came to each end, by the name of the end."""

    @property
    def waiting(self) -> int:
        """How many questions have no answer yet."""
        return len(self._open)

    def take(self, request: Request, asked_ms: int) -> bool:
        """Take ``request`` about the answer recorded for ``asked_ms``; False where too many are open."""
        if len(self._open) >= MAX_OPEN:
            return False
        now = self._clock.mono_ms()
        self._open[request.id] = _Open(request, asked_ms, now, now + request.deadline_ms)
        self._changed.set()
        self._unsent.set()
        return True

    def hear(self, answer: Answer) -> None:
        """Take what the center says; an answer to no open question is one too late, or not ours."""
        question = self._open.pop(answer.id, None)
        if question is None:
            self.counts["unasked"] += 1
        elif answer.state is not AnswerState.ANSWERED:
            self._leave(answer.state.value, answer.reason)
        elif not (0 < len(answer.model) <= _NAME and 0 < len(answer.version) <= _NAME):
            self._leave(AnswerState.FAILED.value, _("the answer does not name its model"))
        else:
            self.counts[answer.state.value] += 1
            self._health.clear(UNANSWERED)
            self._supersede(question, answer)

    async def run(self) -> None:
        """Let questions end at their deadline, whether there is a link or not."""
        while True:
            self._changed.clear()
            self._end_overdue()
            deadline = min((each.deadline_ms for each in self._open.values()), default=None)
            left_s = None if deadline is None else (deadline - self._clock.mono_ms()) / _MS_PER_S
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await self._changed.wait()

    async def send(self, link: Link) -> None:
        """Send over ``link`` what is open, and what comes, until it breaks or the task is cancelled."""
        for question in self._open.values():
            question.is_under_way = False
        self._unsent.set()
        while True:
            await self._unsent.wait()
            self._unsent.clear()
            for question in list(self._open.values()):
                if question.may_go and question.request.id in self._open:
                    await self._send(question, link)

    async def _send(self, question: _Open, link: Link) -> None:
        left_ms = question.deadline_ms - self._clock.mono_ms()
        if left_ms <= 0:
            return
        question.sendings += 1
        question.is_under_way = True
        request = msgspec.structs.replace(question.request, deadline_ms=left_ms)
        await link.ask(encode(request), request.id, math.ceil(left_ms / _MS_PER_S))

    def _end_overdue(self) -> None:
        now = self._clock.mono_ms()
        overdue = [number for number, question in self._open.items() if question.deadline_ms <= now]
        for number in overdue:
            del self._open[number]
            self._leave("unanswered", _("no answer came in time"))

    def _leave(self, end: str, reason: str) -> None:
        """The local answer stands; say why, and how often that happened."""
        self.counts[end] += 1
        detail = _("{end}, {count} so far: {reason}").format(end=end, count=self.counts[end], reason=reason)
        _LOG.info(_("a question was not answered: {detail}").format(detail=detail))
        self._health.raise_code(UNANSWERED, detail)

    def _supersede(self, question: _Open, answer: Answer) -> None:
        if self.record is None:
            return
        waited_ms = self._clock.mono_ms() - question.taken_ms
        inference = Inference(
            0,
            answer.model,
            answer.version,
            answer.label,
            answer.score,
            answer.confidence,
            1000 * waited_ms,
            request=answer.id,
            supersedes=True,
        )
        self.record(inference, question.asked_ms)
