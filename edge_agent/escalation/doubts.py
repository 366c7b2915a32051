"""One model's doubts: decides about each of its answers, and asks the center where that is due.

What is decided is a pure function of the policy (:mod:`fleet_protocol.escalation`); here it meets
the clock, a random number and the budget.
"""

import random
from typing import Final, NamedTuple, Protocol

from edge_agent.clock import Clock
from edge_agent.escalation.phrasing import Answer, Due, Phrasing
from fleet_protocol.buckets import TokenBucket
from fleet_protocol.escalation import Decision, Escalation, decide
from fleet_protocol.messages import ClockState, Request
from fleet_protocol.texts import _

OVER_BUDGET: Final = "escalation.over_budget"
UNCALIBRATED: Final = "escalation.uncalibrated"

_MS_PER_S: Final = 1000.0


class Health(Protocol):
    """What is needed of the health board."""

    def raise_code(self, code: str, detail: str = "", *, subject: str = "") -> None:
        """Raise ``code`` for ``subject``."""

    def clear(self, code: str, *, subject: str = "") -> None:
        """Take ``code`` back for ``subject``."""


class Desk(Protocol):
    """Who carries a question to the center."""

    def take(self, request: Request, asked_ms: int) -> bool:
        """Take ``request`` for the answer of ``asked_ms`` on; False where too many are open."""


class Weighed(NamedTuple):
    """What became of an answer: whether it is uncertain, and the question that it went out with."""

    uncertain: bool
    request: str = ""


class Doubts:
    """Weighs the answers of one model under one policy."""

    def __init__(
        self,
        digest: str,
        escalation: Escalation,
        phrasing: Phrasing,
        desk: Desk,
        clock: Clock,
        health: Health,
    ) -> None:
        """``digest`` is of the model's manifest; ``phrasing`` puts its questions."""
        self._digest: Final = digest
        self._escalation: Final = escalation
        self._phrasing: Final = phrasing
        self._desk: Final = desk
        self._clock: Final = clock
        self._health: Final = health
        budget = escalation.budget
        self._bucket: Final = TokenBucket(budget.per_hour, budget.burst, clock.mono_ms() / _MS_PER_S)

    def weigh(self, answer: Answer, due: Due, asked_ms: int, *, is_doubted: bool) -> Weighed:
        """Decide about ``answer``, recorded for ``asked_ms`` of the monotonic clock, and ask if that is due.

        ``is_doubted``: whether a rule calls it uncertain.
        """
        trusted = self._clock.state() is ClockState.TRUSTED
        decision = decide(
            self._escalation,
            self._digest,
            answer.confidence,
            self._clock.wall_ms() if trusted else None,
            random.random(),  # noqa: S311 - a sample, no secret
            is_doubted=is_doubted,
        )
        self._tell_calibration(decision)
        request = self._ask(answer, due, asked_ms) if decision.asks else ""
        return Weighed(decision.is_uncertain, request)

    def withdraw(self) -> None:
        """Take back what was raised: nobody weighs the answers of this model any more."""
        for code in (UNCALIBRATED, OVER_BUDGET):
            self._health.clear(code, subject=self._phrasing.model)

    def _tell_calibration(self, decision: Decision) -> None:
        model = self._phrasing.model
        if decision is not Decision.UNCALIBRATED:
            self._health.clear(UNCALIBRATED, subject=model)
        elif self._escalation.model_sha256 != self._digest:
            self._health.raise_code(UNCALIBRATED, _("it was made for another model"), subject=model)
        else:
            self._health.raise_code(
                UNCALIBRATED, _("it ended on {day}").format(day=self._escalation.expires), subject=model
            )

    def _ask(self, answer: Answer, due: Due, asked_ms: int) -> str:
        """The id of the question; empty where the budget has no room for it."""
        model = self._phrasing.model
        if self._bucket.take(self._clock.mono_ms() / _MS_PER_S):
            request = self._phrasing.request(answer, due, self._clock.now(), self._escalation.deadline_ms)
            if self._desk.take(request, asked_ms):
                self._health.clear(OVER_BUDGET, subject=model)
                return request.id
        self._health.raise_code(OVER_BUDGET, subject=model)
        return ""
