"""People over HTTP, for administrators: accounts, what they may do, and their tokens."""

from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, Field, SecretStr

from fleet_server.access import issuing, people
from fleet_server.access.issuing import TokenView
from fleet_server.access.passwords import LONGEST
from fleet_server.access.people import NAME, WORD, PersonView, Right
from fleet_server.access.roles import Actor, Caller, Permission, RoleName
from fleet_server.api.centre import Limit, PeopleManager, Server
from fleet_server.api.tokens import TokenList, TokenName

router = APIRouter(prefix="/v1/people", tags=["people"])

Name = Annotated[str, Path(max_length=63)]
Word = Annotated[str, Query(pattern=WORD)]


class RightBody(BaseModel):
    """A role, and where it holds; an empty site or tag narrows nothing."""

    role: RoleName
    site: str = Field(default="", pattern=WORD)
    tag: str = Field(default="", pattern=WORD)

    def right(self) -> Right:
        """The same as a value."""
        return Right(self.role, self.site, self.tag)


class NewPerson(BaseModel):
    """An account to make, without a password."""

    id: str = Field(pattern=NAME)
    rights: list[RightBody] = Field(default=[], max_length=100)


class PasswordBody(BaseModel):
    """The password that somebody shall have."""

    password: Annotated[SecretStr, Field(max_length=LONGEST)]


class SubjectBody(BaseModel):
    """Who somebody is at the OIDC issuer (the claim `sub`); empty for nobody."""

    subject: str = Field(max_length=255)


class PersonList(BaseModel):
    """One page of people; ``next_after`` asks for the next one, None at the end."""

    items: list[PersonView]
    next_after: str | None


@router.post("", status_code=201)
def add_person(caller: PeopleManager, server: Server, new: NewPerson) -> PersonView:
    """Make an account."""
    rights = [each.right() for each in new.rights]
    return people.add(server.engine, caller.tenant, _actor(caller), new.id, rights)


@router.get("")
def people_page(
    caller: PeopleManager,
    server: Server,
    limit: Limit = 100,
    after: Annotated[str, Query(max_length=63)] = "",
) -> PersonList:
    """People in the order of their names, from the first one after ``after`` on."""
    items = people.list_people(server.engine, caller.tenant, after, limit)
    return PersonList(items=items, next_after=items[-1].id if len(items) == limit else None)


@router.post("/{name}/rights")
def grant_right(caller: PeopleManager, server: Server, name: Name, body: RightBody) -> PersonView:
    """Give a role."""
    return people.grant(server.engine, caller.tenant, _actor(caller), name, body.right())


@router.delete("/{name}/rights")
def take_right(
    caller: PeopleManager, server: Server, name: Name, role: RoleName, site: Word = "", tag: Word = ""
) -> PersonView:
    """Take a role away. The last administrator stays one."""
    return people.ungrant(server.engine, caller.tenant, _actor(caller), name, Right(role, site, tag))


@router.post("/{name}/disable")
def disable_person(caller: PeopleManager, server: Server, name: Name) -> PersonView:
    """Close an account: sessions, tokens and the open invitations of this person end for good."""
    return people.disable(server.engine, caller.tenant, _actor(caller), name)


@router.post("/{name}/enable")
def enable_person(caller: PeopleManager, server: Server, name: Name) -> PersonView:
    """Open an account again, also one that wrong passwords have closed for a while."""
    return people.enable(server.engine, caller.tenant, _actor(caller), name)


@router.put("/{name}/password", status_code=204)
def set_password(caller: PeopleManager, server: Server, name: Name, body: PasswordBody) -> None:
    """Give somebody a password; they change it by themselves: `PUT /v1/session/password`."""
    password = body.password.get_secret_value()
    people.set_password(server.engine, caller.tenant, _actor(caller), name, password)


@router.put("/{name}/subject")
def link_person(caller: PeopleManager, server: Server, name: Name, body: SubjectBody) -> PersonView:
    """Say who somebody is at the OIDC issuer."""
    return people.link(server.engine, caller.tenant, _actor(caller), name, body.subject)


@router.get("/{name}/tokens")
def tokens_of(caller: PeopleManager, server: Server, name: Name) -> TokenList:
    """The living tokens and sessions of somebody, without themselves."""
    return TokenList(items=issuing.list_tokens(server.engine, caller.tenant, name))


@router.delete("/{name}/tokens/{token}")
def revoke_of(caller: PeopleManager, server: Server, name: Name, token: TokenName) -> TokenView:
    """Let a token or a session of somebody be worth nothing from now on."""
    return issuing.revoke(server.engine, caller.tenant, _actor(caller), name, token)


def _actor(caller: Caller) -> Actor:
    return caller.actor(Permission.PEOPLE_MANAGE)
