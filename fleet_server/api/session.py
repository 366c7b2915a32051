"""Sessions over HTTP: logging in with a password or an issuer's word, and logging out."""

import time
from collections.abc import Callable
from typing import Annotated, Final, TypeVar

import anyio
from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter
from pydantic import BaseModel, Field, SecretStr

from fleet_server.access import people
from fleet_server.access.door import Opened
from fleet_server.access.passwords import LONGEST
from fleet_server.access.roles import Permission
from fleet_server.api.centre import Entrance, Oneself, Server, Source
from fleet_server.errors import LoginRefused

router = APIRouter(prefix="/v1/session", tags=["people"])

AT_ONCE: Final = 2
"""Passwords that are hashed at the same time: 64 MiB each, and other requests want to be answered too."""

REFUSED_S: Final = 1.0
"""How long a refusal takes at least: what is written down of it takes time, for people who exist."""

_T = TypeVar("_T")

_hashing: Final = CapacityLimiter(AT_ONCE)

Password = Annotated[SecretStr, Field(max_length=LONGEST)]


class Login(BaseModel):
    """A person's name and password."""

    name: str = Field(max_length=63)
    password: Password


class OidcLogin(BaseModel):
    """What the issuer said, and the nonce that it was asked with."""

    id_token: str = Field(max_length=16_384)
    nonce: str = Field(max_length=200)


class SessionToken(BaseModel):
    """A session's token. It is shown this once."""

    token: str
    person: str
    expires_ms: int


class OidcOffer(BaseModel):
    """How to log in at the issuer, for one login: the ID token has to carry the nonce."""

    issuer: str
    client_id: str
    authorization_endpoint: str
    token_endpoint: str
    nonce: str


class NewPassword(BaseModel):
    """One's password, and what it shall be."""

    password: Password
    new_password: Password


@router.post("", status_code=201)
async def open_session(door: Entrance, source: Source, login: Login) -> SessionToken:
    """Log in. Name and password are tried a few times; then each failure takes longer."""
    return _shown(await _tried(door.with_password, login.name, login.password, source))


@router.get("/oidc")
def oidc_offer(door: Entrance) -> OidcOffer:
    """Where to log in at the issuer, and the nonce for it."""
    issuer, endpoints, nonce = door.invitation()
    return OidcOffer(
        issuer=issuer.url,
        client_id=issuer.client_id,
        authorization_endpoint=endpoints.authorization,
        token_endpoint=endpoints.token,
        nonce=nonce,
    )


@router.post("/oidc", status_code=201)
def open_oidc_session(door: Entrance, source: Source, login: OidcLogin) -> SessionToken:
    """Log in with the issuer's word."""
    return _shown(door.with_id_token(login.id_token, login.nonce, source))


@router.put("/password", status_code=204)
async def change_password(
    caller: Oneself, door: Entrance, server: Server, source: Source, new: NewPassword
) -> None:
    """Choose another password. All sessions end, this one too."""
    await _tried(door.require_password, caller.person, new.password, source)
    await to_thread.run_sync(
        people.set_password,
        server.engine,
        server.config.tenant,
        caller.actor(Permission.SELF),
        caller.person,
        new.new_password.get_secret_value(),
        limiter=_hashing,
    )


@router.delete("", status_code=204)
def close_session(caller: Oneself, door: Entrance) -> None:
    """Log out: the token that this was asked with is worth nothing any more."""
    door.close(caller)


async def _tried(way: Callable[[str, str, str], _T], name: str, password: SecretStr, source: str) -> _T:
    """What comes of a password; a refusal takes as long whoever is meant."""
    began_s = time.monotonic()
    try:
        return await to_thread.run_sync(way, name, password.get_secret_value(), source, limiter=_hashing)
    except LoginRefused:
        await anyio.sleep(max(0.0, REFUSED_S - (time.monotonic() - began_s)))
        raise


def _shown(opened: Opened) -> SessionToken:
    return SessionToken(token=opened.token, person=opened.person, expires_ms=opened.expires_ms)
