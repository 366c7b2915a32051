"""``edge-agent update status``, ``explain`` and ``history``: what was written down, as text or as JSON."""

import datetime as dt
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from edge_agent.config import Config
from edge_agent.slots import status as slots
from edge_agent.updates import records
from edge_agent.updates.cost import costs, held
from edge_agent.updates.explaining import Finding, findings
from edge_agent.updates.ledger import DOWNLOADS
from edge_agent.updates.records import Entry, History, Installed, Journal, Slot
from edge_agent.updates.shadow_status import shadow_lines
from fleet_protocol.messages import ClockState
from fleet_protocol.targets import Mode, Target
from fleet_protocol.texts import _
from fleet_protocol.versions import Happened


class _Known(NamedTuple):
    folder: Path
    data: Path
    journal: Journal
    installed: Installed
    history: History


def tell(config: Config, action: str, *, as_json: bool) -> int:
    """Print what ``action`` asks for; the exit code."""
    from edge_agent.updates.updates import folder_of

    folder = folder_of(config)
    known = _Known(
        folder,
        config.data,
        records.load(folder, Journal),
        records.load(folder, Installed),
        records.load(folder, History),
    )
    told, content = _ACTIONS[action]
    if as_json:
        text = msgspec.json.format(msgspec.json.encode(content(known)), indent=2).decode()
    else:
        text = "\n".join(told(known))
    sys.stdout.write(text + "\n")
    return 0


def _status(known: _Known) -> list[str]:
    looked = known.journal.looked
    lines = slots.lines(known.data, known.installed)
    lines += [_installed(slot, slot.current) for slot in known.installed.slots if slot.current]
    lines += shadow_lines(known.data)
    lines += [_line(entry) for entry in known.journal.entries]
    lines += [f"  {line}" for line in costs(known.folder / DOWNLOADS, known.journal, known.installed)]
    lines += [
        _("{scope}: refused, {refusal}").format(scope=each.scope, refusal=each.refusal)
        for each in looked.refused
    ]
    if looked.problem:
        lines.append(_("The last look was not whole: {problem}").format(problem=looked.problem))
    return lines or [_("No update has been offered; what runs came fitted.")]


def _installed(slot: Slot, current: Target) -> str:
    text = (
        _("{path} {version} is installed in shadow") if slot.in_shadow else _("{path} {version} is installed")
    )
    return text.format(path=current.path, version=current.description.version)


def _status_content(known: _Known) -> dict[str, Any]:
    looked = known.journal.looked
    return {
        "installed": [slot.current for slot in known.installed.slots if slot.current],
        "updates": [
            {
                "path": entry.target.path,
                "version": entry.target.description.version,
                "sha256": entry.target.sha256,
                "mode": entry.target.description.mode,
                "state": entry.state,
                "since_wall_ms": entry.since_wall_ms,
                "refusal": entry.refusal,
                "detail": entry.detail,
            }
            for entry in known.journal.entries
        ],
        "ordered": looked.ordered,
        "refused": looked.refused,
        "problem": looked.problem,
    }


def _explain(known: _Known) -> list[str]:
    """Class, meaning and next step of everything that stands."""
    lines: list[str] = []
    for each in _findings(known):
        lines.append(_("{subject}: {code}").format(subject=each.subject, code=each.code))
        lines += [f"  {line}" for line in (each.meaning, each.detail, each.next_step) if line]
    return lines or [_("Nothing stands: what is ordered runs, nothing was refused, and nothing failed.")]


def _explain_content(known: _Known) -> list[dict[str, str]]:
    return [each._asdict() for each in _findings(known)]


def _findings(known: _Known) -> list[Finding]:
    return findings(known.journal, known.installed, held(known.folder / DOWNLOADS, known.journal))


def _history(known: _Known) -> list[str]:
    return [_happened(each) for each in known.history.entries] or [_("Nothing was ever updated here.")]


def _happened(each: Happened) -> str:
    moment = dt.datetime.fromtimestamp(each.wall_ms / 1000, dt.UTC).isoformat(" ", "seconds")
    doubt = "" if each.clock is ClockState.TRUSTED else "?"
    place = _("in shadow") if each.mode is Mode.SHADOW else ""
    parts = (
        f"{moment}{doubt}", each.subject, each.version, place, each.state, each.refusal or "", each.detail
    )  # fmt: skip
    return "  ".join(part for part in parts if part)


def _line(entry: Entry) -> str:
    described = entry.target.description
    return (
        _("{path} {version}{mode}: {state} {refusal} {detail}")
        .format(
            path=entry.target.path,
            mode=_(" in shadow") if entry.target.in_shadow else "",
            version=described.version,
            state=entry.state,
            refusal=entry.refusal or "",
            detail=entry.detail,
        )
        .rstrip()
    )


_ACTIONS: Final[Mapping[str, tuple[Callable[[_Known], list[str]], Callable[[_Known], Any]]]] = {
    "status": (_status, _status_content),
    "explain": (_explain, _explain_content),
    "history": (_history, lambda known: known.history.entries),
}
