"""What every router needs: the database and the configuration, and a caller with a valid token."""

from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import Depends, Query, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy import Engine

from fleet_protocol.messages import LAST_WALL_MS
from fleet_protocol.texts import _
from fleet_server.access.tokens import is_valid
from fleet_server.api.problems import ProblemError
from fleet_server.config import ServerConfig
from fleet_server.updates.office import Office, open_office

MOST_ITEMS: Final = 1000
"""Items in one answer; whoever wants more asks for the next page."""

MOST_READINGS: Final = 10_000
"""Readings in one answer: a week of one metric at one a minute."""


@dataclass(frozen=True, slots=True)
class Centre:
    """The server that the API speaks for."""

    engine: Engine
    config: ServerConfig


_bearer: Final = HTTPBearer(auto_error=False, description="The token in the file `api.token`.")


def centre_of(request: Request) -> Centre:
    """The server that this application was made for."""
    centre: Centre = request.app.state.centre
    return centre


def authorize(
    centre: Annotated[Centre, Depends(centre_of)],
    given: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> None:
    """Let a caller with a valid token pass."""
    if given is None or not is_valid(centre.engine, centre.config.tenant, given.credentials):
        raise ProblemError(
            401,
            "unauthorized",
            _("The request carries no valid token."),
            _("Send 'Authorization: Bearer TOKEN' with the token in api.token of the server's data folder."),
        )


def updates_of(centre: Annotated[Centre, Depends(centre_of)]) -> Office:
    """The signed updates of that server."""
    return open_office(centre.engine, centre.config)


Server = Annotated[Centre, Depends(centre_of)]
Updates = Annotated[Office, Depends(updates_of)]
Limit = Annotated[int, Query(ge=1, le=MOST_ITEMS, description="At most so many items.")]
ReadingLimit = Annotated[int, Query(ge=1, le=MOST_READINGS, description="At most so many, the newest.")]
TimeMs = Annotated[int, Query(ge=0, le=LAST_WALL_MS, description="Milliseconds since 1970 UTC.")]
