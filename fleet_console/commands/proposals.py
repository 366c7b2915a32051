"""``fleet proposal`` and ``fleet approval-rule``: asking for changes, and deciding on other people's."""

import json
from typing import Annotated, Any, Final

import typer

from fleet_console.commands import proposal_text
from fleet_console.commands.options import AsJson, placed, show
from fleet_console.commands.proposing import Reason, Wait, require_done, say
from fleet_console.errors import ConsoleError, UsageError
from fleet_console.sources.http import Answer, Place
from fleet_protocol.texts import _

proposal_app: Final = typer.Typer(help=_("Changes that wait for somebody's approval."), no_args_is_help=True)
rule_app: Final = typer.Typer(help=_("How many approvals a change takes."), no_args_is_help=True)

Id = Annotated[str, typer.Argument(metavar="ID", help=_("The proposal, as 'fleet proposal list' names it."))]
Yes = Annotated[bool, typer.Option("--yes", help=_("Do it without asking."))]


@proposal_app.command("make", help=_("Ask for a change by its name; docs/approvals.md lists them."))
@placed
def make(
    action: Annotated[str, typer.Argument(metavar="ACTION", help=_("For example escalation.budget."))],
    arguments: Annotated[str, typer.Argument(metavar="JSON", help=_("What the action takes."))],
    *,
    place: Place,
    reason: Reason,
    wait: Wait = False,
    as_json: AsJson = False,
) -> None:
    """Any change."""
    body = {"action": action, "arguments": _object(arguments), "reason": reason}
    with place.connect() as centre:
        say(
            centre,
            centre.post("/v1/proposals", body),
            _("It was carried out."),
            wait=wait,
            as_json=as_json,
        )


@proposal_app.command("list", help=_("List the proposals, the newest first."))
@placed
def list_proposals(
    *,
    place: Place,
    waiting: Annotated[bool, typer.Option("--waiting", help=_("Only those that wait."))] = False,
    as_json: AsJson = False,
) -> None:
    """Every proposal."""
    with place.connect() as centre:
        answer = centre.pages("/v1/proposals", waiting=str(waiting).lower())
    show(answer.content, proposal_text.proposals(answer.content, answer.now_ms), as_json=as_json)


@proposal_app.command("show", help=_("Show one: what it changes, what it reaches, who said what."))
@placed
def show_proposal(identity: Id, *, place: Place, as_json: AsJson = False) -> None:
    """One proposal's page."""
    with place.connect() as centre:
        answer = centre.get(f"/v1/proposals/{identity}")
    text = f"{proposal_text.page(answer.content, answer.now_ms)}\n\n{_next(answer.content)}"
    show(answer.content, text, as_json=as_json)


@proposal_app.command("approve", help=_("Agree to somebody else's proposal; the last one carries it out."))
@placed
def approve(
    identity: Id,
    *,
    place: Place,
    reason: Annotated[str, typer.Option(metavar="TEXT", help=_("What convinced you."))] = "",
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Show it, have its id confirmed, and agree to exactly what was shown."""
    with place.connect() as centre:
        answer = centre.get(f"/v1/proposals/{identity}")
        if not yes:
            _confirm(answer)
        body = {"sha256": answer.content["proposal"]["sha256"], "reason": reason}
        page = centre.post(f"/v1/proposals/{identity}/approve", body).content
    require_done(page)
    show(page, f"{proposal_text.headline(page['proposal'])}\n{_next(page)}", as_json=as_json)


@proposal_app.command("reject", help=_("Say no to somebody else's proposal, which ends it."))
@placed
def reject(identity: Id, *, place: Place, reason: Reason, as_json: AsJson = False) -> None:
    """Reject it."""
    _act(place, f"/v1/proposals/{identity}/reject", {"reason": reason}, as_json=as_json)


@proposal_app.command("withdraw", help=_("Take back what you have proposed."))
@placed
def withdraw(identity: Id, *, place: Place, as_json: AsJson = False) -> None:
    """Withdraw it."""
    _act(place, f"/v1/proposals/{identity}/withdraw", {}, as_json=as_json)


@proposal_app.command("break-glass", help=_("Carry it out without approvals, for everybody to see."))
@placed
def break_glass(
    identity: Id, *, place: Place, reason: Reason, yes: Yes = False, as_json: AsJson = False
) -> None:
    """For emergencies: the server is unwell until somebody else acknowledges it."""
    with place.connect() as centre:
        answer = centre.get(f"/v1/proposals/{identity}")
        if not yes:
            _confirm(answer)
        page = centre.post(f"/v1/proposals/{identity}/break-glass", {"reason": reason}).content
    require_done(page)
    show(page, f"{proposal_text.headline(page['proposal'])}\n{_next(page)}", as_json=as_json)


@proposal_app.command("acknowledge", help=_("Take note that somebody else has broken the glass."))
@placed
def acknowledge(identity: Id, *, place: Place, as_json: AsJson = False) -> None:
    """The server is well again."""
    _act(place, f"/v1/break-glass/{identity}/acknowledge", {}, as_json=as_json)


@rule_app.command("list", help=_("List the rules; where there is none, a change takes one approval."))
@placed
def list_rules(*, place: Place, as_json: AsJson = False) -> None:
    """Every rule."""
    with place.connect() as centre:
        items = centre.get("/v1/approval-rules").content["items"]
    show(items, proposal_text.rules(items), as_json=as_json)


@rule_app.command("set", help=_("Ask for another rule; the rules of now say who has to agree."))
@placed
def set_rule(
    *,
    place: Place,
    reason: Reason,
    approvals: Annotated[
        int | None, typer.Option(metavar="N", help=_("0 for none; without it, the rule is taken away."))
    ] = None,
    site: Annotated[str, typer.Option(metavar="SITE", help=_("Only at this site."))] = "",
    action: Annotated[str, typer.Option(metavar="ACTION", help=_("Only for this action."))] = "",
    wait: Wait = False,
    as_json: AsJson = False,
) -> None:
    """Propose a rule."""
    body = {"site": site, "action": action, "approvals": approvals, "reason": reason}
    with place.connect() as centre:
        answer = centre.put("/v1/approval-rules", body)
        say(centre, answer, _("The rule holds."), wait=wait, as_json=as_json)


def _act(place: Place, path: str, body: dict[str, Any], *, as_json: bool) -> None:
    with place.connect() as centre:
        page = centre.post(path, body).content
    show(page, proposal_text.headline(page["proposal"]), as_json=as_json)


def _next(page: Any) -> str:
    return proposal_text.next_step(page["proposal"])


def _confirm(answer: Answer) -> None:
    """Show everything, and have the end of the proposal's id typed."""
    identity = str(answer.content["proposal"]["id"])
    typer.echo(proposal_text.page(answer.content, answer.now_ms), err=True)
    tail = identity[-proposal_text.TAIL :]
    question = _("\nType the last {count} characters of its id to go on").format(count=len(tail))
    try:
        given = typer.prompt(question, default="", show_default=False, err=True)
    except typer.Abort:
        given = ""
    if given.strip() != tail:
        raise ConsoleError(
            _("nothing was changed; confirm by typing {tail}, or give --yes").format(tail=tail)
        )


def _object(text: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise UsageError(_("{text!r} is no JSON: {reason}").format(text=text[:80], reason=error)) from error
    if not isinstance(content, dict):
        raise UsageError(_("the action takes a JSON object, like '{{}}'").format())
    return content
