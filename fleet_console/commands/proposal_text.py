"""Proposals and approval rules as text. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from fleet_console.tables import age, table
from fleet_protocol.texts import _

WAITS: Final = "proposed"
DONE: Final = "executed"
TAIL: Final = 4
"""How many characters of its id somebody types who approves it."""

_MOST_DEVICES: Final = 20


def proposals(items: Sequence[Mapping[str, Any]], now_ms: int) -> str:
    """The list of proposals."""
    heads = (
        _("PROPOSAL"),
        _("STATE"),
        _("AGE"),
        _("ACTION"),
        _("ASKED BY"),
        _("APPROVALS"),
        _("REACHES"),
        _("REASON"),
    )
    rows = (
        (
            one["id"],
            one["state"],
            age(one["created_ms"], now_ms),
            one["action"],
            one["proposer"],
            f"{one['approvals']}/{one['needed']}",
            reach(one),
            one["reason"],
        )
        for one in items
    )
    return table(heads, rows)


def page(content: Mapping[str, Any], now_ms: int) -> str:
    """One proposal: what it changes, what it reaches, who said what."""
    proposal = content["proposal"]
    facts = [
        (_("asked by"), proposal["proposer"]),
        (_("reason"), proposal["reason"]),
        (_("asked"), age(proposal["created_ms"], now_ms)),
        (
            _("approvals"),
            _("{given} of {needed}").format(given=proposal["approvals"], needed=proposal["needed"]),
        ),
        (_("reaches"), reach(proposal)),
        (_("digest"), proposal["sha256"]),
    ]
    parts = [headline(proposal), table(("", ""), facts).lstrip("\n"), "\n".join(diff(content["diff"]))]
    if content["reached"]:
        parts.append(_devices(content["reached"]))
    if said := list(votes(content, now_ms)):
        parts.append("\n".join(said))
    return "\n\n".join(parts)


def headline(proposal: Mapping[str, Any]) -> str:
    """A proposal in one line."""
    text = _("{id}: {action}, {state}").format(**{key: proposal[key] for key in ("id", "action", "state")})
    return f"{text} ({proposal['outcome']})" if proposal["outcome"] else text


def reach(proposal: Mapping[str, Any]) -> str:
    """What it reaches, in a few words."""
    if proposal["everywhere"]:
        return _("everything ({count} devices now)").format(count=proposal["devices"])
    sites = ", ".join(site or _("no site") for site in proposal["sites"])
    return _("{count} devices at {sites}").format(count=proposal["devices"], sites=sites)


def diff(lines: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What changes, a line for each thing; a longer text stands below its name."""
    for line in lines:
        after = _said(line["after"])
        if "\n" in after:
            yield f"{line['field']}:"
            yield from (f"  + {text}" for text in after.splitlines())
        elif line["before"] is None:
            yield f"{line['field']}: {after}"
        else:
            yield f"{line['field']}: {_said(line['before'])} → {after}"


def votes(content: Mapping[str, Any], now_ms: int) -> Iterator[str]:
    """Who has said what, a line each."""
    for one in content["votes"]:
        word = _("approved by") if one["agrees"] else _("rejected by")
        ago = _("{age} ago").format(age=age(one["given_ms"], now_ms))
        doubt = "" if one["counts"] or not one["agrees"] else _(" (does not count any more)")
        yield f"{word} {one['person']}, {ago}{doubt}: {one['reason'] or '-'}"
    if glass := content["break_glass"]:
        yield _("glass broken by {person}: {reason}").format(person=glass["person"], reason=glass["reason"])
        yield (
            _("acknowledged by {person}").format(person=glass["acknowledged_by"])
            if glass["acknowledged_by"]
            else _("not acknowledged: fleet proposal acknowledge {id}").format(id=content["proposal"]["id"])
        )


def next_step(proposal: Mapping[str, Any]) -> str:
    """What to do about it now."""
    if proposal["state"] == WAITS:
        missing = proposal["needed"] - proposal["approvals"]
        return _(
            "It waits for {missing} more approval(s) of somebody else: fleet proposal approve {id}"
        ).format(missing=missing, id=proposal["id"])
    if proposal["state"] == DONE:
        return _("It was carried out.")
    return _("It was not carried out.")


def rules(items: Sequence[Mapping[str, Any]]) -> str:
    """The approval rules."""
    rows = ((one["site"] or "*", one["action"] or "*", str(one["approvals"])) for one in items)
    return table((_("SITE"), _("ACTION"), _("APPROVALS")), rows)


def _devices(reached: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        (one["id"], one["site"] or "-", str(one["has"] or "-"), str(one["runs"] or "-"))
        for one in reached[:_MOST_DEVICES]
    ]
    text = table((_("DEVICE"), _("SITE"), _("IS TO HAVE"), _("RUNS")), rows)
    more = len(reached) - _MOST_DEVICES
    return f"{text}\n{_('and {count} more (--json shows all)').format(count=more)}" if more > 0 else text


def _said(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} × {_said(each)}" for key, each in value.items())
    if isinstance(value, list):
        return f"[{', '.join(map(_said, value))}]"
    return str(value)
