"""Whether a new version has proved itself: few criteria, each of which a person can check. Pure.

Golden inputs have shown before that the model computes here what it should. What is watched now is
life: does it answer, does it answer in time, does it not cry wolf all of a sudden, and does it not
speak of another world than the version before did.
"""

import statistics
from enum import Enum
from typing import Final

from edge_agent.pipeline.distribution import MOVED, has_moved
from edge_agent.pipeline.vitals import Vitals
from fleet_protocol.texts import _

FAILED_SHARE: Final = 0.05
"""Of its windows a version may fail to answer so many; one killed worker is no fault of its own."""

FAILED_LEAST: Final = 2
"""Failures before their share is looked at."""

SLOWER: Final = 10.0
"""Times the median of the version before that an answer may take."""

SLOW_US: Final = 50_000
"""Microseconds that an answer may take in any case: below this nobody waits for it."""

MORE_ALARMS: Final = 0.5
"""By how much the share of windows with an alarm may rise; more is a model that sees ghosts."""


class Verdict(Enum):
    """What is to be done."""

    WAIT = "wait"
    PASSED = "passed"
    FAILED = "failed"


def judge(
    now: Vitals, before: Vitals, spent_s: float, *, least_s: float, least_windows: int
) -> tuple[Verdict, str]:
    """Whether the version with the vitals ``now`` stays, and why not.

    ``before`` is what was usual, at the switch, of the version that ran before; without answers where
    there was none. The new one has to last ``least_s`` seconds and give ``least_windows`` answers; it
    fails as soon as it fails.
    """
    reason = (
        _failing(now)
        or _slow(now, before)
        or _alarming(now, before, max(least_windows, FAILED_LEAST))
        or _moved(now, before)
    )
    if reason:
        return Verdict.FAILED, reason
    if spent_s < least_s or now.answers < least_windows:
        return Verdict.WAIT, ""
    return Verdict.PASSED, ""


def _failing(now: Vitals) -> str:
    windows = now.answers + now.failures
    for count, text in (
        (now.failures, _("{count} of {windows} windows got no answer")),
        (now.unclear, _("a rule could not be evaluated in {count} of {windows} windows")),
    ):
        if count >= FAILED_LEAST and count > FAILED_SHARE * windows:
            return text.format(count=count, windows=windows)
    return ""


def _slow(now: Vitals, before: Vitals) -> str:
    if len(now.latencies_us) < FAILED_LEAST:
        return ""
    median = statistics.median(now.latencies_us)
    limit = max(SLOWER * statistics.median(before.latencies_us or (0,)), SLOW_US)
    if median <= limit:
        return ""
    return _("an answer takes {median:.0f} ms; {limit:.0f} ms are allowed").format(
        median=median / 1000, limit=limit / 1000
    )


def _alarming(now: Vitals, before: Vitals, least: int) -> str:
    if now.answers < least or not before.answers:
        return ""
    for count, earlier, text in (
        (now.alarms, before.alarms, _("an alarm in {now:.0%} of the windows; {before:.0%} before")),
        (now.raised, before.raised, _("an event in {now:.0%} of the windows; {before:.0%} before")),
    ):
        share, usual = count / now.answers, earlier / before.answers
        if share > usual + MORE_ALARMS:
            return text.format(now=share, before=usual)
    return ""


def _moved(now: Vitals, before: Vitals) -> str:
    moved = has_moved(now.scores, before.scores)
    if moved is None:
        return ""
    return _("scores lie {moved:.2f} from those before, on the scale from 0 to 1; {most} is allowed").format(
        moved=moved, most=MOVED
    )
