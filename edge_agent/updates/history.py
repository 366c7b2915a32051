"""The install history: what was installed, committed, taken back or refused, when and why. Pure.

It is written before the journal says the same, so that a power cut between the two costs no entry; what is
then done again is not told twice.
"""

from typing import Final

import msgspec

from edge_agent.service.health import as_line
from edge_agent.updates.records import Entry, History, Refusing
from fleet_protocol.messages import ClockState
from fleet_protocol.update_states import UpdateState
from fleet_protocol.versions import Happened

KEPT: Final = 200
"""Entries that the device keeps: some years of updates."""

_TOLD: Final = frozenset(
    {UpdateState.PROBATION, UpdateState.COMMITTED, UpdateState.ROLLED_BACK, UpdateState.FAILED}
)


def noted(history: History, entry: Entry, wall_ms: int, clock: ClockState) -> History:
    """``history`` after ``entry`` came to its state; unchanged for a state that is only on the way."""
    if entry.state not in _TOLD:
        return history
    described = entry.target.description
    return _with(
        history,
        Happened(
            number=history.happened + 1,
            wall_ms=wall_ms,
            clock=clock,
            subject=entry.target.path,
            version=described.version,
            release=described.release,
            sha256=entry.target.sha256,
            state=entry.state,
            refusal=entry.refusal,
            detail=entry.detail,
            mode=described.mode,
        ),
    )


def noted_refusal(history: History, refused: Refusing, wall_ms: int, clock: ClockState) -> History:
    """``history`` after a whole repository was refused."""
    return _with(
        history,
        Happened(
            number=history.happened + 1,
            wall_ms=wall_ms,
            clock=clock,
            subject=as_line(refused.scope),
            state=UpdateState.FAILED,
            refusal=refused.refusal,
            detail=as_line(refused.detail),
        ),
    )


def installed_ms(history: History, sha256: str) -> int:
    """When the artifact of this digest was last installed, ms since 1970; 0 where that is not known."""
    return next(
        (
            each.wall_ms
            for each in reversed(history.entries)
            if each.sha256 == sha256 and each.state is UpdateState.PROBATION
        ),
        0,
    )


def end_of(history: History, sha256: str) -> Happened | None:
    """How the last update to the artifact of this digest failed, as far as that is known."""
    return next(
        (
            each
            for each in reversed(history.entries)
            if each.sha256 == sha256 and each.state in {UpdateState.FAILED, UpdateState.ROLLED_BACK}
        ),
        None,
    )


def _with(history: History, happened: Happened) -> History:
    last = next((each for each in reversed(history.entries) if each.subject == happened.subject), None)
    if last is not None and _same(last, happened):
        return history
    return msgspec.structs.replace(
        history, happened=happened.number, entries=(*history.entries, happened)[-KEPT:]
    )


def _same(last: Happened, now: Happened) -> bool:
    """Whether nothing but the time is another: an act that was begun again, or a refusal repeated."""
    kept = msgspec.structs.replace(last, number=now.number, wall_ms=now.wall_ms, clock=now.clock)
    return kept == now
