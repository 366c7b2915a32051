"""What fetching an artifact has cost so far: kept beside its bytes, over tries, restarts and days.

A line may break a download again and again, so that most of what it carries is for nothing. The
ledger counts every byte that came, also those that had to be thrown away, and the time that was
spent; what a period allows is decided from it alone. A clock that cannot be believed does not
renew a budget early: then only this boot's own time counts.
"""

import contextlib
from pathlib import Path
from typing import Annotated, Final

import msgspec

from edge_agent import durable
from fleet_protocol.messages import Count

DOWNLOADS: Final = "downloads"
"""The folder, in that of updates, of what is fetched and of what it cost."""

SUFFIX: Final = ".ledger"
_MAX_BYTES: Final = 64 * 1024
_BASES: Final = 16
"""Artifacts of which it is remembered that nothing could be made from them."""

Format1 = Annotated[int, msgspec.Meta(ge=1, le=1)]


class Now(msgspec.Struct, frozen=True):
    """This moment: the wall clock where it can be believed, else 0, and the time of this boot."""

    wall_ms: Count
    boot_id: str
    mono_ms: Count


class Budget(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one artifact may cost within ``period_s``: so many times its bytes, and seconds of trying.

    The first ``spare`` bytes are not counted: the smallest artifacts may be tried a few times too.
    """

    times: float = 3.0
    seconds: float = 259_200.0
    period_s: float = 604_800.0
    spare: Count = 1 << 20


class Ledger(msgspec.Struct, frozen=True, kw_only=True):
    """What was spent on one artifact; what a later version of the agent adds is passed over.

    ``fetched`` and ``seconds`` are of all time, ``period_fetched`` and ``period_seconds`` of the period
    that began at ``began``. ``saved``: bytes that did not have to come, because the device made them
    from what it had. ``held`` says why it waits, empty where it does not. ``canceled``: somebody on
    site wants no more of it to be fetched. ``no_delta``: the digests from which it could not be made.
    """

    format: Format1 = 1
    fetched: Count = 0
    seconds: float = 0.0
    saved: Count = 0
    period_fetched: Count = 0
    period_seconds: float = 0.0
    began: Now = Now(0, "", 0)
    held: str = ""
    canceled: bool = False
    no_delta: tuple[str, ...] = ()


def place_of(downloads: Path, sha256: str) -> Path:
    """Where the ledger of an artifact lies."""
    return downloads / f"{sha256}{SUFFIX}"


def load(file: Path) -> Ledger:
    """The ledger in ``file``; a new one where there is none, or none that can be read."""
    with contextlib.suppress(OSError, msgspec.MsgspecError, UnicodeDecodeError), file.open("rb") as content:
        return msgspec.json.decode(content.read(_MAX_BYTES), type=Ledger)
    return Ledger()


def save(file: Path, ledger: Ledger) -> None:
    """Write the ledger; when this returns it outlives a power cut."""
    durable.make_folder(file.parent)
    durable.write(file, msgspec.json.encode(ledger))


def spend(ledger: Ledger, fetched: int, seconds: float) -> Ledger:
    """After ``fetched`` bytes more, and so much more time."""
    return msgspec.structs.replace(
        ledger,
        fetched=ledger.fetched + fetched,
        seconds=ledger.seconds + seconds,
        period_fetched=ledger.period_fetched + fetched,
        period_seconds=ledger.period_seconds + seconds,
    )


def renew(ledger: Ledger, budget: Budget, now: Now) -> Ledger:
    """With a new period where the last one is over; a wall clock that is set later begins to count then.

    Where no clock says how long ago an earlier boot was, this one's time counts from now on: the budget
    of a board that never knows the time renews too.
    """
    began = ledger.began
    if _passed_ms(began, now) >= budget.period_s * 1000 or not began.boot_id:
        return msgspec.structs.replace(ledger, period_fetched=0, period_seconds=0.0, began=now)
    unknown = began.boot_id != now.boot_id and not began.wall_ms
    if unknown or (now.wall_ms and began.wall_ms > now.wall_ms):
        return msgspec.structs.replace(ledger, began=now)
    return ledger


def holding(ledger: Ledger, reason: str) -> Ledger:
    """While it waits for ``reason``; empty where it does not wait any more."""
    return msgspec.structs.replace(ledger, held=reason)


def saving(ledger: Ledger, size: int) -> Ledger:
    """After ``size`` bytes did not have to come."""
    return msgspec.structs.replace(ledger, saved=ledger.saved + size)


def without(ledger: Ledger, base: str) -> Ledger:
    """After it turned out that it cannot be made from the artifact ``base``."""
    return msgspec.structs.replace(ledger, no_delta=(*ledger.no_delta, base)[-_BASES:])


def left_bytes(ledger: Ledger, budget: Budget, length: int) -> int:
    """How many bytes may still come within this period, for an artifact of ``length`` bytes."""
    return max(0, int(budget.times * length) + budget.spare - ledger.period_fetched)


def left_s(ledger: Ledger, budget: Budget) -> float:
    """For how many seconds it may still be tried within this period."""
    return max(0.0, budget.seconds - ledger.period_seconds)


def renews_in_s(ledger: Ledger, budget: Budget, now: Now) -> float:
    """When the budget renews."""
    return max(0.0, budget.period_s - _passed_ms(ledger.began, now) / 1000)


def _passed_ms(began: Now, now: Now) -> int:
    """How long ago that was, as far as it can be known."""
    if began.boot_id == now.boot_id:
        return max(0, now.mono_ms - began.mono_ms)
    if began.wall_ms and now.wall_ms:
        return max(0, now.wall_ms - began.wall_ms)
    return 0
