"""What one device may prove with, over HTTP: taken back for good, put on hold, given back."""

from collections.abc import Callable

from fastapi import APIRouter
from pydantic import BaseModel

from fleet_server.access.roles import Caller, Permission
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
    return _ordered(server, caller, device, why, revoking.revoke, puts_out=True)


@router.post("/{device}/hold")
def hold_device(caller: Revoker, server: Server, device: str, why: Why) -> Touched:
    """Keep the device out until it is released; it is thrown out within seconds."""
    return _ordered(server, caller, device, why, revoking.hold, puts_out=True)


@router.post("/{device}/release")
def release_device(caller: Revoker, server: Server, device: str, why: Why) -> Touched:
    """Let a device in again that was on hold."""
    return _ordered(server, caller, device, why, revoking.release, puts_out=False)


def _ordered(
    server: Server,
    caller: Caller,
    device: str,
    why: Why,
    order: Callable[..., list[str]],
    *,
    puts_out: bool,
) -> Touched:
    """Carry out ``order`` on a device that the caller reaches; putting out is for a few at a time."""
    require_reach(server, caller, Permission.DEVICE_REVOKE, device)
    actor, now_ms = caller.actor(Permission.DEVICE_REVOKE), wall_ms()
    with writing(server.engine) as session:
        if puts_out:
            require_few(session, caller, device, now_ms)
        serials = order(session, caller.tenant, device, reason=why.reason, actor=actor, now_ms=now_ms)
    return Touched(device=device, serials=serials)
