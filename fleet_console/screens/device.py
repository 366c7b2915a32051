"""One device: its values, what ails it, its models, its updates, and itself.

A wide terminal shows everything at once; a narrow one a part at a time, and tab leads to the next.
"""

from collections.abc import Sequence
from functools import partial
from typing import ClassVar, Final

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.widgets import Static

from fleet_console.screens import actions, device_texts, looks, plots
from fleet_console.screens.base import Watching
from fleet_console.screens.freshness import Look
from fleet_console.screens.grid import Column, Grid, Row
from fleet_console.sources.views import DevicePage, Seen, Value
from fleet_protocol.texts import _, mark

_PARTS: Final = {
    "values": mark("Values"),
    "health": mark("Health"),
    "models": mark("Models"),
    "updates": mark("Updates"),
    "agent": mark("Agent"),
}

_CURVE_LINES: Final = 5
_SCALE: Final = 10


class DeviceScreen(Watching[DevicePage]):
    """One device's page, from a server or from the device itself."""

    SCOPE: ClassVar = "device"
    BINDINGS: ClassVar[list[BindingType]] = [
        *actions.bindings("device"),
        Binding("tab", "part(1)", show=False, priority=True),
        Binding("shift+tab", "part(-1)", show=False, priority=True),
    ]

    def __init__(self, device: str = "") -> None:
        super().__init__()
        self._device = device
        self._part = "values"

    @property
    def place(self) -> str:
        """Its name, as soon as that is known."""
        return self.last.seen.content.device.id if self.last else self._device or _("device")

    async def look_at(self) -> Seen[DevicePage]:
        """Its page."""
        return await self.app.source.device(self._device)

    def body(self) -> ComposeResult:
        """Values on the left, everything else on the right; or one of them."""
        yield Static(id="head")
        yield Static(id="parts")
        with Horizontal(id="columns"):
            with Vertical(id="values", classes="part"):
                yield Grid(id="rows")
                yield Static(id="curve")
            with VerticalScroll(id="side"):
                for part in list(_PARTS)[1:]:
                    pane = Static(id=part, classes="part")
                    pane.border_title = f" {_(_PARTS[part])} "
                    yield pane

    def on_mount(self) -> None:
        """The values have the keyboard."""
        super().on_mount()
        self.query_one("#values").border_title = f" {_(_PARTS['values'])} "
        self._turn_to(self._part)

    def show(self, look: Look[DevicePage], now_s: float) -> None:
        """Every part."""
        page = look.seen.content

        def age(time_ms: int | None) -> str:
            return look.age(time_ms, now_s)

        self.query_one("#head", Static).update(device_texts.head(page, age))
        self.query_one("#parts", Static).update(self._parts_line(page))
        self.query_one("#health", Static).update(device_texts.health(page.device.health, age))
        self.query_one("#models", Static).update(device_texts.models(page, age))
        self.query_one("#updates", Static).update(device_texts.updates(page, age))
        self.query_one("#agent", Static).update(device_texts.agent(page, age))
        grid = self.query_one(Grid)
        grid.lay_out(self._columns())
        grid.fill({each.metric: partial(self._row, each, age(each.time_ms)) for each in page.values})
        self._draw_curve(page.values)

    def action_part(self, step: int) -> None:
        """To the next part; where all are shown, between values and the rest."""
        if self.is_wide:
            side = self.query_one("#side")
            (self.query_one(Grid) if side.has_focus else side).focus()
            return
        names = list(_PARTS)
        self._turn_to(names[(names.index(self._part) + step) % len(names)])
        self.draw()

    def on_grid_row_highlighted(self) -> None:
        """Draw the metric under the cursor."""
        if self.last is not None:
            self._draw_curve(self.last.seen.content.values)

    def action_copy(self) -> None:
        """The name into the clipboard, as far as the terminal lets it."""
        self.app.copy_to_clipboard(self.place)
        self.app.notify(_("Copied where the terminal allows it: {name}").format(name=self.place))

    async def action_read(self) -> None:
        """Read a sensor now."""
        report = self.last.seen.content.report if self.last else None
        await self.app.errands.read([each.name for each in report.sensors] if report else [])

    async def action_doctor(self) -> None:
        """Have the agent check itself."""
        self.app.errands.doctor()

    async def action_apply(self) -> None:
        """Apply an update from a file."""
        self.app.errands.apply(self.place)

    async def action_bundle(self) -> None:
        """Write a support bundle."""
        self.app.errands.bundle(self.place)

    def _turn_to(self, part: str) -> None:
        """Show ``part`` where only one is shown; it gets the keyboard."""
        self._part = part
        for name in _PARTS:
            self.query_one(f"#{name}").set_class(name == part, "-chosen")
        self.query_one("#side").set_class(part != "values", "-chosen")
        (self.query_one(Grid) if part == "values" else self.query_one("#side")).focus()

    def _parts_line(self, page: DevicePage) -> Text:
        line = Text()
        for name, badge in device_texts.badges(page).items():
            title = f" {_(_PARTS[name])} {badge} " if badge else f" {_(_PARTS[name])} "
            line.append(title, f"bold {looks.GROUND} on {looks.SAND}" if name == self._part else looks.QUIET)
            line.append(" ")
        return line.append(_(" tab"), looks.QUIET)

    def _columns(self) -> Sequence[Column]:
        room = self._room()
        fixed = [
            Column(_("METRIC"), 18),
            Column(_("VALUE"), 11, right=True),
            Column(_("UNIT"), 6),
            Column(_("AGE"), 6, right=True),
            Column(_("QUALITY"), 9),
        ]
        used = sum(column.width + 2 for column in fixed)
        return [*fixed, Column(_("HISTORY"), max(6, room - 2 - used))]

    def _room(self) -> int:
        """Columns that the values have."""
        return self.size.width * 5 // 8 - 4 if self.is_wide else self.size.width - 2

    def _row(self, value: Value, age: str) -> Row:
        width = self._columns()[-1].width
        return [
            Text(value.metric),
            Text(looks.number(value), f"bold {looks.TEXT}"),
            Text(value.unit, looks.QUIET),
            Text(age, looks.QUIET),
            device_texts.quality(value.quality),
            Text(plots.spark(value.history, width), looks.SKY),
        ]

    def _draw_curve(self, values: Sequence[Value]) -> None:
        """The metric under the cursor, large."""
        chosen = self.query_one(Grid).chosen
        value = next((each for each in values if each.metric == chosen), None)
        known = [each for each in value.history if each == each] if value else []  # noqa: PLR0124 - NaN is not itself
        curve = self.query_one("#curve", Static)
        curve.display = bool(known)
        if value is None or not known:
            return
        lines = plots.curve(value.history, max(10, self._room() - _SCALE - 4), _CURVE_LINES)
        marks = [f"{max(known):.5g}", *[""] * (_CURVE_LINES - 2), f"{min(known):.5g}"]
        curve.border_title = _(" {metric}, the last {count} ").format(
            metric=value.metric, count=len(value.history)
        )
        curve.update(
            Text("\n").join(
                Text.assemble((f"{label:>{_SCALE}} ", looks.QUIET), (line, looks.SKY))
                for label, line in zip(marks, lines, strict=True)
            )
        )
