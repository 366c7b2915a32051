"""A table that is filled again and again without losing the place of whoever reads it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.text import Text
from textual.binding import Binding, BindingType
from textual.widgets import DataTable

from fleet_console.screens import looks

Row = Sequence[Text]
Rows = Mapping[str, Callable[[], Row]]
"""Rows by their keys, in order; each is made when it is to be drawn."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column and its width in characters; widths are given so that nothing jumps."""

    title: str
    width: int
    right: bool = False


class Grid(DataTable[Text]):
    """Rows under their keys. The cursor stays on its key, wherever that goes."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j", "cursor_down", show=False),
        Binding("k", "cursor_up", show=False),
    ]

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's name for it
        super().__init__(id=id, cursor_type="row", cursor_foreground_priority="renderable")
        self._columns_now: tuple[Column, ...] = ()
        self._shown: dict[str, Row] = {}
        self._wanted: str | None = None

    def lay_out(self, columns: Sequence[Column]) -> None:
        """Have these columns from now on."""
        if tuple(columns) == self._columns_now:
            return
        self._columns_now = tuple(columns)
        chosen, self._shown = self.chosen, {}
        self.clear(columns=True)
        for number, column in enumerate(columns):
            title = Text(column.title, looks.QUIET, justify="right" if column.right else "left")
            self.add_column(title, width=column.width, key=str(number))
        self._wanted = chosen

    def fill(self, rows: Rows) -> None:
        """Show ``rows``; where they are the same ones, only what is in sight is made and drawn anew."""
        if list(rows) == list(self._shown):
            self._update(rows)
        else:
            self._replace(rows)
        self._wanted = None

    @property
    def chosen(self) -> str | None:
        """The key under the cursor, if there is one."""
        keys = list(self._shown)
        return keys[self.cursor_row] if 0 <= self.cursor_row < len(keys) else None

    def choose(self, key: str | None) -> None:
        """Put the cursor on ``key``, if it is there."""
        if key in self._shown:
            self.move_cursor(row=list(self._shown).index(key), animate=False)

    def _update(self, rows: Rows) -> None:
        first = max(0, int(self.scroll_y))
        for key in list(rows)[first : first + self.size.height]:
            row = self._fitted(rows[key]())
            for number, (before, cell) in enumerate(zip(self._shown[key], row, strict=True)):
                if (before.plain, before.style, before.spans) != (cell.plain, cell.style, cell.spans):
                    self.update_cell(key, str(number), cell)
            self._shown[key] = row

    def _replace(self, rows: Rows) -> None:
        chosen, place = self._wanted or self.chosen, self.scroll_offset
        self.clear()
        self._shown = {key: self._fitted(make()) for key, make in rows.items()}
        for key, row in self._shown.items():
            self.add_row(*row, key=key)
        self.choose(chosen)
        self.scroll_to(place.x, place.y, animate=False)

    def _fitted(self, row: Row) -> Row:
        return [self._fit(*cell) for cell in zip(row, self._columns_now, strict=True)]

    @staticmethod
    def _fit(cell: Text, column: Column) -> Text:
        fitted = cell.copy()
        fitted.truncate(column.width, overflow="ellipsis")
        fitted.no_wrap = True
        fitted.justify = "right" if column.right else "left"
        return fitted
