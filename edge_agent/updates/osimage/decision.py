"""What a look at the board means for an image that was handed over. Pure."""

from collections.abc import Collection, Sequence
from datetime import datetime
from enum import Enum
from typing import Final

from edge_agent.config import Os
from edge_agent.updates.osimage.record import Handover, Phase
from edge_agent.updates.probation import Verdict
from fleet_protocol.delivery import Delivery, shut_for_min
from fleet_protocol.texts import _

RESTARTS: Final = 3
"""Restarts of the board by the agent in a row that lead nowhere; then a person has to look."""

PATIENCE_S: Final = 900.0
"""How long beyond its probation a new system may take to get well: links and clocks come up late."""

OWN_CODES: Final = "update."
"""Codes that begin so tell of updates, this one too, and not of how the board does."""


class Next(Enum):
    """What is to be done with an image that was handed over."""

    INSTALL = "install"
    RESTART = "restart"
    ARRIVED = "arrived"
    FELL_BACK = "fell back"


def judge_boot(handover: Handover, booted: str, boot: str) -> Next:
    """What to do, where the copy ``booted`` runs in the boot ``boot``.

    The tool makes the new copy one that is started only once it is whole: where another copy than before
    runs, the installation had come to its end, whatever was written down of it.
    """
    if booted != handover.before:
        return Next.ARRIVED
    if handover.phase is not Phase.INSTALLED:
        return Next.INSTALL
    return Next.RESTART if boot == handover.boot else Next.FELL_BACK


def hindrance(settings: Os, restarts: int, at: datetime | None) -> str:
    """Why the agent must not restart the board now; empty where it may. ``at`` is None without a clock."""
    if settings.restart == "ask":
        return _("waits for somebody to restart the board")
    if restarts >= RESTARTS:
        return _("the board was told {count} times to restart, in vain; restart it by hand").format(
            count=restarts
        )
    windows = ", ".join(settings.windows)
    if at is None:
        return _("waits for {windows} to restart the board; the clock cannot be believed yet").format(
            windows=windows
        )
    if shut_for_min([Delivery(windows=settings.windows)], at):
        return _("waits for {windows} to restart the board").format(windows=windows)
    return ""


def judge_health(
    raised: Collection[str], before: Sequence[str], spent_s: float, least_s: float
) -> tuple[Verdict, str]:
    """Whether the new system stays: nothing may ail the board that did not before, and why not."""
    news = sorted(code for code in set(raised) - set(before) if not code.startswith(OWN_CODES))
    if not news:
        return (Verdict.PASSED, "") if spent_s >= least_s else (Verdict.WAIT, _("is on probation"))
    text = _("raised under the new system: {codes}").format(codes=", ".join(news))
    return lasting(text, spent_s, least_s)


def lasting(trouble: str, spent_s: float, least_s: float) -> tuple[Verdict, str]:
    """What to make of a ``trouble`` that may yet pass."""
    return (Verdict.FAILED if spent_s >= least_s + PATIENCE_S else Verdict.WAIT), trouble
