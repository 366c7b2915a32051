"""A screen whose rows can be filtered: ``/`` opens a line that narrows them as it is typed."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.widgets import Input, Static

from fleet_console.screens import filters, looks
from fleet_console.screens.base import Watching
from fleet_console.screens.freshness import Look
from fleet_console.screens.grid import Column, Grid, Row
from fleet_protocol.texts import _

T = TypeVar("T")


class Entry(NamedTuple):
    """One row: its key, the line that the filter is held against, and how it is made.

    The line has no ages: they change, and a filter must not.
    """

    key: str
    line: str
    make: Callable[[], Row]


class Filtered(Watching[T]):
    """Rows under a filter; a subclass says which."""

    def columns(self) -> Sequence[Column]:
        """The columns, as many as there is room for."""
        raise NotImplementedError

    def entries(self, look: Look[T], now_s: float) -> Iterable[Entry]:
        """Every row, in order."""
        raise NotImplementedError

    @property
    def nothing(self) -> str:
        """What to say where there is no row at all."""
        raise NotImplementedError

    def body(self) -> ComposeResult:
        """The filter, hidden until it is asked for, and the rows."""
        field = Input(placeholder=_("words, !not, ~fuzzy"), id="filter")
        field.cursor_blink = False
        field.display = False
        yield field
        yield Grid(id="rows")
        yield Static(id="nothing")
        yield Static(id="tally")

    def on_mount(self) -> None:
        """The rows have the keyboard."""
        super().on_mount()
        self.query_one(Grid).focus()

    def show(self, look: Look[T], now_s: float) -> None:
        """The rows that pass."""
        grid = self.query_one(Grid)
        grid.lay_out(self.columns())
        text = self.query_one("#filter", Input).value
        passes = filters.compiled(text)
        entries = list(self.entries(look, now_s))
        shown = {entry.key: entry.make for entry in entries if passes(entry.line)}
        grid.fill(shown)
        nothing = self.query_one("#nothing", Static)
        nothing.display = not entries
        nothing.update(Text(self.nothing, looks.QUIET))
        self.query_one("#tally", Static).update(self._tally(len(shown), len(entries), text))

    def action_filter(self) -> None:
        """Type a filter."""
        field = self.query_one("#filter", Input)
        field.display = True
        self.set_focus(field)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """In a field, a slash is a slash."""
        if action == "filter" and isinstance(self.focused, Input):
            return False
        return super().check_action(action, parameters)

    def clear_filter(self) -> bool:
        """Take the filter away; whether there was one."""
        field = self.query_one("#filter", Input)
        was_there = bool(field.display)
        field.value, field.display = "", False
        self.query_one(Grid).focus()
        self.draw()
        return was_there

    @on(Input.Changed, "#filter")
    def _narrow(self) -> None:
        self.draw()

    @on(Input.Submitted, "#filter")
    def _keep(self, event: Input.Submitted) -> None:
        event.input.display = bool(event.value)
        self.query_one(Grid).focus()

    @staticmethod
    def _tally(shown: int, known: int, text: str) -> Text:
        if not text:
            return Text(_("{count} in all").format(count=looks.count(known)), looks.QUIET)
        told = _("{shown} of {known} pass the filter; esc takes it away")
        return Text(told.format(shown=looks.count(shown), known=looks.count(known)), looks.SAND)
