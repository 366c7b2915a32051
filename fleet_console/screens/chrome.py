"""What frames every screen: where one is, how fresh it is, and which keys work."""

from collections.abc import Sequence

from rich.text import Text
from textual.events import Click
from textual.widgets import Static

from fleet_console.screens import looks
from fleet_console.screens.actions import Action
from fleet_protocol.texts import _


class TitleBar(Static):
    """One line: the way here on the left, the source and its freshness on the right."""

    def tell(self, way: Sequence[str], source: str, freshness: Text) -> None:
        """Show the way here, what is asked, and how fresh that is."""
        left = Text(" argan", f"bold {looks.SAND}")
        for number, place in enumerate(way, 1):
            left.append(" › ", looks.QUIET)  # noqa: RUF001 - the mark of a way
            left.append(place, f"bold {looks.TEXT}" if number == len(way) else looks.QUIET)
        right = Text.assemble(freshness, " ")
        room = self.size.width - left.cell_len - right.cell_len - 4
        if room >= len(source):
            right = Text.assemble((source, looks.QUIET), "  ", right)
        gap = max(1, self.size.width - left.cell_len - right.cell_len)
        self.update(Text.assemble(left, " " * gap, right, no_wrap=True, overflow="crop"))


class Banner(Static):
    """Across the screen while what is shown is not what is; gone otherwise."""

    def tell(self, text: str) -> None:
        """Say ``text``; nothing hides the banner."""
        self.display = bool(text)
        if text:
            self.update(Text(f"▲ {text}"))


class KeyBar(Static):
    """The keys that work here, from the registry; they can be clicked too."""

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's name for it
        super().__init__(id=id)
        self._ends: list[tuple[int, str]] = []

    def tell(self, actions: Sequence[Action]) -> None:
        """Show the keys of ``actions``; where they do not fit, the ways to places share a word."""
        shown = [action for action in actions if action.in_footer]
        line = self._line(shown, is_short=False)
        if line.cell_len > self.size.width:
            line = self._line(shown, is_short=True)
        self.update(line)

    def _line(self, actions: Sequence[Action], *, is_short: bool) -> Text:
        line = Text(" ", no_wrap=True, overflow="ellipsis")
        self._ends = []
        ways = [action for action in actions if action.is_way]
        for action in actions:
            line.append(key_name(action), f"bold {looks.SAND}")
            if not is_short or not action.is_way:
                line.append(f" {action.title}  ", looks.QUIET)
            else:
                line.append(_(" Go  ") if action is ways[-1] else " ", looks.QUIET)
            self._ends.append((line.cell_len, action.keys.split(",")[0]))
        return line

    def on_click(self, event: Click) -> None:
        """Press the key that stands there."""
        key = next((key for end, key in self._ends if event.x < end), None)
        if key is not None:
            self.app.simulate_key(key)


_NAMES = {"slash": "/", "question_mark": "?", "colon": ":", "escape": "esc", "ctrl+r": "^r", "ctrl+p": "^p"}


def key_name(action: Action) -> str:
    """The first key of ``action`` as it stands on a keyboard."""
    first = action.keys.split(",")[0]
    return _NAMES.get(first, first)


def key_names(action: Action) -> str:
    """All keys of ``action``."""
    return _(" or ").join(_NAMES.get(key, key) for key in action.keys.split(","))
