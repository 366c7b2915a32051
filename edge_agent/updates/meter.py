"""Whether a download may go on: its terms, its windows, its budget, and whether somebody canceled it.

Asked before every attempt and after every piece. A stick has no meter: it costs nobody's line.
"""

import datetime as dt
import time
import zoneinfo
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from edge_agent.clock import boot_id
from edge_agent.errors import UpdateHeld
from edge_agent.link.https import CHUNK
from edge_agent.updates import ledger as ledgers
from edge_agent.updates.ledger import Budget, Ledger, Now
from edge_agent.updates.pacing import Pace
from fleet_protocol import delivery
from fleet_protocol.delivery import DAY_MIN, Delivery
from fleet_protocol.targets import Target
from fleet_protocol.texts import _

_KEEP_EVERY_S: Final = 1.0
_MINUTE_S: Final = 60.0
_ASK_AGAIN_S: Final = 300.0
"""A clock that could not be believed may have been set by then."""


class Meter(Protocol):
    """What a download is measured with."""

    @property
    def piece(self) -> int:
        """How many bytes to read at once."""

    def permit(self) -> None:
        """See to it that the line may be used now; raises :class:`UpdateHeld`."""

    def count(self, size: int) -> None:
        """``size`` bytes more have come; raises :class:`UpdateHeld` where they were the last for now."""


class Free:
    """Everything may come, as fast as it can."""

    piece: Final = CHUNK

    def permit(self) -> None:
        """See :class:`Meter`."""

    def count(self, size: int) -> None:
        """See :class:`Meter`."""


class Wall:
    """The time of a look: the wall clock where it could be believed when the look began, else none."""

    def __init__(self, now_ms: int, zone: str, boot: Callable[[], str] = boot_id) -> None:
        self._began_ms: Final = now_ms
        self._zone: Final = zoneinfo.ZoneInfo(zone)
        self._boot: Final = boot()
        self._started_s: Final = time.monotonic()

    def now(self) -> Now:
        """This moment."""
        passed_ms = int((time.monotonic() - self._started_s) * 1000)
        mono_ms = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000
        return Now(self._began_ms + passed_ms if self._began_ms else 0, self._boot, mono_ms)

    def local(self) -> dt.datetime | None:
        """What the clock on the wall shows; None where nobody can say."""
        wall_ms = self.now().wall_ms
        return dt.datetime.fromtimestamp(wall_ms / 1000, self._zone) if wall_ms else None


class Counted:
    """The meter of one target, with a ledger on the disk."""

    def __init__(
        self, downloads: Path, target: Target, terms: tuple[Delivery, ...], budget: Budget, wall: Wall
    ) -> None:
        self._target: Final = target
        self._file: Final = ledgers.place_of(downloads, target.sha256)
        self._terms: Final = terms
        self._budget: Final = budget
        self._wall: Final = wall
        self._pace: Final = Pace(delivery.slower(*(each.max_kib_per_s for each in terms)))
        self._ledger = ledgers.load(self._file)
        self._kept_s = self._since_s = time.monotonic()

    @property
    def piece(self) -> int:
        """See :class:`Meter`."""
        return self._pace.piece

    @property
    def ledger(self) -> Ledger:
        """What it has cost so far."""
        return self._ledger

    def permit(self) -> None:
        """See :class:`Meter`; the reason is written down, for who asks on site."""
        self._ledger = ledgers.renew(self._ledger, self._budget, self._wall.now())
        try:
            self._require_wanted()
            self._require_window()
            self._require_budget()
        except UpdateHeld as error:
            self.keep(held=str(error))
            raise
        if self._ledger.held:
            self.keep(held="")

    def count(self, size: int) -> None:
        """See :class:`Meter`; waits where that was faster than is allowed."""
        self._pace.spend(size)
        now_s = time.monotonic()
        self._ledger = ledgers.spend(self._ledger, size, now_s - self._since_s)
        self._since_s = now_s
        is_spent = ledgers.left_bytes(self._ledger, self._budget, self._target.length) == 0
        if is_spent or now_s - self._kept_s >= _KEEP_EVERY_S:
            self.keep()
            self.permit()

    def keep(self, held: str | None = None) -> None:
        """Write the ledger, with another reason to wait where one is given."""
        now_s = time.monotonic()
        spent = ledgers.spend(self._ledger, 0, now_s - self._since_s)
        self._kept_s = self._since_s = now_s
        self._ledger = spent if held is None else ledgers.holding(spent, held)
        ledgers.save(self._file, self._ledger)

    def made(self, saved: int) -> None:
        """``saved`` bytes did not have to come."""
        self._ledger = ledgers.saving(self._ledger, saved)
        self.keep()

    def useless(self, base: str) -> None:
        """It cannot be made from the artifact ``base``; not to be tried again."""
        self._ledger = ledgers.without(self._ledger, base)
        self.keep()

    def _require_wanted(self) -> None:
        if self._ledger.canceled:
            raise UpdateHeld(_("canceled on site; 'edge-agent update resume' lets it go on"), again_s=None)

    def _require_window(self) -> None:
        windows = [each for each in self._terms if each.windows]
        if not windows:
            return
        local = self._wall.local()
        if local is None:
            raise UpdateHeld(
                _(
                    "it may come at certain hours only, and this clock cannot be believed; "
                    "set the clock, or bring it on a stick"
                ),
                again_s=_ASK_AGAIN_S,
            )
        minutes = delivery.shut_for_min(windows, local)
        if minutes > DAY_MIN:
            raise UpdateHeld(
                _("its windows and those of this device are never open together; change one of them"),
                again_s=None,
            )
        if minutes:
            hours = ", ".join(window for each in windows for window in each.windows)
            raise UpdateHeld(
                _("waits for its window ({hours}, {zone})").format(hours=hours, zone=local.tzname()),
                again_s=minutes * _MINUTE_S - local.second,
            )

    def _require_budget(self) -> None:
        budget, spent = self._budget, self._ledger
        has_bytes = ledgers.left_bytes(spent, budget, self._target.length) > 0
        if has_bytes and ledgers.left_s(spent, budget) > 0.0:
            return
        again_s = ledgers.renews_in_s(spent, budget, self._wall.now())
        raise UpdateHeld(
            _(
                "given up for now: {fetched} bytes and {hours:.1f} hours were spent on {length} bytes; it is "
                "tried again in {days:.1f} days, or bring it on a stick"
            ).format(
                fetched=spent.period_fetched,
                hours=spent.period_seconds / 3600,
                length=self._target.length,
                days=again_s / 86_400,
            ),
            again_s=again_s,
            spent=True,
        )
