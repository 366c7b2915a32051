"""Devices over HTTP: adding one, the list, and one device's page."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from fleet_server.access.roles import Permission
from fleet_server.api.centre import Enroller, Limit, Reader, Server
from fleet_server.devices.registry import DevicePage, DeviceSummary, Newcomer, get_device, list_devices
from fleet_server.link.authority import MAX_CSR_BYTES
from fleet_server.link.enrollment import Enrolled, enroll

router = APIRouter(prefix="/v1/devices", tags=["devices"])

_ID = r"^[a-z0-9-]{1,63}$"


class NewDevice(BaseModel):
    """A device to add, with the certificate request that its own key has signed."""

    id: str = Field(pattern=_ID)
    csr_pem: str = Field(max_length=MAX_CSR_BYTES)
    profile: str = Field(default="generic", min_length=1, max_length=64)
    site: str | None = Field(default=None, pattern=_ID)


class DeviceList(BaseModel):
    """One page of devices; ``next_after`` asks for the next one, None at the end."""

    items: list[DeviceSummary]
    next_after: str | None


@router.post("", status_code=201)
def add_device(caller: Enroller, server: Server, new: NewDevice) -> Enrolled:
    """Register a device and sign its certificate request."""
    actor = caller.actor(Permission.DEVICE_ENROLL)
    newcomer = Newcomer(new.id, new.profile, new.site)
    return enroll(server.engine, server.config, actor, newcomer, new.csr_pem)


@router.get("")
def devices(
    _caller: Reader, server: Server, limit: Limit = 100, after: Annotated[str, Query(max_length=63)] = ""
) -> DeviceList:
    """Devices in the order of their names, from the first one after ``after`` on."""
    items = list_devices(server.engine, server.config.tenant, after, limit)
    return DeviceList(items=items, next_after=items[-1].id if len(items) == limit else None)


@router.get("/{device}")
def device_page(_caller: Reader, server: Server, device: str) -> DevicePage:
    """What is known of one device."""
    return get_device(server.engine, server.config.tenant, device)
