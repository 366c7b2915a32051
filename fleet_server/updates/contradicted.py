"""Which devices the broker says something else of than they have signed themselves."""

from collections.abc import Mapping, Sequence
from typing import Final

from sqlmodel import Session

from fleet_protocol.messages import HealthReport
from fleet_server.updates.attested import latest, told_in, word_in
from fleet_server.updates.difference import contradictions

CODE: Final = "versions.contradicted"
_DETAIL: Final = 200


def contradicted(
    session: Session, tenant: str, devices: Sequence[str], reported: Mapping[str, str | None]
) -> dict[str, HealthReport]:
    """Those of ``devices`` whose ``reported`` half contradicts their signed word, with where it does."""
    found = {}
    for device, row in latest(session, tenant, devices).items():
        document = reported.get(device)
        if document is None:
            continue
        if lies := contradictions(word_in(row), told_in(document)):
            detail = "; ".join(lies)[:_DETAIL]
            found[device] = HealthReport(code=CODE, since_wall_ms=row.attested_ms, detail=detail)
    return found
