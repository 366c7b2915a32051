"""What policies and agents raised, the newest first."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import ClassVar

from rich.text import Text
from textual import on
from textual.binding import BindingType

from fleet_console.screens import actions, looks
from fleet_console.screens.dialogs import Told
from fleet_console.screens.filtered import Entry, Filtered
from fleet_console.screens.freshness import Look
from fleet_console.screens.grid import Column, Grid, Row
from fleet_console.sources.base import Ability
from fleet_console.sources.views import Event, Seen
from fleet_protocol.texts import _

Events = tuple[Event, ...]


class EventsScreen(Filtered[Events]):
    """The list of events; enter shows the figures behind one."""

    SCOPE: ClassVar = "events"
    BINDINGS: ClassVar[list[BindingType]] = [*actions.bindings("events")]

    @property
    def place(self) -> str:
        """Its name."""
        return _("events")

    @property
    def nothing(self) -> str:
        """That all is quiet."""
        if self._has_fleet:
            return _("Nothing was raised in the last day.")
        return _("Nothing was raised since the agent started.")

    async def look_at(self) -> Seen[Events]:
        """The newest."""
        return await self.app.source.events()

    def columns(self) -> Sequence[Column]:
        """Without devices where there is but one."""
        fixed = [
            Column(_("AGE"), 7, right=True),
            Column(_("SEVERITY"), 11),
            *([Column(_("DEVICE"), 18)] if self._has_fleet else []),
            Column(_("EVENT"), 22 if self.is_wide else 14),
        ]
        used = sum(column.width + 2 for column in fixed)
        return [*fixed, Column(_("TEXT"), max(10, self.size.width - 4 - used))]

    def entries(self, look: Look[Events], now_s: float) -> Iterator[Entry]:
        """In the order of happening; two of one moment keep apart by their place."""
        for number, event in _numbered(look.seen.content):
            key = f"{event.device}/{event.time_ms}/{event.name}/{number}"
            line = f"{looks.severity(event.level).word} {event.device} {event.name} {event.text}"
            yield Entry(key, line, partial(self._row, event, look, now_s))

    @property
    def _has_fleet(self) -> bool:
        return Ability.FLEET in self.app.source.abilities

    def _row(self, event: Event, look: Look[Events], now_s: float) -> Row:
        return [
            Text(look.age(event.time_ms, now_s), looks.QUIET),
            looks.severity(event.level).text(),
            *([Text(event.device)] if self._has_fleet else []),
            Text(event.name),
            Text(event.text, looks.QUIET),
        ]

    @on(Grid.RowSelected)
    def _open(self, event: Grid.RowSelected) -> None:
        if self.last is None:
            return
        now_s = self.app.clock.monotonic_s()
        keys = [entry.key for entry in self.entries(self.last, now_s)]
        if event.row_key.value in keys:
            chosen = self.last.seen.content[keys.index(event.row_key.value)]
            self.app.push_screen(Told(chosen.name, _figures(chosen, self.last.age(chosen.time_ms, now_s))))


def _numbered(events: Events) -> list[tuple[int, Event]]:
    """Each event with how many alike came before it, counted from the oldest: new ones change no key."""
    seen: dict[tuple[str, int, str], int] = {}
    numbered = []
    for event in reversed(events):
        alike = (event.device, event.time_ms, event.name)
        seen[alike] = seen.get(alike, -1) + 1
        numbered.append((seen[alike], event))
    return numbered[::-1]


def _figures(event: Event, age: str) -> Text:
    text = Text()
    text.append_text(looks.severity(event.level).text())
    text.append(_("   {age} ago").format(age=age), looks.QUIET)
    if event.device:
        text.append(f"   {event.device}")
    text.append(f"\n\n{event.text}\n")
    for name, figure in event.figures.items():
        text.append(f"\n{name:<28} ", looks.QUIET)
        text.append(f"{figure:.6g}")
    if event.source:
        text.append("\n\n" + _("raised by {source}").format(source=event.source), looks.QUIET)
    return text
