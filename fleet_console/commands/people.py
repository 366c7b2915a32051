"""``fleet person`` and ``fleet token``: who may do what, and with which tokens."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

import typer

from fleet_console.commands.durations import seconds
from fleet_console.commands.options import AsJson, placed, show
from fleet_console.commands.passphrases import ask_password
from fleet_console.errors import UsageError
from fleet_console.sources.http import Place
from fleet_console.tables import age, table
from fleet_protocol.texts import _

person_app: Final = typer.Typer(help=_("People and what they may do."), no_args_is_help=True)
token_app: Final = typer.Typer(help=_("Your tokens, for programs."), no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help=_("The person."))]
TokenName = Annotated[str, typer.Argument(metavar="NAME", help=_("The token's name."))]
Role = Annotated[
    str, typer.Option(metavar="ROLE", help=_("viewer, technician, operator, approver or admin."))
]
RoleOrNone = Annotated[str | None, typer.Option(metavar="ROLE", help=_("For this role at most."))]
Site = Annotated[str, typer.Option(metavar="SITE", help=_("At this site alone."))]
Tag = Annotated[str, typer.Option(metavar="TAG", help=_("On devices with this tag alone."))]
Person = Annotated[str | None, typer.Option(metavar="NAME", help=_("Somebody else's, for administrators."))]


@person_app.command("add", help=_("Make an account with a role; more roles come with 'grant'."))
@placed
def add(
    name: Name, *, place: Place, role: Role, site: Site = "", tag: Tag = "", as_json: AsJson = False
) -> None:
    """Make an account."""
    body = {"id": name, "rights": [{"role": role, "site": site, "tag": tag}]}
    with place.connect() as centre:
        person = centre.post("/v1/people", body).content
    text = _("{name} is added. Let them in with: fleet person password {name}").format(name=name)
    show(person, text, as_json=as_json)


@person_app.command("list", help=_("List the people and what they may do where."))
@placed
def list_people(*, place: Place, as_json: AsJson = False) -> None:
    """Everybody."""
    with place.connect() as centre:
        answer = centre.pages("/v1/people")
    show(answer.content, people_table(answer.content, answer.now_ms), as_json=as_json)


@person_app.command("grant", help=_("Give somebody a role, everywhere or where you say."))
@placed
def grant(
    name: Name, *, place: Place, role: Role, site: Site = "", tag: Tag = "", as_json: AsJson = False
) -> None:
    """Give a role."""
    with place.connect() as centre:
        person = centre.post(f"/v1/people/{name}/rights", {"role": role, "site": site, "tag": tag}).content
    show(person, _rights(person), as_json=as_json)


@person_app.command("ungrant", help=_("Take a role from somebody, as it was given."))
@placed
def ungrant(
    name: Name, *, place: Place, role: Role, site: Site = "", tag: Tag = "", as_json: AsJson = False
) -> None:
    """Take a role away."""
    with place.connect() as centre:
        person = centre.delete(f"/v1/people/{name}/rights", role=role, site=site, tag=tag).content
    show(person, _rights(person), as_json=as_json)


@person_app.command("disable", help=_("Close an account: nobody gets in with it any more."))
@placed
def disable(name: Name, *, place: Place, as_json: AsJson = False) -> None:
    """Close an account."""
    with place.connect() as centre:
        person = centre.post(f"/v1/people/{name}/disable", {}).content
    show(person, _("{name} cannot get in any more.").format(name=name), as_json=as_json)


@person_app.command("enable", help=_("Open an account again, also one that wrong passwords closed."))
@placed
def enable(name: Name, *, place: Place, as_json: AsJson = False) -> None:
    """Open an account."""
    with place.connect() as centre:
        person = centre.post(f"/v1/people/{name}/enable", {}).content
    show(person, _("{name} can get in again.").format(name=name), as_json=as_json)


@person_app.command("password", help=_("Give somebody a password; without a name, change your own."))
@placed
def password(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help=_("The person."))] = None,
    *,
    place: Place,
) -> None:
    """Set a password; the sessions of whose it is end."""
    with place.connect() as centre:
        if name is None:
            who = _("yourself")
            body = {"password": ask_password(who, is_new=False)}
            centre.put("/v1/session/password", body | {"new_password": ask_password(who, is_new=True)})
        else:
            centre.put(f"/v1/people/{name}/password", {"password": ask_password(name, is_new=True)})
    typer.echo(_("The password is set, and all sessions with the old one have ended."))


@person_app.command(
    "link", help=_("Say who somebody is at the OIDC issuer (the claim 'sub'); '' for nobody.")
)
@placed
def link(
    name: Name,
    subject: Annotated[str, typer.Argument(metavar="SUBJECT", help=_("What the issuer calls them."))],
    *,
    place: Place,
    as_json: AsJson = False,
) -> None:
    """Link an account to a subject."""
    with place.connect() as centre:
        person = centre.put(f"/v1/people/{name}/subject", {"subject": subject}).content
    show(person, _("{name} is {subject!r} there.").format(name=name, subject=subject), as_json=as_json)


@token_app.command("create", help=_("Make a token, narrower than what you are; it is shown once."))
@placed
def create(
    name: TokenName,
    *,
    place: Place,
    role: RoleOrNone = None,
    site: Site = "",
    tag: Tag = "",
    expires: Annotated[str, typer.Option(metavar="TIME", help=_("How long it lives: 12h, 90d."))] = "90d",
    as_json: AsJson = False,
) -> None:
    """Make a token."""
    lifetime_s = seconds(expires)
    if lifetime_s is None:
        raise UsageError(
            _("--expires {given!r} is no time; give for example 12h or 90d").format(given=expires)
        )
    body = {"name": name, "role": role, "site": site, "tag": tag, "expires_s": lifetime_s}
    with place.connect() as centre:
        made = centre.post("/v1/tokens", body).content
    show(made, made["token"], as_json=as_json)


@token_app.command("list", help=_("List the living tokens and sessions."))
@placed
def list_tokens(*, place: Place, person: Person = None, as_json: AsJson = False) -> None:
    """Everything somebody can get in with, but not itself."""
    with place.connect() as centre:
        answer = centre.get(f"/v1/people/{person}/tokens" if person else "/v1/tokens")
    items = answer.content["items"]
    show(items, tokens_table(items, answer.now_ms), as_json=as_json)


@token_app.command("revoke", help=_("Let a token or a session be worth nothing from now on."))
@placed
def revoke(name: TokenName, *, place: Place, person: Person = None, as_json: AsJson = False) -> None:
    """End a token."""
    with place.connect() as centre:
        path = f"/v1/people/{person}/tokens/{name}" if person else f"/v1/tokens/{name}"
        token = centre.delete(path).content
    show(token, _("{name} is worth nothing any more.").format(name=name), as_json=as_json)


def people_table(items: Sequence[Mapping[str, Any]], now_ms: int) -> str:
    """People as text."""
    heads = (_("PERSON"), _("STATE"), _("ADDED"), _("LOGIN"), _("MAY"))
    rows = (
        (one["id"], _state(one, now_ms), age(one["created_ms"], now_ms), _ways_in(one), _rights(one))
        for one in items
    )
    return table(heads, rows)


def tokens_table(items: Sequence[Mapping[str, Any]], now_ms: int) -> str:
    """Tokens as text."""
    heads = (_("TOKEN"), _("KIND"), _("MADE"), _("ENDS IN"), _("AT MOST"))
    rows = (
        (
            one["name"],
            one["kind"],
            age(one["created_ms"], now_ms),
            _("never") if one["expires_ms"] is None else age(now_ms, one["expires_ms"]),
            _where(one["role"] or _("all that you may"), one["site"], one["tag"]),
        )
        for one in items
    )
    return table(heads, rows)


def _state(one: Mapping[str, Any], now_ms: int) -> str:
    if one["disabled_ms"] is not None:
        return _("disabled")
    return _("locked") if one["locked_until_ms"] > now_ms else _("open")


def _ways_in(one: Mapping[str, Any]) -> str:
    ways = [_("password")] if one["has_password"] else []
    return ", ".join([*ways, *([_("oidc")] if one["subject"] else [])]) or "-"


def _rights(one: Mapping[str, Any]) -> str:
    return ", ".join(_where(right["role"], right["site"], right["tag"]) for right in one["rights"]) or "-"


def _where(what: str, site: str, tag: str) -> str:
    places = [f"site={site}"] if site else []
    return " ".join([what, *places, *([f"tag={tag}"] if tag else [])])
