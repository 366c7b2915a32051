"""``fleet audit``: who changed what."""

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

import typer

from fleet_console.commands.durations import ago_ms
from fleet_console.commands.options import AsJson, placed, show
from fleet_console.sources.http import Place
from fleet_console.tables import age, table
from fleet_protocol.texts import _

audit_app: Final = typer.Typer(help=_("The record of changes."), no_args_is_help=True)


@audit_app.command("list", help=_("List who changed what, when and from where; the last one at the bottom."))
@placed
def list_records(
    *,
    place: Place,
    since: Annotated[str, typer.Option(metavar="TIME", help=_("How far back: 90s, 15m, 24h, 7d."))] = "7d",
    person: Annotated[str, typer.Option(metavar="NAME", help=_("Only what this person did."))] = "",
    action: Annotated[
        str,
        typer.Option(metavar="ACTION", help=_("Only this: 'rollout.start', or 'rollout' for all of them.")),
    ] = "",
    subject: Annotated[str, typer.Option(metavar="NAME", help=_("Only what was done to this."))] = "",
    as_json: AsJson = False,
) -> None:
    """The records since a while ago."""
    with place.connect() as centre:
        answer = centre.pages(
            "/v1/audit", since_ms=ago_ms(since), person=person, action=action, subject=subject
        )
    show(answer.content, _text(answer.content, answer.now_ms), as_json=as_json)


def _text(items: Sequence[Mapping[str, Any]], now_ms: int) -> str:
    heads = (_("NUMBER"), _("AGE"), _("WHO"), _("ROLE"), _("FROM"), _("ACTION"), _("SUBJECT"), _("DETAIL"))
    rows = (
        (
            str(one["number"]),
            age(one["time_ms"], now_ms),
            one["person"],
            one["role"],
            one["source"] or "-",
            one["action"],
            one["subject"],
            _detail(one["detail"]),
        )
        for one in items
    )
    return table(heads, rows)


def _detail(detail: Mapping[str, Any]) -> str:
    return " ".join(
        f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in detail.items()
    )
