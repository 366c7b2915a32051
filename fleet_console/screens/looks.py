"""How things look: the palette, and for every state a shape, a word and a color, in this order of weight.

Whoever cannot tell colors apart, or has none, reads the shape and the word. Pure.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from rich.text import Text
from textual.theme import Theme

from fleet_console.screens import plots
from fleet_console.sources.views import Value
from fleet_protocol.messages import Quality, Severity
from fleet_protocol.targets import WORDS, Refusal
from fleet_protocol.texts import _, mark
from fleet_protocol.update_states import UpdateState

GROUND: Final = "#14171a"
RAISED: Final = "#1b1f22"
CHOSEN: Final = "#2c332f"
LINE: Final = "#3a403d"
TEXT: Final = "#d9d6cc"
QUIET: Final = "#918f85"
SAND: Final = "#cfae6b"
LEAF: Final = "#93b578"
AMBER: Final = "#e39a4b"
RED: Final = "#ec7a70"
SKY: Final = "#86aecb"

THEME: Final = Theme(
    name="argan",
    primary=SAND,
    secondary=SKY,
    accent=SAND,
    success=LEAF,
    warning=AMBER,
    error=RED,
    foreground=TEXT,
    background=GROUND,
    surface=GROUND,
    panel=RAISED,
    dark=True,
    variables={
        "block-cursor-background": CHOSEN,
        "block-cursor-foreground": TEXT,
        "block-cursor-text-style": "bold",
        "block-cursor-blurred-background": RAISED,
        "block-cursor-blurred-foreground": TEXT,
        "block-hover-background": RAISED,
        "border": LINE,
        "border-blurred": LINE,
        "footer-background": RAISED,
        "footer-key-foreground": SAND,
        "footer-description-foreground": QUIET,
        "scrollbar": LINE,
        "scrollbar-background": GROUND,
        "scrollbar-corner-color": GROUND,
        "input-selection-background": LINE,
    },
)


@dataclass(frozen=True, slots=True)
class Mark:
    """A shape, a word (English, looked up when shown) and a color."""

    shape: str
    _word: str
    color: str

    @property
    def word(self) -> str:
        """The word for it."""
        return _(self._word)

    def text(self, *, word: bool = True) -> Text:
        """The mark as it is shown."""
        return Text(f"{self.shape} {self.word}" if word else self.shape, self.color)


_STATES: Final[Mapping[str, Mark]] = {
    "online": Mark("●", mark("online"), LEAF),
    "offline": Mark("○", mark("offline"), AMBER),
    "silent": Mark("◌", mark("silent"), RED),
    "new": Mark("+", mark("new"), SKY),
}

_SEVERITIES: Final[Mapping[Severity, Mark]] = {
    Severity.INFO: Mark("i", mark("info"), SKY),
    Severity.WARNING: Mark("▲", mark("warning"), AMBER),
    Severity.CRITICAL: Mark("■", mark("critical"), RED),
}

WELL: Final = Mark("✓", mark("well"), LEAF)

_QUALITIES: Final[Mapping[Quality, Mark]] = {
    Quality.GOOD: Mark("✓", mark("good"), QUIET),
    Quality.SUSPECT: Mark("?", mark("suspect"), AMBER),
    Quality.BAD: Mark("✗", mark("bad"), RED),
}

_UPDATES: Final[Mapping[str, Mark]] = {
    UpdateState.IDLE: Mark("·", mark("idle"), QUIET),
    UpdateState.DOWNLOADING: Mark("↓", mark("downloading"), SKY),
    UpdateState.VERIFIED: Mark("▸", mark("verified"), SKY),
    UpdateState.STAGED: Mark("▸", mark("staged"), SKY),
    UpdateState.TESTING: Mark("▸", mark("testing"), SKY),
    UpdateState.ACTIVATING: Mark("▸", mark("activating"), SKY),
    UpdateState.PROBATION: Mark("◔", mark("on probation"), AMBER),
    UpdateState.COMMITTED: Mark("✓", mark("committed"), LEAF),
    UpdateState.ROLLING_BACK: Mark("↺", mark("rolling back"), AMBER),
    UpdateState.ROLLED_BACK: Mark("↺", mark("rolled back"), AMBER),
    UpdateState.FAILED: Mark("✗", mark("failed"), RED),
}

_MEMBERS: Final[Mapping[str, Mark]] = {
    "waiting": Mark("·", mark("waiting"), QUIET),
    "assigned": Mark("→", mark("assigned"), SKY),
    "done": Mark("✓", mark("done"), LEAF),
    "failed": Mark("✗", mark("failed"), RED),
    "left": Mark("↷", mark("left"), QUIET),
    "withdrawn": Mark("↺", mark("withdrawn"), AMBER),
}

_ROLLOUTS: Final[Mapping[str, Mark]] = {
    "running": Mark("▶", mark("running"), SKY),
    "paused": Mark("‖", mark("paused"), AMBER),
    "done": Mark("✓", mark("done"), LEAF),
    "aborted": Mark("✗", mark("aborted"), AMBER),
    "failed": Mark("■", mark("failed"), RED),
}

_PROPOSALS: Final[Mapping[str, Mark]] = {
    "proposed": Mark("◔", mark("waits"), AMBER),
    "approved": Mark("▶", mark("approved"), SKY),
    "executed": Mark("✓", mark("executed"), LEAF),
    "rejected": Mark("✗", mark("rejected"), RED),
    "withdrawn": Mark("↺", mark("withdrawn"), QUIET),
    "expired": Mark("·", mark("expired"), QUIET),
    "stale": Mark("≠", mark("stale"), AMBER),
    "failed": Mark("■", mark("failed"), RED),
}

_WAVES: Final[Mapping[str, Mark]] = {
    "waiting": Mark("·", mark("waiting"), QUIET),
    "open": Mark("▶", mark("open"), SKY),
    "ended": Mark("✓", mark("ended"), LEAF),
}


def state(name: str) -> Mark:
    """Whether a device is there."""
    return _STATES.get(name, _unknown(name))


def severity(level: Severity | None) -> Mark:
    """How urgent something is; well where there is nothing."""
    return WELL if level is None else _SEVERITIES[level]


def quality(known: Quality) -> Mark:
    """What a driver knows of a value."""
    return _QUALITIES[known]


def update(name: str) -> Mark:
    """Where an update stands."""
    return _UPDATES.get(name, _unknown(name))


def rollout(name: str) -> Mark:
    """Where a rollout stands."""
    return _ROLLOUTS.get(name, _unknown(name))


def proposal(name: str) -> Mark:
    """Where a proposal stands."""
    return _PROPOSALS.get(name, _unknown(name))


def wave(name: str) -> Mark:
    """Where a wave of a rollout stands."""
    return _WAVES.get(name, _unknown(name))


def member(name: str) -> Mark:
    """Where a device of a rollout stands."""
    return _MEMBERS.get(name, _unknown(name))


def refusal(name: str) -> tuple[str, str]:
    """What a refusal means and what to do next; the name itself where it is not known here."""
    if name in Refusal.__members__.values():
        words = WORDS[Refusal(name)]
        return words.meaning, words.next_step
    return name, ""


def bar(share: float, width: int, color: str) -> Text:
    """``share`` (0 to 1) of a line of ``width`` characters."""
    heavy, light = plots.bar(share, width)
    return Text.assemble((heavy, color), (light, LINE))


def number(value: Value) -> str:
    """A value with as many digits as mean something."""
    return "—" if value.value is None else f"{value.value:.6g}"


def size(count: int) -> str:
    """Bytes as a person says them."""
    if count < 1000:  # noqa: PLR2004 - what follows are thousands
        return _("{count} bytes").format(count=count)
    amount = float(count)
    for unit in ("kB", "MB", "GB", "TB"):
        amount /= 1000
        if amount < 999.5:  # noqa: PLR2004 - would be shown as 1000
            return f"{amount:.3g} {unit}"
    return f"{amount:.0f} TB"


def duration(ms: float) -> str:
    """A short time as a person says it."""
    if ms < 1000:  # noqa: PLR2004 - a second
        return _("{ms:.3g} ms").format(ms=ms)
    return _("{seconds:.1f} s").format(seconds=ms / 1000)


def count(amount: int) -> str:
    """A large number with thin groups."""
    return f"{amount:,}".replace(",", "\u202f")


def _unknown(name: str) -> Mark:
    return Mark("?", name.replace("_", " ") or mark("unknown"), QUIET)
