"""A person on site has the last word on the line: they may stop what is fetched, and let it go on.

It is written into the artifact's ledger, so that it holds over restarts; it is forgotten with the
order. What lies on a stick, and what is being tried already, is not touched.
"""

from pathlib import Path

import msgspec

from edge_agent.errors import UpdateBroken
from edge_agent.updates import ledger as ledgers
from edge_agent.updates.records import Journal
from fleet_protocol.targets import Target
from fleet_protocol.texts import _
from fleet_protocol.update_states import UpdateState


def cancel(downloads: Path, journal: Journal) -> list[Target]:
    """Fetch nothing more of what is being fetched; what that was. No look may be under way.

    Raises:
        UpdateBroken: it cannot be written down.
    """
    return _mark(downloads, journal, canceled=True)


def resume(downloads: Path, journal: Journal) -> list[Target]:
    """Let what was canceled go on; what that is. Raises as :func:`cancel`."""
    return _mark(downloads, journal, canceled=False)


def _mark(downloads: Path, journal: Journal, *, canceled: bool) -> list[Target]:
    marked = []
    for entry in journal.entries:
        file = ledgers.place_of(downloads, entry.target.sha256)
        ledger = ledgers.load(file)
        if entry.state is not UpdateState.DOWNLOADING or ledger.canceled is canceled:
            continue
        try:
            ledgers.save(file, msgspec.structs.replace(ledger, canceled=canceled, held=""))
        except OSError as error:
            raise UpdateBroken(
                _("{file} cannot be written: {reason}").format(file=file, reason=error.strerror)
            ) from error
        marked.append(entry.target)
    return marked
