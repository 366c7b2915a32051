"""What the launcher does next: which software is started, and what its end means. Pure."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from edge_agent.launcher.record import FITTED, RESTART, Record
from fleet_protocol.texts import _

ATTEMPTS: Final = 3
"""Starts that a new version has to prove itself in; a power cut may cost it one or two."""

STRIKES: Final = 5
"""Deaths in a row, each soon after the start, before a version that had proved itself is given up."""

SOON_S: Final = 60.0
"""A version that lasts this long came up."""

LEAST_PAUSE_S: Final = 0.5
MOST_PAUSE_S: Final = 60.0

IN_USE: Final = 6
"""The exit code of an agent that found its data folder in use: a command on site was a moment quicker."""

_FORESEEN: Final = range(2, 65)
"""Exit codes that say what is wrong around the agent: configuration, identity, a folder in use. Another
version would say the same."""


@dataclass(frozen=True, slots=True)
class End:
    """How a run ended: exit code, negative for a signal; after how many seconds.

    ``overdue``: it was ended because it had not proved itself in time.
    """

    code: int
    lived_s: float
    overdue: bool = False


@dataclass(frozen=True, slots=True)
class Next:
    """What follows an end: the record, deaths in a row, and seconds to wait."""

    record: Record
    strikes: int
    pause_s: float


def to_start(record: Record, is_whole: Callable[[str], bool]) -> Record:
    """The record as it has to stand before ``record.current`` is started."""
    if not is_whole(record.current):
        return to_start(record.fallen(_("its files are gone"), blamed=False), is_whole)
    if record.trying and record.attempts >= ATTEMPTS:
        reason = _("started {count} times without proving itself").format(count=record.attempts)
        return to_start(record.fallen(reason), is_whole)
    return replace(record, attempts=record.attempts + 1) if record.trying else record


def ended(record: Record, end: End, strikes: int) -> Next:
    """What follows ``end``; ``record`` was read after it."""
    if end.code == RESTART:
        return Next(record, 0, 0.0)
    soon = end.lived_s < SOON_S
    strikes = strikes + 1 if soon else 0
    pause_s = min(MOST_PAUSE_S, LEAST_PAUSE_S * 2 ** max(0, strikes - 1))
    if record.trying:
        if end.overdue:
            reason = _("it did not prove itself within {seconds:.0f} s").format(seconds=record.deadline_s)
            return Next(record.fallen(reason), 0, 0.0)
        # It did not begin; but what says so every time has a fault of its own.
        vain = end.code == IN_USE and strikes < STRIKES
        return Next(stopped(record) if vain else record, strikes, pause_s)
    if strikes >= STRIKES and end.code not in _FORESEEN and record.current != FITTED:
        reason = _("it ended {count} times within {seconds:.0f} s, the last time with code {code}")
        reason = reason.format(count=strikes, seconds=SOON_S, code=end.code)
        return Next(record.fallen(reason), 0, 0.0)
    return Next(record, strikes, pause_s)


def stopped(record: Record) -> Record:
    """After an orderly stop: it is no attempt that failed."""
    return replace(record, attempts=max(0, record.attempts - 1)) if record.trying else record
