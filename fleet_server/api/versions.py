"""Versions over HTTP: what a device shall have and has, by its signed word; and the receipts of couriers."""

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, Field

from fleet_protocol.versions import MAX_JWS
from fleet_server.access.roles import Permission
from fleet_server.api.centre import Enroller, Reader, Server, require_reach
from fleet_server.identity.assertions import decoy_pem
from fleet_server.updates.attesting import Taken, import_receipt, opened
from fleet_server.updates.version_pages import VersionPage, versions_of

router = APIRouter(prefix="/v1", tags=["versions"])


class CarriedReceipt(BaseModel):
    """The receipt that a device wrote, as it stands in its file."""

    receipt: Annotated[str, Field(min_length=1, max_length=MAX_JWS, pattern=r"^[A-Za-z0-9_.-]+$")]


@router.get("/devices/{device}/versions")
def device_versions(caller: Reader, server: Server, device: str) -> VersionPage:
    """What a device shall have, what it has by its signed word, and why they differ."""
    require_reach(server, caller, Permission.FLEET_READ, device)
    return versions_of(server.engine, server.config.tenant, device)


@router.post("/updates/receipts")
def carried_receipt(caller: Enroller, server: Server, carried: CarriedReceipt) -> Taken:
    """Take in the receipt that a courier brought back from a device without a network."""
    said = opened(server.engine, server.config.tenant, carried.receipt, decoy_pem())
    require_reach(server, caller, Permission.DEVICE_ENROLL, said.report.device)
    return import_receipt(server.engine, server.config, said, caller.actor(Permission.DEVICE_ENROLL))
