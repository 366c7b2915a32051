"""The fleet at a glance: how many are there, what comes in, how the server is, what ails most."""

from collections.abc import Sequence
from functools import partial
from typing import ClassVar, Final

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical
from textual.widgets import Static

from fleet_console.screens import actions, looks, plots
from fleet_console.screens.base import Watching
from fleet_console.screens.freshness import Look
from fleet_console.screens.grid import Column, Grid, Row
from fleet_console.screens.rollouts import progress
from fleet_console.sources.views import STATES, Device, Flow, Health, Overview, Rollout, Seen
from fleet_protocol.texts import _

_ROLLOUTS: Final = 3
"""The newest; the rest have a screen of their own."""

_BAR: Final = 18
_OPEN: Final = frozenset({"running", "paused"})


class OverviewScreen(Watching[Overview]):
    """What one looks at first."""

    SCOPE: ClassVar = "overview"
    BINDINGS: ClassVar[list[BindingType]] = [*actions.bindings("overview")]

    @property
    def place(self) -> str:
        """Its name."""
        return _("overview")

    async def look_at(self) -> Seen[Overview]:
        """Everything, in one round."""
        return await self.app.fleet.overview()

    def body(self) -> ComposeResult:
        """Two panes side by side, then what ails, then rollouts and the server."""
        with Horizontal(id="top"):
            for name, title in (("devices", _("Devices")), ("flow", _("Coming in"))):
                pane = Static(id=name, classes="pane")
                pane.border_title = f" {title} "
                yield pane
        with Vertical(id="ailing", classes="pane") as ailing:
            ailing.border_title = f" {_('What ails most')} "
            yield Static(id="well")
            yield Grid(id="rows")
        with Horizontal(id="bottom"):
            for name, title in (("rollouts", _("Rollouts")), ("server", _("Server"))):
                pane = Static(id=name, classes="pane")
                pane.border_title = f" {title} "
                yield pane

    def on_mount(self) -> None:
        """The rows have the keyboard."""
        super().on_mount()
        self.query_one(Grid).focus()

    def show(self, look: Look[Overview], now_s: float) -> None:
        """Every pane."""
        seen = look.seen.content
        self.query_one("#devices", Static).update(_devices(seen))
        self.query_one("#flow", Static).update(_flow(seen.flow))
        self.query_one("#rollouts", Static).update(_rollouts(seen.rollouts, 12 if self.is_wide else 0))
        self.query_one("#server", Static).update(_server(seen.server, look, now_s))
        ailing = seen.ailing()
        grid = self.query_one(Grid)
        grid.lay_out(self._columns())
        grid.fill(
            {
                f"{device.id}/{health.code}": partial(self._row, device, health, look, now_s)
                for device, health in ailing
            }
        )
        grid.display = bool(ailing)
        well = self.query_one("#well", Static)
        well.display = not ailing
        well.update(Text.assemble(looks.WELL.text(), (_("   no device has anything raised"), looks.QUIET)))

    @on(Grid.RowSelected)
    def _open(self, event: Grid.RowSelected) -> None:
        if event.row_key.value is not None:
            self.app.open_device(event.row_key.value.split("/")[0])

    def _row(self, device: Device, health: Health, look: Look[Overview], now_s: float) -> Row:
        return [
            looks.severity(health.level).text(),
            Text(device.id),
            Text(health.title),
            Text(look.age(health.since_ms, now_s), looks.QUIET),
            *([Text(health.next_step, looks.QUIET)] if self.is_wide else []),
        ]

    def _columns(self) -> Sequence[Column]:
        fixed = [Column(_("SEVERITY"), 11), Column(_("DEVICE"), 20)]
        age = Column(_("SINCE"), 7, right=True)
        room = self.size.width - 6 - sum(column.width + 2 for column in (*fixed, age))
        if not self.is_wide:
            return [*fixed, Column(_("WHAT"), max(10, room)), age]
        return [*fixed, Column(_("WHAT"), 30), age, Column(_("WHAT TO DO NEXT"), max(10, room - 34))]


def _devices(seen: Overview) -> Text:
    counts, total = seen.counts(), len(seen.devices)
    lines = []
    for name in STATES:
        mark, count = looks.state(name), counts.get(name, 0)
        lines.append(
            Text.assemble(
                (f"{mark.shape} {mark.word:<8}", mark.color if count else looks.QUIET),
                (f"{looks.count(count):>7}  ", f"bold {looks.TEXT}" if count else looks.QUIET),
                looks.bar(count / total if total else 0.0, _BAR, mark.color),
            )
        )
    return Text("\n").join(lines)


def _flow(flow: Flow) -> Text:
    known = flow.readings_a_second is not None
    rate = _("{rate:.3g} readings/s").format(rate=flow.readings_a_second) if known else _("counting …")
    text = Text.assemble((rate, f"bold {looks.TEXT}"), "  ", (plots.spark(flow.history, 14), looks.SKY))
    raised = _("{rate:.3g} events/min").format(rate=flow.events_a_minute) if known else ""
    text.append(f"\n{raised}")
    if flow.p50_ms is not None and flow.p99_ms is not None:
        told = _("stored within {p50}, 99 % {p99}")
        known_ms = {"p50": looks.duration(flow.p50_ms), "p99": looks.duration(flow.p99_ms)}
        text.append("\n" + told.format(**known_ms), looks.QUIET)
    else:
        text.append("\n" + _("nothing stored in the last minute"), looks.QUIET)
    lost = _("{lost} lost, {refused} refused").format(
        lost=looks.count(flow.lost_records), refused=looks.count(flow.refused)
    )
    return text.append(f"\n{lost}", looks.AMBER if flow.lost_records or flow.refused else looks.QUIET)


def _rollouts(rollouts: tuple[Rollout, ...] | None, bar: int) -> Text:
    if rollouts is None:
        return Text(_("This server has no rollouts yet."), looks.QUIET)
    if not rollouts:
        return Text(_("None so far: fleet rollout start"), looks.QUIET)
    chosen = sorted(rollouts, key=lambda each: each.state not in _OPEN)[:_ROLLOUTS]
    return Text("\n").join(
        Text.assemble(looks.rollout(each.state).text(), "  ", progress(each, bar), "  ", each.target)
        for each in chosen
    )


def _server(items: tuple[Health, ...], look: Look[Overview], now_s: float) -> Text:
    if not items:
        return Text.assemble(looks.WELL.text(), (_("   nothing is raised"), looks.QUIET))
    worst = items[0]
    text = looks.severity(worst.level).text().append(f"   {look.age(worst.since_ms, now_s)}", looks.QUIET)
    if len(items) > 1:
        text.append(_("   +{count} more").format(count=len(items) - 1), looks.QUIET)
    text.append(f"\n{worst.title}", f"bold {looks.TEXT}")
    return text.append(f"\n→ {worst.next_step}", looks.SAND)
