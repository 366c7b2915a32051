"""What a journey has at hand: eyes, hands, a voice, and patience."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fleet_console.errors import ConsoleError
from fleet_protocol.texts import _
from hil.stopping import pause
from use_cases.water_network.demo.findings import Findings
from use_cases.water_network.demo.observe import Observer
from use_cases.water_network.demo.operating import Operator

POLL_S: Final = 0.2
WITHIN_S: Final = 120.0
"""Seconds in which a condition must come true beyond the time that the plant itself takes."""

Say = Callable[[str], None]


class CheckFailedError(RuntimeError):
    """A journey was not observed; the message says which."""


@dataclass(frozen=True, slots=True)
class Stage:
    """The city as a journey sees it.

    ``mend`` starts dead agents again, ``kill`` kills an agent or a part of the server by its name;
    where nobody is to be killed it does nothing.
    """

    folder: Path
    observer: Observer
    operator: Operator
    findings: Findings
    say: Say
    mend: Callable[[], None]
    kill: Callable[[str], None]

    def until(self, what: str, holds: Callable[[], bool], within_s: float = WITHIN_S) -> None:
        """Return once ``holds``, keeping the agents alive; a server that is away only delays.

        Raises:
            CheckFailedError: it did not come true in ``within_s`` seconds.
        """
        deadline = time.monotonic() + within_s
        while not _holds(holds):
            if time.monotonic() > deadline:
                raise CheckFailedError(
                    _("not observed within {seconds:.0f} s: {what}").format(seconds=within_s, what=what)
                )
            self.mend()
            pause(POLL_S)

    def require(self, what: str, *, holds: bool) -> None:
        """See to it that something is as it must be.

        Raises:
            CheckFailedError: it is not.
        """
        if not holds:
            raise CheckFailedError(_("this must hold and does not: {what}").format(what=what))


def now_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def _holds(condition: Callable[[], bool]) -> bool:
    try:
        return condition()
    except ConsoleError:
        return False
