"""Factory batches and the claims of their boards over HTTP: made, looked at, decided about."""

from typing import Annotated, Final

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, Field

from firmware_profiles import schema
from fleet_server.access.roles import Permission
from fleet_server.api.centre import Enroller, Limit, ProfileName, Server, require_on
from fleet_server.authority.signing_requests import MAX_CSR_BYTES
from fleet_server.identity import claims as decisions
from fleet_server.identity.batches import (
    BatchMade,
    BatchView,
    BatchWish,
    batch_site,
    close_batch,
    create_batch,
    list_batches,
)
from fleet_server.identity.claims import ClaimView

batch_router = APIRouter(prefix="/v1/batches", tags=["enrollment"])
claim_router = APIRouter(prefix="/v1/claims", tags=["enrollment"])

_ID: Final = r"^[a-z0-9-]{1,63}$"
_DAY_S: Final = 86_400

BatchId = Annotated[str, Path(pattern=r"^[a-z0-9-]{1,57}$")]
ClaimId = Annotated[str, Path(pattern=r"^[0-9a-f]{12}$")]


class NewBatch(BaseModel):
    """A number of boards with one image, and the request of the key that the image carries."""

    id: str = Field(pattern=r"^[a-z0-9-]{1,57}$")
    csr_pem: str = Field(max_length=MAX_CSR_BYTES)
    profile: ProfileName = schema.GENERIC
    site: str | None = Field(default=None, pattern=_ID)
    most: int = Field(ge=1, le=100_000, description="How many boards it has.")
    expires_s: int = Field(
        default=30 * _DAY_S, ge=60, le=366 * _DAY_S, description="How many seconds it lasts."
    )


class BatchList(BaseModel):
    """One page of batches; ``next_after`` asks for the next one, None at the end."""

    items: list[BatchView]
    next_after: str | None


class ClaimList(BaseModel):
    """One page of claims; ``next_after`` asks for the next one, None at the end."""

    items: list[ClaimView]
    next_after: str | None


class Approved(BaseModel):
    """Which device the board becomes, and the tags that it has from the beginning."""

    device: str = Field(pattern=_ID)
    tags: list[Annotated[str, Field(pattern=_ID)]] = Field(default=[], max_length=32)


class Rejected(BaseModel):
    """Why the board is kept out; it is told so."""

    reason: str = Field(min_length=1, max_length=200)


@batch_router.post("", status_code=201)
def make_batch(caller: Enroller, server: Server, new: NewBatch) -> BatchMade:
    """Make a factory batch: certify the key with which its boards may ask to come in."""
    require_on(caller, Permission.DEVICE_ENROLL, new.site, ())
    wish = BatchWish(new.id, new.profile, new.site, new.most, new.expires_s, new.csr_pem)
    return create_batch(server.engine, server.config, wish, caller.actor(Permission.DEVICE_ENROLL))


@batch_router.get("")
def batches(
    caller: Enroller, server: Server, limit: Limit = 100, after: Annotated[str, Query(max_length=57)] = ""
) -> BatchList:
    """Batches in the order of their names, from the first one after ``after`` on."""
    scopes = caller.scopes(Permission.DEVICE_ENROLL)
    items = list_batches(server.engine, server.config.tenant, after, limit, scopes)
    return BatchList(items=items, next_after=items[-1].id if len(items) == limit else None)


@batch_router.delete("/{batch}")
def end_batch(caller: Enroller, server: Server, batch: BatchId) -> BatchView:
    """Let no further board of a batch ask."""
    tenant = server.config.tenant
    require_on(caller, Permission.DEVICE_ENROLL, batch_site(server.engine, tenant, batch), ())
    return close_batch(server.engine, tenant, batch, caller.actor(Permission.DEVICE_ENROLL))


@claim_router.get("")
def claims(
    caller: Enroller, server: Server, limit: Limit = 100, after: Annotated[str, Query(max_length=12)] = ""
) -> ClaimList:
    """Boards that wait for a decision, from the first one after ``after`` on."""
    scopes = caller.scopes(Permission.DEVICE_ENROLL)
    items = decisions.pending(server.engine, server.config.tenant, after, limit, scopes)
    return ClaimList(items=items, next_after=items[-1].id if len(items) == limit else None)


@claim_router.post("/{claim}/approval")
def approve_claim(caller: Enroller, server: Server, claim: ClaimId, how: Approved) -> ClaimView:
    """Let a board in as a device."""
    tenant = server.config.tenant
    site = decisions.get_claim(server.engine, tenant, claim).site
    # Not by the tags that the board shall have: whoever approves names those.
    require_on(caller, Permission.DEVICE_ENROLL, site, ())
    actor = caller.actor(Permission.DEVICE_ENROLL)
    return decisions.approve(server.engine, tenant, claim, how.device, how.tags, actor)


@claim_router.post("/{claim}/rejection")
def reject_claim(caller: Enroller, server: Server, claim: ClaimId, why: Rejected) -> ClaimView:
    """Keep a board out."""
    tenant = server.config.tenant
    site = decisions.get_claim(server.engine, tenant, claim).site
    require_on(caller, Permission.DEVICE_ENROLL, site, ())
    actor = caller.actor(Permission.DEVICE_ENROLL)
    return decisions.reject(server.engine, tenant, claim, why.reason, actor)
