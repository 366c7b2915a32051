"""Devices over HTTP: adding one, the list, one device's page, and the words that find it."""

from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, Field

from firmware_profiles import schema
from fleet_protocol.enrollment import Enrolled
from fleet_server.access.roles import Permission
from fleet_server.api.centre import Enroller, Limit, ProfileName, Reader, Server, require_on, require_reach
from fleet_server.authority.signing_requests import MAX_CSR_BYTES
from fleet_server.devices.registry import DevicePage, DeviceSummary, get_device, list_devices
from fleet_server.devices.tagging import Tags, tag, untag
from fleet_server.identity.enrollment import Newcomer, enroll

router = APIRouter(prefix="/v1/devices", tags=["devices"])

_ID = r"^[a-z0-9-]{1,63}$"
_SERIAL = r"^[\x20-\x7e]*$"

Tag = Annotated[str, Path(pattern=_ID, description="A word of small letters, digits and '-'.")]


class NewDevice(BaseModel):
    """A device to add, with the certificate request that its own key has signed."""

    id: str = Field(pattern=_ID)
    csr_pem: str = Field(max_length=MAX_CSR_BYTES)
    profile: ProfileName = schema.GENERIC
    site: str | None = Field(default=None, pattern=_ID)
    serial: str = Field(default="", max_length=128, pattern=_SERIAL, description="Of its board.")


class DeviceList(BaseModel):
    """One page of devices; ``next_after`` asks for the next one, None at the end."""

    items: list[DeviceSummary]
    next_after: str | None


@router.post("", status_code=201)
def add_device(caller: Enroller, server: Server, new: NewDevice) -> Enrolled:
    """Register a device and sign its certificate request."""
    require_on(caller, Permission.DEVICE_ENROLL, new.site, ())
    newcomer = Newcomer(new.id, new.profile, new.site, new.serial, "added")
    actor = caller.actor(Permission.DEVICE_ENROLL)
    return enroll(server.engine, server.config, newcomer, new.csr_pem, actor)


@router.get("")
def devices(
    caller: Reader, server: Server, limit: Limit = 100, after: Annotated[str, Query(max_length=63)] = ""
) -> DeviceList:
    """Devices in the order of their names, from the first one after ``after`` on."""
    scopes = caller.scopes(Permission.FLEET_READ)
    items = list_devices(server.engine, server.config.tenant, after, limit, scopes)
    return DeviceList(items=items, next_after=items[-1].id if len(items) == limit else None)


@router.get("/{device}")
def device_page(caller: Reader, server: Server, device: str) -> DevicePage:
    """What is known of one device."""
    require_reach(server, caller, Permission.FLEET_READ, device)
    return get_device(server.engine, server.config.tenant, device)


@router.put("/{device}/tags/{word}")
def add_tag(caller: Enroller, server: Server, device: str, word: Tag) -> Tags:
    """Put a word on a device, to find it by and to hand out rights by."""
    require_reach(server, caller, Permission.DEVICE_ENROLL, device)
    return tag(server.engine, server.config.tenant, device, word, caller.actor(Permission.DEVICE_ENROLL))


@router.delete("/{device}/tags/{word}")
def remove_tag(caller: Enroller, server: Server, device: str, word: Tag) -> Tags:
    """Take a word off a device."""
    require_reach(server, caller, Permission.DEVICE_ENROLL, device)
    return untag(server.engine, server.config.tenant, device, word, caller.actor(Permission.DEVICE_ENROLL))
