"""What devices asked and what they were told, read back for people."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Engine, Row, select, tuple_

from fleet_protocol.messages import Answer, decode
from fleet_protocol.topics import Channel
from fleet_server.access.roles import Scope
from fleet_server.database.models import Answer as AnswerRow
from fleet_server.database.models import Request as RequestRow
from fleet_server.devices.scope import ALL, among

_REQUEST: Final = RequestRow.__table__  # type: ignore[attr-defined]
_ANSWER: Final = AnswerRow.__table__  # type: ignore[attr-defined]

Place = tuple[int, str, str]
"""Where a question stands in the order of their coming: received, device, id."""


@dataclass(frozen=True, slots=True)
class EscalationView:
    """A question and its answer; times by the server's clock. ``reason`` says why there is no answer."""

    device: str
    id: str
    model: str
    received_ms: int
    answered_ms: int
    state: str
    label: str
    score: float
    confidence: float
    answered_by: str
    reason: str


def escalations(
    engine: Engine, tenant: str, before: Place | None, limit: int, scopes: Collection[Scope] = ALL
) -> list[EscalationView]:
    """At most ``limit`` questions, the newest first, from the first one older than ``before`` on.

    Those of devices outside ``scopes`` are left out.
    """
    place = tuple_(_REQUEST.c.received_ms, _REQUEST.c.device, _REQUEST.c.id)
    statement = (
        select(
            _REQUEST.c.device, _REQUEST.c.id, _REQUEST.c.kind, _REQUEST.c.received_ms,
            _ANSWER.c.answered_ms, _ANSWER.c.answered_by, _ANSWER.c.payload,
        )
        .join(
            _ANSWER,
            (_ANSWER.c.tenant == _REQUEST.c.tenant)
            & (_ANSWER.c.device == _REQUEST.c.device)
            & (_ANSWER.c.request == _REQUEST.c.id),
        )
        .where(_REQUEST.c.tenant == tenant, among(_REQUEST.c.device, tenant, scopes))
        .order_by(_REQUEST.c.received_ms.desc(), _REQUEST.c.device.desc(), _REQUEST.c.id.desc())
        .limit(limit)
    )  # fmt: skip
    if before is not None:
        statement = statement.where(place < before)
    with engine.connect() as connection:
        return [_view(row) for row in connection.execute(statement).all()]


def _view(row: Row[*tuple[Any, ...]]) -> EscalationView:
    answer = decode(Channel.ANSWER, row.payload)
    assert isinstance(answer, Answer)  # noqa: S101 - it is what was written
    return EscalationView(
        device=row.device,
        id=row.id,
        model=row.kind,
        received_ms=row.received_ms,
        answered_ms=row.answered_ms,
        state=answer.state.value,
        label=answer.label,
        score=answer.score,
        confidence=answer.confidence,
        answered_by=row.answered_by,
        reason=answer.reason,
    )
