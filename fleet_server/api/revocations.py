"""What one device may prove with, over HTTP: taken back for good, put on hold, given back."""

from fastapi import APIRouter
from pydantic import BaseModel

from fleet_server.access.roles import Actor, Caller, Permission
from fleet_server.api.centre import Revoker, Server, require_reach
from fleet_server.api.proposing import Why
from fleet_server.clock import wall_ms
from fleet_server.database.engine import writing
from fleet_server.identity import revoking
from fleet_server.identity.mass_revocation import require_few

router = APIRouter(prefix="/v1/devices", tags=["devices"])


class Touched(BaseModel):
    """Whose certificates were touched, and which; none where everything was so already."""

    device: str
    serials: list[str]


@router.post("/{device}/revoke")
def revoke_device(caller: Revoker, server: Server, device: str, why: Why) -> Touched:
    """Take back for good whatever the device may prove with; it is thrown out within seconds."""
    require_reach(server, caller, Permission.DEVICE_REVOKE, device)
    with writing(server.engine) as session:
        require_few(session, caller, device, wall_ms())
        serials = revoking.revoke(
            session, caller.tenant, device, reason=why.reason, actor=_actor(caller), now_ms=wall_ms()
        )
    return Touched(device=device, serials=serials)


@router.post("/{device}/hold")
def hold_device(caller: Revoker, server: Server, device: str, why: Why) -> Touched:
    """Keep the device out until it is released; it is thrown out within seconds."""
    require_reach(server, caller, Permission.DEVICE_REVOKE, device)
    with writing(server.engine) as session:
        require_few(session, caller, device, wall_ms())
        serials = revoking.hold(
            session, caller.tenant, device, reason=why.reason, actor=_actor(caller), now_ms=wall_ms()
        )
    return Touched(device=device, serials=serials)


@router.post("/{device}/release")
def release_device(caller: Revoker, server: Server, device: str, why: Why) -> Touched:
    """Let a device in again that was on hold."""
    require_reach(server, caller, Permission.DEVICE_REVOKE, device)
    with writing(server.engine) as session:
        serials = revoking.release(
            session, caller.tenant, device, reason=why.reason, actor=_actor(caller), now_ms=wall_ms()
        )
    return Touched(device=device, serials=serials)


def _actor(caller: Caller) -> Actor:
    return caller.actor(Permission.DEVICE_REVOKE)
