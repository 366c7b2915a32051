"""API tokens over HTTP: one's own, made narrower than what one came with."""

from typing import Annotated, Final

from fastapi import APIRouter, Path
from pydantic import BaseModel, Field

from fleet_server.access import issuing
from fleet_server.access.issuing import TokenView, Wish
from fleet_server.access.people import WORD
from fleet_server.access.roles import RoleName, Scope
from fleet_server.api.centre import Oneself, Server

router = APIRouter(prefix="/v1/tokens", tags=["people"])

LONGEST_S: Final = 366 * 86_400
"""How long a token may live: who has forgotten it by then gets a new one."""

TokenName = Annotated[str, Path(max_length=64)]


class NewToken(BaseModel):
    """A token to make. What is not given is not narrowed beyond what it is asked for with."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")
    role: RoleName | None = None
    site: str = Field(default="", pattern=WORD)
    tag: str = Field(default="", pattern=WORD)
    expires_s: int = Field(default=90 * 86_400, ge=60, le=LONGEST_S)


class MadeToken(BaseModel):
    """A new token. It is shown this once."""

    token: str
    made: TokenView


class TokenList(BaseModel):
    """One's living tokens and sessions."""

    items: list[TokenView]


@router.post("", status_code=201)
def make_token(caller: Oneself, server: Server, new: NewToken) -> MadeToken:
    """Make a token for a program, or for a place where one does not log in."""
    wish = Wish(new.name, new.role, Scope(new.site, new.tag), new.expires_s * 1000)
    token, made = issuing.make(server.engine, caller, wish)
    return MadeToken(token=token, made=made)


@router.get("")
def tokens(caller: Oneself, server: Server) -> TokenList:
    """One's own living tokens and sessions, without themselves."""
    return TokenList(items=issuing.list_tokens(server.engine, caller.tenant, caller.person))


@router.delete("/{name}")
def revoke_token(caller: Oneself, server: Server, name: TokenName) -> TokenView:
    """Let one of one's tokens or sessions be worth nothing from now on."""
    return issuing.revoke_own(server.engine, caller, name)
