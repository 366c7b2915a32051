"""What fetching has cost, in words for who asks on site."""

from collections.abc import Iterator
from pathlib import Path

from edge_agent.updates import ledger as ledgers
from edge_agent.updates.ledger import Ledger
from edge_agent.updates.records import Installed, Journal
from fleet_protocol.targets import Target
from fleet_protocol.texts import _
from fleet_protocol.update_states import UpdateState


def costs(downloads: Path, journal: Journal, installed: Installed) -> Iterator[str]:
    """A line for every artifact that runs or is fetched and of which bytes came over the line."""
    fetching = {
        entry.target.path: entry.target for entry in journal.entries if entry.state is UpdateState.DOWNLOADING
    }
    running = {slot.current.path: slot.current for slot in installed.slots if slot.current}
    for target in (running | fetching).values():
        ledger = ledgers.load(ledgers.place_of(downloads, target.sha256))
        if ledger != Ledger():
            yield _cost(target, ledger)


def held(downloads: Path, journal: Journal) -> dict[str, str]:
    """Why what is ordered must not be fetched now, by its digest."""
    found = {}
    for entry in journal.entries:
        ledger = ledgers.load(ledgers.place_of(downloads, entry.target.sha256))
        if ledger.canceled or ledger.held:
            found[entry.target.sha256] = _("canceled on site") if ledger.canceled else ledger.held
    return found


def _cost(target: Target, ledger: Ledger) -> str:
    text = _("{path}: {fetched} bytes fetched in {minutes:.1f} min, {saved} saved, of {length}").format(
        path=target.path,
        fetched=ledger.fetched,
        minutes=ledger.seconds / 60,
        saved=ledger.saved,
        length=target.length,
    )
    if ledger.canceled:
        return text + _("; canceled on site")
    return text + (f"; {ledger.held}" if ledger.held else "")
