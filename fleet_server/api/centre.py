"""What every router needs: the database and the configuration, and a caller with the right it takes."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated, Any, Final

from fastapi import Depends, Query, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer, SecurityScopes
from pydantic import AfterValidator, Field
from sqlalchemy import Engine

from firmware_profiles import schema
from fleet_protocol.messages import LAST_WALL_MS
from fleet_protocol.texts import _
from fleet_server.access.door import Door
from fleet_server.access.roles import Caller, Permission
from fleet_server.access.tokens import identify
from fleet_server.api.problems import ProblemError
from fleet_server.approvals.actions import open_proposals
from fleet_server.approvals.proposals import Proposals
from fleet_server.callers import source_of
from fleet_server.config import ServerConfig
from fleet_server.devices.scope import is_within, require_device
from fleet_server.updates.office import Office, open_office

MOST_ITEMS: Final = 1000
"""Items in one answer; whoever wants more asks for the next page."""

MOST_READINGS: Final = 10_000
"""Readings in one answer: a week of one metric at one a minute."""

EVERYWHERE: Final = "everywhere"
"""Beside a permission: it has to be there for the whole tenant, for what touches all of it."""


@dataclass(frozen=True, slots=True)
class Centre:
    """The server that the API speaks for."""

    engine: Engine
    config: ServerConfig


_bearer: Final = HTTPBearer(auto_error=False, description="A token, as `Authorization: Bearer TOKEN`.")


def centre_of(request: Request) -> Centre:
    """The server that this application was made for."""
    centre: Centre = request.app.state.centre
    return centre


def authorize(
    needed: SecurityScopes,
    request: Request,
    centre: Annotated[Centre, Depends(centre_of)],
    given: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> Caller:
    """The caller, where a valid token gives the right that the route needs.

    Raises:
        ProblemError: 401 for nobody, 403 for somebody without the right.
    """
    token = given.credentials if given else ""
    caller = identify(centre.engine, centre.config.tenant, token, source_of(request))
    if caller is None:
        raise ProblemError(
            401,
            "unauthorized",
            _("The request carries no valid token."),
            _("Log in with 'fleet login'; a program sends 'Authorization: Bearer TOKEN'."),
        )
    everywhere = EVERYWHERE in needed.scopes
    for permission in (Permission(scope) for scope in needed.scopes if scope != EVERYWHERE):
        if not (caller.may_everywhere(permission) if everywhere else caller.may(permission)):
            raise forbidden(caller, permission)
    return caller


def forbidden(caller: Caller, permission: Permission) -> ProblemError:
    """That the caller lacks a right: at all, or where it is needed."""
    text = (
        _("{person} has the right {right} in some places only, and this is for more.")
        if caller.may(permission)
        else _("{person} does not have the right {right}.")
    )
    return ProblemError(
        403,
        "forbidden",
        text.format(person=caller.person, right=permission.value),
        _("Ask an administrator for a role that has it, or use a token that is not narrowed."),
    )


def require_reach(server: Centre, caller: Caller, permission: Permission, device: str) -> None:
    """See to it that the caller sees ``device``, and has the right on it.

    Raises:
        NotFound: it is not registered, or not for their eyes.
        ProblemError: they may only look at it.
    """
    tenant = server.config.tenant
    require_device(server.engine, tenant, device, caller.scopes(Permission.FLEET_READ))
    if not is_within(server.engine, tenant, device, caller.scopes(permission)):
        raise forbidden(caller, permission)


def require_on(caller: Caller, permission: Permission, site: str | None, tags: Collection[str]) -> None:
    """See to it that ``caller`` has the right on a device at ``site`` with ``tags``, one to come too.

    Raises:
        ProblemError: they do not.
    """
    if not caller.may_on(permission, site, tags):
        raise forbidden(caller, permission)


def door_of(request: Request) -> Door:
    """The door of that server."""
    door: Door = request.app.state.door
    return door


def updates_of(centre: Annotated[Centre, Depends(centre_of)]) -> Office:
    """The signed updates of that server."""
    return open_office(centre.engine, centre.config)


def proposals_of(centre: Annotated[Centre, Depends(centre_of)]) -> Proposals:
    """What is proposed on that server."""
    return open_proposals(centre.engine, centre.config)


def _with(permission: Permission, *more: str) -> Any:
    return Security(authorize, scopes=[permission.value, *more])


def _known(profile: str) -> str:
    """``profile``, a name there is; what is misspelled would be judged as a board that promises nothing."""
    return schema.load(profile).name


# A route takes one of these: the description of the API then names the right that it needs, and whether
# it has to be there with nothing that narrows it.
Oneself = Annotated[Caller, _with(Permission.SELF)]
Reader = Annotated[Caller, _with(Permission.FLEET_READ)]
Enroller = Annotated[Caller, _with(Permission.DEVICE_ENROLL)]
Revoker = Annotated[Caller, _with(Permission.DEVICE_REVOKE)]
Grouper = Annotated[Caller, _with(Permission.GROUP_WRITE, EVERYWHERE)]
Publisher = Annotated[Caller, _with(Permission.ARTIFACT_PUBLISH, EVERYWHERE)]
Proposer = Annotated[Caller, _with(Permission.CHANGE_PROPOSE)]
Approver = Annotated[Caller, _with(Permission.CHANGE_APPROVE)]
Stopper = Annotated[Caller, _with(Permission.CHANGE_STOP)]
PeopleManager = Annotated[Caller, _with(Permission.PEOPLE_MANAGE, EVERYWHERE)]
TrustManager = Annotated[Caller, _with(Permission.TRUST_MANAGE, EVERYWHERE)]
Auditor = Annotated[Caller, _with(Permission.AUDIT_READ, EVERYWHERE)]
GlassBreaker = Annotated[Caller, _with(Permission.BREAK_GLASS)]

Entrance = Annotated[Door, Depends(door_of)]
Source = Annotated[str, Depends(source_of)]
Server = Annotated[Centre, Depends(centre_of)]
Updates = Annotated[Office, Depends(updates_of)]
Changes = Annotated[Proposals, Depends(proposals_of)]
Reason = Annotated[str, Field(min_length=1, max_length=200, description="Why, for whoever asks later.")]
ProfileName = Annotated[
    str,
    AfterValidator(_known),
    Field(json_schema_extra={"enum": list(schema.names())}, description="A firmware profile: the board."),
]
Limit = Annotated[int, Query(ge=1, le=MOST_ITEMS, description="At most so many items.")]
ReadingLimit = Annotated[int, Query(ge=1, le=MOST_READINGS, description="At most so many, the newest.")]
TimeMs = Annotated[int, Query(ge=0, le=LAST_WALL_MS, description="Milliseconds since 1970 UTC.")]
