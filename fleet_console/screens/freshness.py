"""How old what is shown is, and what the banner says when nobody answers. Pure but for the clock."""

import time
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, Protocol, TypeVar

from fleet_console import tables
from fleet_console.errors import ConsoleError, Unreachable
from fleet_console.sources.views import Seen
from fleet_protocol.texts import _

T = TypeVar("T")


class Clock(Protocol):
    """The console's own two clocks; a test's stand still."""

    def monotonic_s(self) -> float:
        """Seconds since some moment."""

    def wall(self) -> datetime:
        """The time of day here."""


class RealClock:
    """This machine's."""

    def monotonic_s(self) -> float:
        """Seconds since some moment."""
        return time.monotonic()

    def wall(self) -> datetime:
        """The time of day here."""
        return datetime.now().astimezone()


@dataclass(frozen=True, slots=True)
class Look(Generic[T]):
    """What was seen, when by the console's clocks."""

    seen: Seen[T]
    at_s: float
    wall: datetime

    def age(self, time_ms: int | None, now_s: float) -> str:
        """How long ago ``time_ms`` is; it goes on growing when nobody answers any more."""
        return tables.age(time_ms, self.seen.now_ms + self.elapsed_ms(now_s))

    def elapsed_ms(self, now_s: float) -> int:
        """How long ago this was seen."""
        return max(0, int((now_s - self.at_s) * 1000))


@dataclass(frozen=True, slots=True)
class Failure:
    """Why nothing new is seen, and since when."""

    error: ConsoleError
    wall: datetime


def banner(failure: Failure | None, look: Look[T] | None, now_s: float) -> str:
    """What to say of how fresh the screen is; nothing where it is."""
    if failure is None:
        return ""
    if not isinstance(failure.error, Unreachable):
        return str(failure.error)
    if look is None:
        return _("No answer since {time}: {reason}. It is asked again and again.").format(
            time=f"{failure.wall:%H:%M:%S}", reason=failure.error
        )
    return _("No answer. What is shown is of {time}, {age} old: {reason}").format(
        time=f"{look.wall:%H:%M:%S}", age=tables.age(0, look.elapsed_ms(now_s)), reason=failure.error
    )
