"""``fleet login`` and ``fleet logout``: a session that later commands find by themselves."""

from typing import Annotated, Any

import httpx
import typer

from fleet_console.commands.options import AsJson, placed, show, tell
from fleet_console.commands.passphrases import ask_password
from fleet_console.errors import ConsoleError, UsageError
from fleet_console.sources import logins
from fleet_console.sources.http import Access, Place, Server
from fleet_console.sources.logins import Login
from fleet_protocol.texts import _


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    app.command("login", help=_("Log in; commands then find the server and you by themselves."))(login)
    app.command("logout", help=_("End the session, here and on the server."))(logout)


@placed
def login(
    *,
    place: Place,
    name: Annotated[str | None, typer.Option(metavar="NAME", help=_("Who you are there."))] = None,
    oidc: Annotated[
        bool, typer.Option("--oidc", help=_("Log in at the issuer that the server names, in a browser."))
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Open a session and keep its token."""
    access = place.stranger()
    with httpx.Client(**access.options) as client:
        server = Server(client)
        opened = _at_issuer(server) if oidc else _with_password(server, name)
    kept = Login(access.url, opened["person"], opened["token"], opened["expires_ms"], access.ca is not None)
    logins.keep(kept, access.ca)
    told = {"server": access.url, "person": kept.person, "expires_ms": kept.expires_ms}
    text = _("You are {person} at {url}.").format(person=kept.person, url=access.url)
    show(told, text, as_json=as_json)


@placed
def logout(*, place: Place) -> None:
    """End the session, and forget its token even where the server does not answer."""
    kept = place.login()
    try:
        with httpx.Client(**Access(kept.url, kept.token, place.ca or kept.ca).options) as client:
            Server(client).delete("/v1/session")
    except ConsoleError as error:
        tell(str(error))
    finally:
        logins.forget(kept.url)
    typer.echo(_("You are not logged in at {url} any more.").format(url=kept.url))


def _with_password(server: Server, name: str | None) -> dict[str, Any]:
    who = name or _asked_name()
    body = {"name": who, "password": ask_password(who, is_new=False)}
    return dict(server.post("/v1/session", body).content)


def _at_issuer(server: Server) -> dict[str, Any]:
    # Only who logs in that way needs a web server.
    from fleet_console.sources import oidc

    offer = server.get("/v1/session/oidc").content
    body = {"id_token": oidc.id_token(offer, tell), "nonce": offer["nonce"]}
    return dict(server.post("/v1/session/oidc", body).content)


def _asked_name() -> str:
    try:
        return str(typer.prompt(_("Name"), err=True))
    except typer.Abort:
        raise UsageError(_("who are you? Give --name NAME")) from None
