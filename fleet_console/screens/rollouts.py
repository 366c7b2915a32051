"""The moves of the fleet, the newest first."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import ClassVar

from rich.text import Text
from textual import on
from textual.binding import BindingType

from fleet_console.screens import actions, looks
from fleet_console.screens.filtered import Entry, Filtered
from fleet_console.screens.freshness import Look
from fleet_console.screens.grid import Column, Grid, Row
from fleet_console.sources.views import Rollout, Seen
from fleet_protocol.texts import _

Rollouts = tuple[Rollout, ...]

_BAR: int = 12


class RolloutsScreen(Filtered[Rollouts]):
    """The list of rollouts; enter opens one."""

    SCOPE: ClassVar = "rollouts"
    BINDINGS: ClassVar[list[BindingType]] = [*actions.bindings("rollouts")]

    @property
    def place(self) -> str:
        """Its name."""
        return _("rollouts")

    @property
    def nothing(self) -> str:
        """How to begin one."""
        return _("No rollout yet. Begin one: fleet rollout start")

    async def look_at(self) -> Seen[Rollouts]:
        """All of them."""
        return await self.app.fleet.rollouts()

    def columns(self) -> Sequence[Column]:
        """The reason where there is room."""
        fixed = [
            Column(_("AGE"), 7, right=True),
            Column(_("STATE"), 10),
            Column(_("TO"), 24 if self.is_wide else 20),
            Column(_("GROUP"), 16 if self.is_wide else 10),
            Column(_("DEVICES"), _BAR + 9),
        ]
        used = sum(column.width + 2 for column in fixed)
        left = self.size.width - 4 - used
        return [*fixed, Column(_("REASON"), left)] if self.is_wide else fixed

    def entries(self, look: Look[Rollouts], now_s: float) -> Iterator[Entry]:
        """As the server orders them."""
        for rollout in look.seen.content:
            words = (looks.rollout(rollout.state).word, rollout.target, rollout.group, rollout.reason)
            yield Entry(rollout.id, " ".join(words), partial(self._row, rollout, look, now_s))

    def _row(self, rollout: Rollout, look: Look[Rollouts], now_s: float) -> Row:
        return [
            Text(look.age(rollout.created_ms, now_s), looks.QUIET),
            looks.rollout(rollout.state).text(),
            Text(rollout.target),
            Text(rollout.group or "—", looks.QUIET),
            progress(rollout, _BAR),
            *([Text(rollout.reason, looks.QUIET)] if self.is_wide else []),
        ]

    @on(Grid.RowSelected)
    def _open(self, event: Grid.RowSelected) -> None:
        if event.row_key.value is not None:
            self.app.open_rollout(event.row_key.value)


def progress(rollout: Rollout, width: int) -> Text:
    """How many devices have come to an end, as a bar (where there is room) and as a number."""
    total = sum(rollout.counts.values())
    told = Text(f"{round(rollout.share * total)}/{total}", looks.TEXT)
    if not width:
        return told
    return looks.bar(rollout.share, width, looks.rollout(rollout.state).color).append(" ").append_text(told)
