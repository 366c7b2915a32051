"""One proposal: what it changes, what it reaches, who said what; approved or rejected from here."""

from collections.abc import Iterator
from typing import Any, ClassVar, Final

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import VerticalScroll
from textual.widgets import Static

from fleet_console.errors import ConsoleError
from fleet_console.screens import actions, looks
from fleet_console.screens.base import Watching
from fleet_console.screens.dialogs import Ask, Confirm
from fleet_console.screens.freshness import Look
from fleet_console.sources.views import Change, Proposal, ProposalPage, Reached, Seen
from fleet_protocol.texts import _

_WAITS: Final = "proposed"


class ProposalScreen(Watching[ProposalPage]):
    """One proposal."""

    SCOPE: ClassVar = "proposal"
    BINDINGS: ClassVar[list[BindingType]] = [*actions.bindings("proposal")]

    def __init__(self, proposal: str) -> None:
        super().__init__()
        self._proposal = proposal

    @property
    def place(self) -> str:
        """Its id."""
        return self._proposal

    async def look_at(self) -> Seen[ProposalPage]:
        """Its page."""
        return await self.app.fleet.proposal(self._proposal)

    def body(self) -> ComposeResult:
        """Who asks for what, then everything else in a pane that scrolls."""
        yield Static(id="head")
        with VerticalScroll(id="proposal"):
            for name, title in (("diff", _("Changes")), ("reach", _("Reaches")), ("votes", _("Said"))):
                part = Static(id=name, classes="pane")
                part.border_title = title
                yield part

    def on_mount(self) -> None:
        """Arrow keys scroll."""
        super().on_mount()
        self.query_one("#proposal").focus()

    def show(self, look: Look[ProposalPage], now_s: float) -> None:
        """Everything."""
        page = look.seen.content
        age = look.age(page.proposal.created_ms, now_s)
        self.query_one("#head", Static).update(_head(page.proposal, age))
        self.query_one("#diff", Static).update(Text("\n").join(_lines(page.diff)))
        self.query_one("#reach", Static).update(_reach(page))
        self.query_one("#votes", Static).update(_votes(page))

    def action_approve(self) -> None:
        """Show what it would do once more, and agree to exactly that."""
        page = self._waiting()
        if page is None:
            return
        proposal = page.proposal
        brings = [*(line.plain for line in _lines(page.diff[:3])), _reaches(proposal)]
        if proposal.needed - proposal.approvals <= 1:
            brings.append(_("Yours is the last approval that it takes: it is carried out at once."))
        dialog = Confirm(
            _("Approve what {person} asks for?").format(person=proposal.proposer),
            f"{proposal.action}\n{proposal.id}",
            brings,
            _("Approve"),
        )
        self.app.push_screen(dialog, lambda yes: self._decide("approve", proposal.sha256) if yes else None)

    def action_reject(self) -> None:
        """Say no, and why."""
        if self._waiting() is None:
            return
        question = _("Reject it? It ends, and has to be proposed anew.")
        self.app.push_screen(
            Ask(question, _("Why:")), lambda reason: self._decide("reject", reason) if reason else None
        )

    def _waiting(self) -> ProposalPage | None:
        """The page, where there is something to decide; else say why not."""
        if self.last is None:
            return None
        page: ProposalPage = self.last.seen.content
        if page.proposal.state != _WAITS:
            word = looks.proposal(page.proposal.state).word
            self.app.notify(_("It is {state}: nothing is to decide.").format(state=word), severity="warning")
            return None
        return page

    def _decide(self, verdict: str, said: str) -> None:
        self.run_worker(self._ask(verdict, said), group="decide", name=f"proposal {verdict}")

    async def _ask(self, verdict: str, said: str) -> None:
        try:
            await self.app.fleet.decide(self._proposal, verdict, said)
        except ConsoleError as error:
            self.app.notify(str(error), severity="error", timeout=15)
        self.action_refresh()


def _head(proposal: Proposal, age: str) -> Text:
    given = _("{given} of {needed} approvals").format(given=proposal.approvals, needed=proposal.needed)
    text = Text.assemble(
        looks.proposal(proposal.state).text(),
        "   ",
        (proposal.action, f"bold {looks.TEXT}"),
        f"   {given}",
        (_("   asked by {person}, {age} ago").format(person=proposal.proposer, age=age), looks.QUIET),
    )
    text.append(f"\n{proposal.reason}", looks.QUIET)
    if proposal.outcome:
        text.append(f"\n{proposal.outcome}", looks.AMBER)
    return text


def _lines(diff: tuple[Change, ...]) -> Iterator[Text]:
    for line in diff:
        after = _said(line.after)
        text = Text(f"{line.field}  ", looks.QUIET)
        if line.before is not None:
            text.append(_said(line.before), looks.AMBER).append(" → ", looks.QUIET)
        yield text.append(f"\n{after}" if "\n" in after else after, looks.LEAF)


def _said(value: Any) -> str:
    if value is None:
        return "—"
    if isinstance(value, dict):
        return ", ".join(f"{key} × {_said(each)}" for key, each in value.items())
    if isinstance(value, list):
        return f"[{', '.join(map(_said, value))}]"
    return str(value)


def _reaches(proposal: Proposal) -> str:
    if proposal.everywhere:
        return _("everything; {count} devices now").format(count=proposal.devices)
    sites = ", ".join(site or _("no site") for site in proposal.sites)
    return _("{count} devices at {sites}").format(count=proposal.devices, sites=sites)


def _reach(page: ProposalPage) -> Text:
    text = Text(_reaches(page.proposal))
    for device in page.reached:
        text.append(f"\n{_device(device)}", looks.QUIET)
    return text


def _device(device: Reached) -> str:
    return _("{id} at {site}: is to have {has}, runs {runs}").format(
        id=device.id, site=device.site or "—", has=device.has or "—", runs=device.runs or "—"
    )


def _votes(page: ProposalPage) -> Text:
    text = Text()
    for vote in page.votes:
        word = _("yes") if vote.agrees else _("no")
        color = looks.LEAF if vote.agrees and vote.counts else looks.RED
        text.append(f"{vote.person}: {word}", color).append(f"  {vote.reason}\n", looks.QUIET)
    if glass := page.break_glass:
        told = _("{person} broke the glass: {reason}").format(person=glass.person, reason=glass.reason)
        text.append(told, looks.RED)
    return text or Text(_("Nobody has said anything yet."), looks.QUIET)
