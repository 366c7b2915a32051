"""What this device says of its versions, put together from what it has written down. Pure.

What it says is signed by :mod:`edge_agent.identity.signing`; who it is sent to is decided elsewhere.
"""

from typing import NamedTuple

from edge_agent import AGENT
from edge_agent.clock import Clock
from edge_agent.service.health import as_line
from edge_agent.updates.history import end_of, installed_ms
from edge_agent.updates.marks import Marks
from edge_agent.updates.records import History, Installed, Journal
from fleet_protocol.messages import TimeBase, UpdateReport
from fleet_protocol.versions import (
    MAX_ENTRIES,
    MAX_ITEMS,
    FailedVersion,
    InstalledVersion,
    RefusedScope,
    VersionReport,
)


class Records(NamedTuple):
    """Everything that an agent has written down of its updates."""

    journal: Journal
    installed: Installed
    history: History
    marks: Marks


def statement(
    device: str, profile: str, nonce: str, clock: Clock, records: Records, updates: list[UpdateReport]
) -> VersionReport:
    """The report of ``device`` over ``nonce``, as things stand."""
    now: TimeBase = clock.now()
    history = records.history
    return VersionReport(
        device=device,
        nonce=nonce,
        agent=AGENT,
        profile=profile,
        boot_id=now.boot_id,
        wall_ms=now.wall_ms,
        clock=now.clock,
        journal=history.id,
        happened=history.happened,
        ordered=records.journal.looked.ordered[:MAX_ITEMS],
        installed=_installed(records.installed, history),
        updates=tuple(updates[:MAX_ITEMS]),
        failed=_failed(records.installed, history),
        history=history.entries[-MAX_ENTRIES:],
        refused=tuple(
            RefusedScope(scope=as_line(each.scope), refusal=each.refusal, detail=as_line(each.detail))
            for each in records.journal.looked.refused[:MAX_ITEMS]
        ),
        repositories={name: dict(mark.versions) for name, mark in records.marks.repositories.items()},
        problem=as_line(records.journal.looked.problem),
    )


def _installed(installed: Installed, history: History) -> tuple[InstalledVersion, ...]:
    return tuple(
        InstalledVersion(
            kind=slot.kind,
            name=slot.current.description.name,
            mode=slot.current.description.mode,
            version=slot.current.description.version,
            release=slot.current.description.release,
            sha256=slot.current.sha256,
            since_wall_ms=installed_ms(history, slot.current.sha256),
        )
        for slot in installed.slots[-MAX_ITEMS:]
        if slot.current is not None
    )


def _failed(installed: Installed, history: History) -> tuple[FailedVersion, ...]:
    found = []
    for each in installed.failed[-MAX_ITEMS:]:
        end = end_of(history, each.sha256)
        found.append(
            FailedVersion(
                kind=each.kind,
                name=each.name,
                release=each.release,
                sha256=each.sha256,
                refusal=end.refusal if end else None,
                detail=end.detail if end else "",
            )
        )
    return tuple(found)
