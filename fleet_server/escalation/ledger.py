"""Questions and their answers in the database: one answer for each question, whoever asks how often."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Engine, and_, delete, false, insert, or_, select
from sqlmodel import Session

from fleet_protocol.messages import Answer, AnswerState, encode
from fleet_server.database.engine import writing
from fleet_server.database.models import Answer as AnswerRow
from fleet_server.database.models import Device, RefusalCount
from fleet_server.database.models import Request as RequestRow
from fleet_server.escalation.admission import Question, Refusal
from fleet_server.telemetry.faults import unavailable

KEPT_MS: Final = 30 * 86_400_000
"""How long a question and its answer are kept: a month, to calibrate anew with."""

_REQUEST: Final = RequestRow.__table__  # type: ignore[attr-defined]
_ANSWER: Final = AnswerRow.__table__  # type: ignore[attr-defined]
_DEVICE: Final = Device.__table__  # type: ignore[attr-defined]
_STRANGERS: Final = ("", "")


@dataclass(frozen=True, slots=True)
class Done:
    """A question with its answer; ``by`` names the backend and its model, empty where none was asked."""

    question: Question
    tenant: str
    answer: Answer
    by: str = ""


@dataclass(frozen=True, slots=True)
class Known:
    """What the database knows of some questions: tenants by device, earlier answers by question."""

    tenants: dict[str, str]
    answers: dict[tuple[str, str], bytes]


class Ledger:
    """Reads and writes through one engine. Every method raises StoreError where the database is away."""

    def __init__(self, engine: Engine) -> None:
        self._engine: Final = engine

    def known(self, questions: Sequence[Question], devices: Iterable[str]) -> Known:
        """What is known of ``questions`` and of ``devices``, which are theirs and maybe more."""
        with unavailable(), self._engine.connect() as connection:
            found = connection.execute(
                select(_DEVICE.c.id, _DEVICE.c.tenant).where(_DEVICE.c.id.in_(set(devices)))
            )
            tenants = {row.id: row.tenant for row in found}
            numbers: dict[str, list[str]] = {}
            for one in questions:
                numbers.setdefault(one.device, []).append(one.request.id)
            # Device by device, because SQLite would read the whole table for a list of triples.
            of_these = [
                (_ANSWER.c.tenant == tenants[device])
                & (_ANSWER.c.device == device)
                & _ANSWER.c.request.in_(those)
                for device, those in numbers.items()
                if device in tenants
            ]
            answers = connection.execute(
                select(_ANSWER.c.device, _ANSWER.c.request, _ANSWER.c.payload).where(or_(false(), *of_these))
            )
            return Known(tenants, {(row.device, row.request): row.payload for row in answers})

    def write(self, done: Sequence[Done], now_ms: int) -> None:
        """Make answers durable, each with its question."""
        with unavailable(), self._engine.execution_options(write_first=True).begin() as connection:
            connection.execute(insert(_REQUEST), [_request_row(one) for one in done])
            connection.execute(insert(_ANSWER), [_answer_row(one, now_ms) for one in done])

    def refuse(self, refusals: Iterable[Refusal], tenants: dict[str, str]) -> None:
        """Count messages that are no questions, for the health of who sent them."""
        with unavailable(), writing(self._engine) as session:
            for refusal in refusals:
                tenant = tenants.get(refusal.device)
                _count(session, (tenant, refusal.device) if tenant is not None else _STRANGERS, refusal)

    def prune(self, now_ms: int) -> None:
        """Forget what is older than :data:`KEPT_MS`."""
        old = _REQUEST.c.received_ms < now_ms - KEPT_MS
        of_old = and_(
            _REQUEST.c.tenant == _ANSWER.c.tenant,
            _REQUEST.c.device == _ANSWER.c.device,
            _REQUEST.c.id == _ANSWER.c.request,
            old,
        )
        with unavailable(), self._engine.execution_options(write_first=True).begin() as connection:
            connection.execute(delete(_ANSWER).where(select(_REQUEST.c.id).where(of_old).exists()))
            connection.execute(delete(_REQUEST).where(old))


def _request_row(done: Done) -> dict[str, object]:
    question = done.question
    # What was never looked at is not kept whole: it may come in any number.
    payload = b"" if done.answer.state is AnswerState.REFUSED else question.payload
    return {
        "tenant": done.tenant,
        "device": question.device,
        "id": question.request.id,
        "kind": question.request.model,
        "payload": payload,
        "deadline_ms": question.received_ms + question.left_ms,
        "received_ms": question.received_ms,
    }


def _answer_row(done: Done, now_ms: int) -> dict[str, object]:
    return {
        "tenant": done.tenant,
        "device": done.question.device,
        "request": done.answer.id,
        "state": done.answer.state.value,
        "answered_by": done.by[:200],
        "payload": encode(done.answer),
        "answered_ms": now_ms,
    }


def _count(session: Session, who: tuple[str, str], refusal: Refusal) -> None:
    row = session.get(RefusalCount, who, with_for_update=True)
    if row is None:
        row = RefusalCount(tenant=who[0], device=who[1], count=0, last_ms=0, last_reason="")
        session.add(row)
    row.count += 1
    row.last_ms = refusal.arrival.received_ms
    row.last_reason = refusal.reason[:300]
    session.flush()
