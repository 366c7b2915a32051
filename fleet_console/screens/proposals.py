"""What somebody asks for, the newest first; what waits stands out."""

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
from fleet_console.sources.views import Proposal, Seen
from fleet_protocol.texts import _

Proposals = tuple[Proposal, ...]


class ProposalsScreen(Filtered[Proposals]):
    """The list of proposals; enter opens one."""

    SCOPE: ClassVar = "proposals"
    BINDINGS: ClassVar[list[BindingType]] = [*actions.bindings("proposals")]

    @property
    def place(self) -> str:
        """Its name."""
        return _("proposals")

    @property
    def nothing(self) -> str:
        """What brings one."""
        return _("Nobody has asked for anything yet. A change begins so: fleet rollout start")

    async def look_at(self) -> Seen[Proposals]:
        """All of them."""
        return await self.app.fleet.proposals()

    def columns(self) -> Sequence[Column]:
        """The reason where there is room."""
        fixed = [
            Column(_("AGE"), 6, right=True),
            Column(_("STATE"), 12),
            Column(_("ACTION"), 18),
            Column(_("ASKED BY"), 12),
            Column(_("YES"), 5),
        ]
        used = sum(column.width + 2 for column in fixed)
        return [*fixed, Column(_("REASON"), max(10, self.size.width - 4 - used))]

    def entries(self, look: Look[Proposals], now_s: float) -> Iterator[Entry]:
        """As the server orders them."""
        for proposal in look.seen.content:
            words = (proposal.state, proposal.action, proposal.proposer, proposal.reason, proposal.id)
            yield Entry(proposal.id, " ".join(words), partial(self._row, proposal, look, now_s))

    def _row(self, proposal: Proposal, look: Look[Proposals], now_s: float) -> Row:
        return [
            Text(look.age(proposal.created_ms, now_s), looks.QUIET),
            looks.proposal(proposal.state).text(),
            Text(proposal.action),
            Text(proposal.proposer, looks.QUIET),
            Text(f"{proposal.approvals}/{proposal.needed}"),
            Text(proposal.reason, looks.QUIET),
        ]

    @on(Grid.RowSelected)
    def _open(self, event: Grid.RowSelected) -> None:
        if event.row_key.value is not None:
            self.app.open_proposal(event.row_key.value)
