"""Every device in one table: whether it is there, when it was heard, and what ails it most."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, ClassVar, Final

from rich.text import Text
from textual import on
from textual.binding import BindingType

from fleet_console.screens import actions, looks
from fleet_console.screens.filtered import Entry, Filtered
from fleet_console.screens.freshness import Look
from fleet_console.screens.grid import Column, Grid, Row
from fleet_console.sources.views import STATES, Device, Seen
from fleet_protocol.texts import _, mark

Devices = tuple[Device, ...]

_ORDERS: Final[tuple[tuple[str, Callable[[Device], Any]], ...]] = (
    (mark("DEVICE"), lambda device: device.id),
    (mark("STATE"), lambda device: -STATES.index(device.state) if device.state in STATES else 1),
    (mark("HEARD"), lambda device: -(device.heard_ms or 0)),
    (mark("HEALTH"), lambda device: -device.worst.level if device.worst else 1),
)
"""What can be sorted by; what needs a look comes first, and names decide between equals."""


class DevicesScreen(Filtered[Devices]):
    """The list of devices; enter opens one."""

    SCOPE: ClassVar = "devices"
    BINDINGS: ClassVar[list[BindingType]] = [*actions.bindings("devices")]

    def __init__(self) -> None:
        super().__init__()
        self._order = 0

    @property
    def place(self) -> str:
        """Its name."""
        return _("devices")

    @property
    def nothing(self) -> str:
        """How to get the first one."""
        return _("No device yet. Add one: fleet device add NAME --out DIR")

    async def look_at(self) -> Seen[Devices]:
        """All of them."""
        return await self.app.fleet.devices()

    def columns(self) -> Sequence[Column]:
        """Profile and site where there is room."""
        rest = self.size.width - 4
        fixed = [
            Column(self._title(0), 22),
            Column(self._title(1), 10),
            Column(self._title(2), 7, right=True),
            *([Column(_("PROFILE"), 16), Column(_("SITE"), 16)] if self.is_wide else []),
            Column(self._title(3), 11),
        ]
        used = sum(column.width + 2 for column in fixed)
        return [*fixed, Column("", max(8, rest - used))]

    def entries(self, look: Look[Devices], now_s: float) -> Iterator[Entry]:
        """In the order that was chosen."""
        rank = _ORDERS[self._order][1]
        for device in sorted(look.seen.content, key=lambda device: (rank(device), device.id)):
            yield Entry(device.id, _line(device), partial(self._row, device, look, now_s))

    def action_sort(self) -> None:
        """By the next column."""
        self._order = (self._order + 1) % len(_ORDERS)
        self.draw()

    @on(Grid.RowSelected)
    def _open(self, event: Grid.RowSelected) -> None:
        if event.row_key.value is not None:
            self.app.open_device(event.row_key.value)

    def _title(self, number: int) -> str:
        return _(_ORDERS[number][0]) + (" ▾" if number == self._order else "")

    def _row(self, device: Device, look: Look[Devices], now_s: float) -> Row:
        worst = device.worst
        wide = [Text(device.profile, looks.QUIET), Text(device.site or "—", looks.QUIET)]
        return [
            Text(device.id),
            looks.state(device.state).text(),
            Text(look.age(device.heard_ms, now_s), looks.QUIET),
            *(wide if self.is_wide else []),
            looks.severity(worst.level if worst else None).text(),
            Text(_what(device), looks.QUIET),
        ]


def _what(device: Device) -> str:
    """What ails it most, and how much more."""
    what = device.worst.title if device.worst else ""
    if len(device.health) > 1:
        what = _("{what} +{more}").format(what=what, more=len(device.health) - 1)
    return what


def _line(device: Device) -> str:
    worst = looks.severity(device.worst.level if device.worst else None)
    words = (device.id, looks.state(device.state).word, device.profile, device.site or "", worst.word)
    return " ".join((*words, _what(device), *(each.code for each in device.health)))
