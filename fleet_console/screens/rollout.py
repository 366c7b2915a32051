"""One rollout: how far it is, wave by wave, and where each device stands and why."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar, Final

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.widgets import Static

from fleet_console.errors import ConsoleError
from fleet_console.screens import actions, looks
from fleet_console.screens.base import Watching
from fleet_console.screens.dialogs import Confirm
from fleet_console.screens.freshness import Look
from fleet_console.screens.grid import Column, Grid, Row, Rows
from fleet_console.screens.rollouts import progress
from fleet_console.sources.base import Step
from fleet_console.sources.views import Member, Rollout, RolloutPage, Seen, Wave
from fleet_protocol.texts import _

_OPEN: Final = frozenset({"running", "paused"})
_FITS: Final = {Step.PAUSE: frozenset({"running"}), Step.RESUME: frozenset({"paused"}), Step.ABORT: _OPEN}
_WAVE: Final = "wave/"


class RolloutScreen(Watching[RolloutPage]):
    """One rollout."""

    SCOPE: ClassVar = "rollout"
    BINDINGS: ClassVar[list[BindingType]] = [*actions.bindings("rollout")]

    def __init__(self, rollout: str) -> None:
        super().__init__()
        self._rollout = rollout

    @property
    def place(self) -> str:
        """Where it moves to, once that is known."""
        return self.last.seen.content.rollout.target if self.last else self._rollout[:8]

    async def look_at(self) -> Seen[RolloutPage]:
        """Its page."""
        return await self.app.fleet.rollout(self._rollout)

    def body(self) -> ComposeResult:
        """What it is, and its devices under their waves."""
        yield Static(id="head")
        yield Grid(id="rows")
        yield Static(id="said")

    def on_mount(self) -> None:
        """The rows have the keyboard."""
        super().on_mount()
        self.query_one(Grid).focus()

    def show(self, look: Look[RolloutPage], now_s: float) -> None:
        """Everything."""
        page = look.seen.content
        self.query_one("#head", Static).update(_head(page.rollout, look.age(page.rollout.created_ms, now_s)))
        grid = self.query_one(Grid)
        grid.lay_out(self._columns())
        grid.fill(self._rows(look, now_s))
        self._explain(page, grid.chosen)

    def on_grid_row_highlighted(self) -> None:
        """Say all of the row under the cursor."""
        if self.last is not None:
            self._explain(self.last.seen.content, self.query_one(Grid).chosen)

    def _explain(self, page: RolloutPage, chosen: str | None) -> None:
        members = (*(each for wave in page.waves for each in wave.devices), *page.left_out)
        member = next((each for each in members if each.id == chosen), None)
        said = self.query_one("#said", Static)
        text = _why(member) if member else Text()
        said.display = bool(text)
        said.update(text)

    def action_steer(self, name: str) -> None:
        """Ask whether to, and say why not where it makes no sense."""
        step = Step(name)
        if self.last is None:
            return
        rollout = self.last.seen.content.rollout
        if rollout.state not in _FITS[step]:
            word = looks.rollout(rollout.state).word
            self.app.notify(
                _("This rollout is {state}: there is nothing to {step}.").format(state=word, step=step),
                severity="warning",
            )
            return
        question, brings, verb = _words(step)
        thing = _("{target} → group {group}").format(target=rollout.target, group=rollout.group or "—")
        self.app.push_screen(
            Confirm(question, f"{thing}\n{rollout.id}", brings, verb),
            lambda yes: self._steer(step) if yes else None,
        )

    def _steer(self, step: Step) -> None:
        self.run_worker(self._ask(step), group="steer", name=f"rollout {step}")

    async def _ask(self, step: Step) -> None:
        try:
            said = await self.app.fleet.steer(self._rollout, step)
        except ConsoleError as error:
            self.app.notify(str(error), severity="error", timeout=15)
        else:
            if said:
                self.app.notify(said, timeout=15)
        self.action_refresh()

    @on(Grid.RowSelected)
    def _open(self, event: Grid.RowSelected) -> None:
        key = event.row_key.value or ""
        if key and not key.startswith(_WAVE):
            self.app.open_device(key)

    def _columns(self) -> Sequence[Column]:
        name = 28 if self.is_wide else 20
        fixed = [Column(_("DEVICE"), name), Column(_("STATE"), 11), Column(_("SINCE"), 6, right=True)]
        used = sum(column.width + 2 for column in fixed)
        return [*fixed, Column(_("WHAT IT SAYS"), max(10, self.size.width - 4 - used))]

    def _rows(self, look: Look[RolloutPage], now_s: float) -> Rows:
        page = look.seen.content
        rows: dict[str, Callable[[], Row]] = {}
        for wave in page.waves:
            rows[f"{_WAVE}{wave.number}"] = partial(_wave, wave, look, now_s)
            rows |= {each.id: partial(_member, each, look, now_s) for each in wave.devices}
        if page.left_out:
            rows[f"{_WAVE}left-out"] = _left_out
            rows |= {each.id: partial(_member, each, look, now_s) for each in page.left_out}
        return rows


def _head(rollout: Rollout, age: str) -> Text:
    text = Text.assemble(
        looks.rollout(rollout.state).text(),
        "   ",
        progress(rollout, 24),
        (_("   group {group}, begun {age} ago").format(group=rollout.group or "—", age=age), looks.QUIET),
    )
    if rollout.reason:
        text.append(f"\n{rollout.reason}", looks.QUIET)
    if rollout.asked_by:
        told = _("\nasked by {asker}, approved by {approvers}")
        people = ", ".join(rollout.approved_by) or "—"
        text.append(told.format(asker=rollout.asked_by, approvers=people), looks.QUIET)
    if rollout.detail:
        text.append(f"\n{rollout.detail}", looks.AMBER)
    return text


def _wave(wave: Wave, look: Look[RolloutPage], now_s: float) -> Row:
    mark = looks.wave(wave.state)
    done = sum(each.state == "done" for each in wave.devices)
    told = _("{done} of {total} done").format(done=done, total=len(wave.devices))
    return [
        Text(_("wave {number}").format(number=wave.number), f"bold {looks.SAND}"),
        mark.text(),
        Text(look.age(wave.started_ms, now_s), looks.QUIET),
        Text(told, looks.QUIET),
    ]


def _left_out() -> Row:
    title = Text(_("left out"), f"bold {looks.QUIET}")
    return [title, Text(), Text(), Text(_("does not fit"), looks.QUIET)]


def _member(member: Member, look: Look[RolloutPage], now_s: float) -> Row:
    return [
        Text(f"  {member.id}"),
        looks.member(member.state).text(),
        Text(look.age(member.since_ms, now_s), looks.QUIET),
        _said(member),
    ]


def _said(member: Member) -> Text:
    """Why it stands where it stands, in the device's own words."""
    if member.refusal:
        return Text(_("refused: {code}").format(code=member.refusal.replace("_", " ")), looks.RED)
    if member.is_holding:
        return Text(_("{presence}, holds the wave").format(presence=member.presence), looks.AMBER)
    if member.update and member.state == "assigned":
        text = looks.update(member.update).text()
        if member.size and member.update == "downloading":
            share = member.done / member.size
            text.append(" ").append_text(looks.bar(share, 10, looks.SKY)).append(f" {share:.0%}", looks.SKY)
        return text
    return Text(member.detail, looks.QUIET)


def _why(member: Member) -> Text:
    """The same in whole sentences, with what to do next."""
    text = Text()
    if member.refusal:
        meaning, next_step = looks.refusal(member.refusal)
        text.append(meaning, looks.RED)
        text.append(f"\n→ {next_step}" if next_step else "", looks.SAND)
    if member.is_holding:
        text.append(
            _("It is {presence}. The wave waits for it.").format(presence=member.presence), looks.AMBER
        )
    if member.detail:
        text.append(("\n" if text else "") + member.detail)
    return text


def _words(step: Step) -> tuple[str, list[str], str]:
    match step:
        case Step.PAUSE:
            return (
                _("Pause this rollout?"),
                [_("No further wave opens."), _("Devices that have begun go on to their end.")],
                _("Pause"),
            )
        case Step.RESUME:
            return (
                _("Ask to resume this rollout?"),
                [_("Somebody else approves it; then the next wave opens when it is due.")],
                _("Ask"),
            )
        case Step.ABORT:
            return (
                _("Abort this rollout? It cannot be taken up again."),
                [
                    _("Devices that have not begun get back what they were to have."),
                    _("Devices that have begun go on to their end; none is restarted."),
                ],
                _("Abort"),
            )
