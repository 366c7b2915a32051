"""One look: verify, write the marks down, plan, download, say what came of it.

Runs in the child. The order is the point: nothing of what the repositories say is used before the
marks that forbid to go back behind it are on the disk.
"""

import ssl
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from edge_agent.errors import (
    IdentityError,
    RenewalError,
    UpdateBroken,
    UpdateError,
    UpdateRefused,
    UpdateUnreachable,
)
from edge_agent.identity.device_server import DeviceServer
from edge_agent.identity.identity import serial_of
from edge_agent.identity.proof import Prover
from edge_agent.link.https import tls_context
from edge_agent.updates import board, marks
from edge_agent.updates.download import Downloader
from edge_agent.updates.marks import Marks
from edge_agent.updates.planner import Install, Key, Refuse, Situation, Step, Wait, plan
from edge_agent.updates.source import Bundle, Https, NotThere, Source, closing
from edge_agent.updates.spoken import (
    Accepted,
    Ask,
    Broken,
    Done,
    Progress,
    Refused,
    Said,
    Unreachable,
    Waiting,
)
from edge_agent.updates.trust import Repositories, Word
from fleet_protocol.targets import Description, Standing, Target
from fleet_protocol.texts import _
from fleet_protocol.versions import OrderedVersion

DOWNLOADS: Final = "downloads"

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
    for step in plan(word.orders, word.published, _situation(ask, after, word)):
        after = _do(step, Downloader(folder / DOWNLOADS, source), folder, after, say)
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
    )


def _situation(ask: Ask, known: Marks, word: Word) -> Situation:
    failed: dict[Key, set[str]] = {}
    for kind, name, digest in ask.failed:
        failed.setdefault((kind, name), set()).add(digest)
    standings = {
        target.key: Standing(known.highest(*target.key), frozenset(failed.get(target.key, ())))
        for target in word.orders
    }

    def problems(description: Description) -> list[str]:
        return board.problems(description, ask.profile)

    return Situation(
        device=ask.device,
        having={(kind, name): digest for kind, name, digest in ask.having},
        busy=frozenset(ask.busy),
        standings=standings,
        problems=problems,
    )


def _do(step: Step, downloader: Downloader, folder: Path, known: Marks, say: Say) -> Marks:
    """Carry out one step; the marks after it."""
    target = step.target
    match step:
        case Refuse(_target, refusal, detail):
            say(Refused(refusal, target.path, detail, target))
        case Wait():
            say(Waiting(target))
        case Install():
            return _fetch(target, downloader, folder, known, say)
    return known


def _fetch(target: Target, downloader: Downloader, folder: Path, known: Marks, say: Say) -> Marks:
    say(Progress(target, 0))
    try:
        file = downloader.fetch(target, lambda done: say(Progress(target, done)))
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
    say(Accepted(target, str(file)))
    return after
