"""One look: verify, write the marks down, plan, download, say what came of it.

Runs in the child. The order is the point: nothing of what the repositories say is used before the
marks that forbid to go back behind it are on the disk.
"""

import ssl
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from functools import partial
from pathlib import Path

from edge_agent.errors import (
    IdentityError,
    RenewalError,
    UpdateBroken,
    UpdateError,
    UpdateHeld,
    UpdateRefused,
    UpdateUnreachable,
)
from edge_agent.identity.device_server import DeviceServer
from edge_agent.identity.identity import serial_of
from edge_agent.identity.proof import Prover
from edge_agent.link.https import tls_context
from edge_agent.updates import board, marks
from edge_agent.updates.download import Come, Downloader
from edge_agent.updates.ledger import DOWNLOADS, Ledger
from edge_agent.updates.marks import Marks
from edge_agent.updates.meter import Counted, Wall
from edge_agent.updates.planner import Install, Key, Refuse, Situation, Step, Wait, plan
from edge_agent.updates.source import Bundle, Https, NotThere, Source, closing
from edge_agent.updates.spoken import (
    Accepted,
    Ask,
    Broken,
    Done,
    Held,
    Noted,
    Progress,
    Refused,
    Said,
    Unreachable,
    Waiting,
)
from edge_agent.updates.trust import Repositories, Word
from fleet_protocol.delivery import ANY
from fleet_protocol.targets import Standing, Target
from fleet_protocol.texts import _
from fleet_protocol.versions import OrderedVersion

Say = Callable[[Said], None]


def look(ask: Ask, say: Say) -> None:
    """Look once, as ``ask`` says; everything that comes of it is said, nothing foreseen is raised."""
    try:
        with closing(_source(ask)) as source:
            _look(ask, source, say)
    except UpdateRefused as error:
        say(Refused(error.refusal, error.scope, error.detail))
    except UpdateUnreachable as error:
        say(Unreachable(str(error)))
    except (UpdateError, IdentityError) as error:
        say(Broken(str(error)))
    except OSError as error:
        say(Broken(_("the folder of updates cannot be used: {reason}").format(reason=error.strerror)))


def _source(ask: Ask) -> Source:
    if ask.bundle:
        return Bundle(Path(ask.bundle))
    context = tls_context(Path(ask.ca), check_dates=ask.check_dates)
    return Https(ask.url, context, partial(_token, ask, context) if ask.server else None)


def _token(ask: Ask, context: ssl.SSLContext) -> str:
    """What shows the server which device asks.

    Raises:
        UpdateUnreachable: the server gives none.
    """
    try:
        serial = serial_of(Path(ask.certificate))
        with DeviceServer(ask.server, context) as server:
            return Prover(ask.device, serial, Path(ask.key)).token(server)
    except (RenewalError, IdentityError) as error:
        raise UpdateUnreachable(str(error)) from error


def _look(ask: Ask, source: Source, say: Say) -> None:
    folder = Path(ask.folder)
    before = marks.load(folder)
    after, word = Repositories(ask, source).word(before)
    if after != before:
        marks.save(folder, after)
    for error in word.refused.values():
        say(Refused(error.refusal, error.scope, error.detail))
    wall = Wall(ask.now_ms, ask.time_zone)
    for step in plan(word.orders, word.published, _situation(ask, after, word)):
        after = _do(step, _fetching(ask, wall, word, source), folder, after, say)
    say(
        Done(
            [(*target.key, target.sha256) for target in word.orders],
            [_ordered(target) for target in word.orders],
        )
    )


def _ordered(target: Target) -> OrderedVersion:
    described = target.description
    return OrderedVersion(
        kind=described.kind,
        name=described.name,
        version=described.version,
        release=described.release,
        sha256=target.sha256,
        mode=described.mode,
    )


def _situation(ask: Ask, known: Marks, word: Word) -> Situation:
    failed: dict[Key, set[str]] = {}
    for kind, name, digest in ask.failed:
        failed.setdefault((kind, name), set()).add(digest)
    standings = {target.key: _standing(target, known, failed) for target in word.orders}

    def problems(target: Target) -> list[str]:
        return board.problems(target.description, ask.profile) or board.lacking_room(target, Path(ask.folder))

    return Situation(
        device=ask.device,
        having={(kind, name): digest for kind, name, digest in ask.having},
        busy=frozenset(ask.busy),
        standings=standings,
        problems=problems,
    )


def _fetching(ask: Ask, wall: Wall, word: Word, source: Source) -> "Fetching":
    """How to fetch in this look; what lies on a stick costs nobody's line."""

    def fetching(target: Target) -> tuple[Downloader, Counted | None]:
        downloads = Path(ask.folder) / DOWNLOADS
        if ask.bundle:
            return Downloader(downloads, source), None
        terms = (ask.terms, word.terms.get(target.path, ANY))
        meter = Counted(downloads, target, terms, ask.budget, wall)
        bases = [digest for kind, name, digest in ask.bases if (kind, name) == target.key]
        return Downloader(downloads, source, meter, bases, ask.delta_mib), meter

    return fetching


def _standing(target: Target, known: Marks, failed: Mapping[Key, AbstractSet[str]]) -> Standing:
    """A shadow has a mark of its own: a release on trial must not forbid the one that acts its next step."""
    plain = (target.description.kind, target.description.name)
    highest = max(known.highest(*plain), known.highest(*target.key))
    return Standing(highest, frozenset(failed.get(plain, ())))


def _do(step: Step, fetching: "Fetching", folder: Path, known: Marks, say: Say) -> Marks:
    """Carry out one step; the marks after it."""
    target = step.target
    match step:
        case Refuse(_target, refusal, detail):
            say(Refused(refusal, target.path, detail, target))
        case Wait():
            say(Waiting(target))
        case Install():
            return _fetch(target, fetching, folder, known, say)
    return known


def _fetch(target: Target, fetching: "Fetching", folder: Path, known: Marks, say: Say) -> Marks:
    downloader, meter = fetching(target)

    def tell(come: Come) -> None:
        say(Progress(target, come.done, come.size, meter.ledger.fetched if meter else 0))

    tell(Come(0, target.length))
    try:
        file = downloader.fetch(target, tell, lambda text: say(Noted(text)))
    except UpdateHeld as error:
        say(Held(target, str(error), error.again_s, error.spent))
        return known
    except UpdateRefused as error:
        say(Refused(error.refusal, error.scope, error.detail, target))
        return known
    except NotThere as error:
        # The others may be there; a server that does not answer ends the look.
        say(Unreachable(str(error)))
        return known
    except UpdateBroken as error:
        say(Broken(str(error)))
        return known
    after = known.with_release(*target.key, target.description.release)
    if after != known:
        marks.save(folder, after)
    if meter is not None:
        say(Noted(_cost(target, meter.ledger)))
    say(Accepted(target, str(file)))
    return after


def _cost(target: Target, spent: Ledger) -> str:
    return _("{path}: {length} bytes are here; {fetched} were fetched, {saved} saved").format(
        path=target.path, length=target.length, fetched=spent.fetched, saved=spent.saved
    )


Fetching = Callable[[Target], tuple[Downloader, Counted | None]]
"""With what one target is fetched; None where nobody counts."""
