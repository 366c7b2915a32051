"""What every command says that asks for a change: the proposal, and how to have it approved."""

import time
from collections.abc import Callable
from typing import Annotated, Any, Final

import typer

from fleet_console.commands import proposal_text
from fleet_console.commands.options import show, tell
from fleet_console.errors import ConsoleError, Unreachable
from fleet_console.sources.http import Answer, Server
from fleet_protocol.texts import _

Reason = Annotated[str, typer.Option(metavar="TEXT", help=_("Why, for whoever approves it and asks later."))]
Wait = Annotated[bool, typer.Option("--wait", help=_("Wait until it was decided on and carried out."))]

EVERY_S: Final = 1.0
"""How often it asks; a person takes longer to read."""

PATIENCE_S: Final = 60.0
"""How long the server may be away before waiting ends."""


def say(centre: Server, answer: Answer, done: str, *, wait: bool, as_json: bool) -> None:
    """Tell what has become of a change that was asked for; ``done`` once it was made.

    Raises:
        ConsoleError: it was waited for, and was not carried out.
    """
    page = answer.content
    if wait:
        tell(proposal_text.page(page, answer.now_ms))
        tell(proposal_text.next_step(page["proposal"]))
        page = decided(centre, page["proposal"]["id"])
    is_done = page["proposal"]["state"] == proposal_text.DONE
    text = f"{proposal_text.page(page, answer.now_ms)}\n\n{proposal_text.next_step(page['proposal'])}"
    show(page, done if is_done else text, as_json=as_json)


def decided(centre: Server, identity: str) -> Any:
    """The proposal's page, once it was carried out.

    Raises:
        ConsoleError: it was not.
        Unreachable: the server has not answered for :data:`PATIENCE_S`.
    """
    page = _until_decided(lambda: centre.get(f"/v1/proposals/{identity}").content)
    require_done(page)
    return page


def require_done(page: Any) -> None:
    """See to it that a proposal that was decided on was carried out.

    Raises:
        ConsoleError: it was not, with what the server says about it.
    """
    if page["proposal"]["state"] not in {proposal_text.DONE, proposal_text.WAITS}:
        raise ConsoleError(
            _("it was not carried out: {proposal}").format(proposal=proposal_text.headline(page["proposal"]))
        )


def _until_decided(look: Callable[[], Any]) -> Any:
    heard = time.monotonic()
    while True:
        try:
            page, heard = look(), time.monotonic()
        except Unreachable:
            if time.monotonic() - heard > PATIENCE_S:
                raise
        else:
            if page["proposal"]["state"] not in {proposal_text.WAITS, "approved"}:
                return page
        time.sleep(EVERY_S)
