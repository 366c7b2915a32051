"""The one durable file that says which software of the agent runs: ``DATA/slots/current.json``.

Agent and launcher both replace it whole, never at once: the launcher writes while no agent runs. A
slot is named by its artifact's SHA-256; the empty name is the base installation, which is always there.
What a newer version adds is kept as it is.
"""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from edge_agent import durable

FOLDER: Final = "slots"
CURRENT: Final = "current.json"
RESTART: Final = 75
"""The exit code with which an agent asks to be started anew, at once: it has changed the record."""

FORMAT: Final = 1
MAX_BYTES: Final = 1 << 20
MAX_DEADLINE_S: Final = 1e6
"""More than any build may ask for."""

FITTED: Final = ""

_DIGEST: Final = frozenset("0123456789abcdef")
_DIGEST_LENGTH: Final = 64


@dataclass(frozen=True, slots=True)
class Record:
    """What runs, and what ran before it.

    ``trying``: ``current`` has not proved itself; it was started ``attempts`` times and has
    ``deadline_s`` seconds of one start to do so. ``expected`` is what the version before it had and
    it must have too. ``failed`` is what was given up last by a fault of its own, and ``reason`` why
    what runs came back.
    """

    current: str = FITTED
    previous: str = FITTED
    trying: bool = False
    attempts: int = 0
    deadline_s: float = 0.0
    expected: tuple[str, ...] = ()
    failed: str = ""
    reason: str = ""
    others: dict[str, Any] = field(default_factory=dict)

    def switched(self, slot: str, deadline_s: float, expected: tuple[str, ...]) -> "Record":
        """After ``slot`` took the place of what runs, to be tried."""
        tried = Record(slot, self.current, trying=True, deadline_s=deadline_s, expected=expected)
        return replace(tried, others=self.others)

    def committed(self) -> "Record":
        """After what was tried has proved itself."""
        return replace(self, trying=False, attempts=0, deadline_s=0.0, expected=())

    def fallen(self, reason: str, *, blamed: bool = True) -> "Record":
        """After what ran before came back, for good; ``blamed``: what is given up is at fault."""
        failed = self.current if blamed else self.failed
        return Record(self.previous, FITTED, failed=failed, reason=reason, others=self.others)


class RecordUnreadable(Exception):  # noqa: N818 - it says what happened
    """The record is there and cannot be understood."""


def read(folder: Path) -> Record:
    """The record in ``folder``; a new one, of the base installation, where there is none.

    Raises:
        RecordUnreadable: it is none.
    """
    try:
        with (folder / CURRENT).open("rb") as file:
            return _parsed(json.loads(file.read(MAX_BYTES)))
    except FileNotFoundError:
        return Record()
    except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise RecordUnreadable(str(error)) from error


def write(folder: Path, record: Record) -> None:
    """Replace the record; when this returns it outlives a power cut. Raises OSError."""
    content = {
        **record.others,
        "format": FORMAT,
        "current": record.current,
        "previous": record.previous,
        "state": "trying" if record.trying else "committed",
        "attempts": record.attempts,
        "deadline_s": record.deadline_s,
        "expected": list(record.expected),
        "failed": record.failed,
        "reason": record.reason,
    }
    durable.make_folder(folder)
    durable.write(folder / CURRENT, json.dumps(content, indent=1).encode())


def set_aside(folder: Path) -> None:
    """Give a record that cannot be understood another name. Raises OSError."""
    durable.rename(folder / CURRENT, folder / f"{CURRENT}.unreadable")


def python_of(folder: Path, slot: str) -> Path:
    """The interpreter of a slot."""
    return folder / slot / "bin" / "python"


def is_whole(folder: Path, slot: str) -> bool:
    """Whether a slot can be started; a folder gets its name only once everything in it is flushed."""
    return slot == FITTED or python_of(folder, slot).exists()


def _parsed(content: dict[str, Any]) -> Record:
    known = dict(content)
    number, state = known.pop("format"), known.pop("state")
    if number != FORMAT or state not in {"trying", "committed"}:
        raise ValueError(f"format {number!r}, state {state!r}")
    return Record(
        current=_slot(known.pop("current")),
        previous=_slot(known.pop("previous")),
        trying=state == "trying",
        attempts=int(known.pop("attempts")),
        deadline_s=_seconds(known.pop("deadline_s")),
        expected=tuple(str(each) for each in known.pop("expected")),
        failed=_slot(known.pop("failed")),
        reason=str(known.pop("reason")),
        others=known,
    )


def _seconds(number: Any) -> float:
    """A time that a timer can be set to."""
    seconds = float(number)
    if not 0 <= seconds <= MAX_DEADLINE_S:
        raise ValueError(f"deadline_s {number!r}")
    return seconds


def _slot(name: str) -> str:
    """A slot's name; anything else could name a folder elsewhere."""
    if name and (len(name) != _DIGEST_LENGTH or not _DIGEST.issuperset(name)):
        raise ValueError(name[:_DIGEST_LENGTH])
    return name
