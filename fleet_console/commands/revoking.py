"""``fleet device revoke``, ``hold`` and ``release``: who is kept out, and who comes back."""

from typing import Annotated, Any, Final

import typer

from fleet_console.commands.confirming import confirm_by_typing
from fleet_console.commands.options import AsJson, placed, show
from fleet_console.sources.http import Place, Server
from fleet_protocol.texts import _

Name = Annotated[str, typer.Argument(metavar="NAME", help=_("The device's id."))]
Reason = Annotated[str, typer.Option(metavar="TEXT", help=_("Why, for those who read it later."))]
Yes = Annotated[bool, typer.Option("--yes", help=_("Do it without asking."))]

_CUTS: Final = _("{name} loses its connection at once and cannot come back.")


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``, that of devices."""
    app.command("revoke", help=_("Take back for good whatever a device may prove with."))(revoke)
    app.command("hold", help=_("Keep a device out until it is released."))(hold)
    app.command("release", help=_("Let a device in again that is on hold."))(release)


@placed
def revoke(name: Name, reason: Reason, *, place: Place, yes: Yes = False, as_json: AsJson = False) -> None:
    """Revoke it, once somebody has confirmed that."""
    with place.connect() as centre:
        if not yes:
            warning = _CUTS.format(name=name)
            confirm_by_typing(
                name, _("{warning} Type {name} to revoke it").format(warning=warning, name=name)
            )
        done = _act(centre, name, "revoke", reason)
    _say(done, _("{name} is revoked: {count} certificates. It has to be enrolled anew."), as_json=as_json)


@placed
def hold(name: Name, reason: Reason, *, place: Place, yes: Yes = False, as_json: AsJson = False) -> None:
    """Put it on hold, once somebody has confirmed that."""
    with place.connect() as centre:
        if not yes:
            warning = _CUTS.format(name=name)
            confirm_by_typing(name, _("{warning} Type {name} to hold it").format(warning=warning, name=name))
        done = _act(centre, name, "hold", reason)
    _say(
        done,
        _("{name} is on hold: {count} certificates. Let it in again with: fleet device release {name}"),
        as_json=as_json,
    )


@placed
def release(name: Name, reason: Reason, *, place: Place, as_json: AsJson = False) -> None:
    """Release it; nothing is cut by that."""
    with place.connect() as centre:
        done = _act(centre, name, "release", reason)
    _say(done, _("{name} may come back: {count} certificates count again."), as_json=as_json)


def _act(centre: Server, name: str, action: str, reason: str) -> Any:
    return centre.post(f"/v1/devices/{name}/{action}", {"reason": reason}).content


def _say(done: Any, text: str, *, as_json: bool) -> None:
    show(done, text.format(name=done["device"], count=len(done["serials"])), as_json=as_json)
