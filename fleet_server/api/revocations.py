"""What one device may prove with, over HTTP: taken back for good, put on hold, given back."""

from fastapi import APIRouter
from pydantic import BaseModel, Field
from sqlmodel import Session, col, select

from fleet_protocol.texts import _
from fleet_server.access.roles import Actor, Caller, Permission
from fleet_server.api.centre import Revoker, Server
from fleet_server.api.problems import ProblemError
from fleet_server.clock import wall_ms
from fleet_server.database.engine import writing
from fleet_server.database.models import Device, DeviceTag
from fleet_server.link import revoking

router = APIRouter(prefix="/v1/devices", tags=["devices"])


class Why(BaseModel):
    """Why it is done, for those who read it later."""

    reason: str = Field(min_length=1, max_length=200)


class Touched(BaseModel):
    """Whose certificates were touched, and which; none where everything was so already."""

    device: str
    serials: list[str]


@router.post("/{device}/revoke")
def revoke_device(caller: Revoker, server: Server, device: str, why: Why) -> Touched:
    """Take back for good whatever the device may prove with; it is thrown out within seconds."""
    with writing(server.engine) as session:
        _require_right(session, caller, device)
        serials = revoking.revoke(
            session, caller.tenant, device, reason=why.reason, actor=_actor(caller), now_ms=wall_ms()
        )
    return Touched(device=device, serials=serials)


@router.post("/{device}/hold")
def hold_device(caller: Revoker, server: Server, device: str, why: Why) -> Touched:
    """Keep the device out until it is released; it is thrown out within seconds."""
    with writing(server.engine) as session:
        _require_right(session, caller, device)
        serials = revoking.hold(
            session, caller.tenant, device, reason=why.reason, actor=_actor(caller), now_ms=wall_ms()
        )
    return Touched(device=device, serials=serials)


@router.post("/{device}/release")
def release_device(caller: Revoker, server: Server, device: str, why: Why) -> Touched:
    """Let a device in again that was on hold."""
    with writing(server.engine) as session:
        _require_right(session, caller, device)
        serials = revoking.release(
            session, caller.tenant, device, reason=why.reason, actor=_actor(caller), now_ms=wall_ms()
        )
    return Touched(device=device, serials=serials)


def _actor(caller: Caller) -> Actor:
    return caller.actor(Permission.DEVICE_REVOKE)


def _require_right(session: Session, caller: Caller, device: str) -> None:
    """See to it that the caller's right reaches this device; one that is not there is told as such later."""
    found = session.get(Device, (caller.tenant, device))
    if found is None:
        return
    tags = session.exec(
        select(DeviceTag.tag).where(DeviceTag.tenant == caller.tenant, col(DeviceTag.device) == device)
    ).all()
    if not caller.may_on(Permission.DEVICE_REVOKE, found.site, tags):
        raise ProblemError(
            403,
            "forbidden",
            _("{person} does not have the right {right} on {device}.").format(
                person=caller.person, right=Permission.DEVICE_REVOKE.value, device=device
            ),
            _("Ask somebody whose role reaches the device's site or tags."),
        )
