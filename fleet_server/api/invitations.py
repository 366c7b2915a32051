"""Invitations over HTTP: one board's right to become one device, made, listed and withdrawn."""

from typing import Annotated, Final

from fastapi import APIRouter, Path
from pydantic import BaseModel, Field
from sqlmodel import Session

from firmware_profiles import schema
from fleet_server.access.roles import Permission
from fleet_server.api.centre import Enroller, ProfileName, Server, require_on, require_reach
from fleet_server.clock import wall_ms
from fleet_server.identity.invitations import (
    InvitationView,
    Invited,
    Wish,
    invite,
    list_invitations,
    withdraw,
)
from fleet_server.identity.mass_revocation import require_few

router = APIRouter(prefix="/v1/devices/{device}/invitations", tags=["enrollment"])

_ID: Final = r"^[a-z0-9-]{1,63}$"
_DAY_S: Final = 86_400

DeviceId = Annotated[str, Path(pattern=_ID)]


class NewInvitation(BaseModel):
    """What the invitation is for. ``replaces`` lets another board take over a device that is there."""

    profile: ProfileName = schema.GENERIC
    site: str | None = Field(default=None, pattern=_ID)
    replaces: bool = False
    expires_s: int = Field(default=_DAY_S, ge=60, le=30 * _DAY_S, description="How many seconds it lasts.")


class InvitationList(BaseModel):
    """The invitations of one device, the newest first."""

    items: list[InvitationView]


@router.post("", status_code=201)
def invite_device(caller: Enroller, server: Server, device: DeviceId, new: NewInvitation) -> Invited:
    """Invite one board to become this device; the answer holds the only copy of its secret."""
    if new.replaces:
        require_reach(server, caller, Permission.DEVICE_ENROLL, device)
    else:
        require_on(caller, Permission.DEVICE_ENROLL, new.site, ())
    wish = Wish(device, new.profile, new.site, new.replaces, new.expires_s)

    def permit(session: Session) -> None:
        if new.replaces:  # whoever takes the place of a board puts that board out
            require_few(session, caller, device, wall_ms())

    return invite(server.engine, server.config, wish, caller.actor(Permission.DEVICE_ENROLL), permit)


@router.get("")
def invitations(caller: Enroller, server: Server, device: DeviceId) -> InvitationList:
    """Who was invited to become this device, and what came of it."""
    items = list_invitations(server.engine, server.config.tenant, device)
    return InvitationList(
        items=[one for one in items if caller.may_on(Permission.DEVICE_ENROLL, one.site, ())]
    )


@router.delete("/{invitation}")
def withdraw_invitation(
    caller: Enroller,
    server: Server,
    device: DeviceId,
    invitation: Annotated[str, Path(pattern=r"^[0-9a-f]{12}$")],
) -> InvitationView:
    """End an invitation that nobody shall use any more."""
    for one in list_invitations(server.engine, server.config.tenant, device):
        if one.id == invitation:
            require_on(caller, Permission.DEVICE_ENROLL, one.site, ())
    actor = caller.actor(Permission.DEVICE_ENROLL)
    return withdraw(server.engine, server.config.tenant, device, invitation, actor)
