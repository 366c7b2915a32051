"""Everything that stands between what is ordered and what runs here, and what to do. Pure."""

import errno
import os
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from edge_agent.updates.records import Entry, Installed, Journal
from fleet_protocol.targets import WORDS
from fleet_protocol.texts import _, mark
from fleet_protocol.update_states import UpdateState
from fleet_protocol.versions import OrderedVersion

_S = UpdateState


class Finding(NamedTuple):
    """One thing that stands. ``code`` is stable; ``subject`` is an artifact's path, or what was looked at."""

    code: str
    subject: str
    meaning: str
    detail: str
    next_step: str


class _Words(NamedTuple):
    code: str
    meaning: str
    next_step: str


_STATES: Final[Mapping[UpdateState, _Words]] = {
    _S.DOWNLOADING: _Words(
        "downloading",
        mark("It is ordered and being fetched; what is here already is kept."),
        mark("Nothing. If it does not move on, look at the uplink, or bring it on a stick."),
    ),
    _S.PROBATION: _Words(
        "probation",
        mark("It runs, and has to prove itself against what the version before did."),
        mark("Nothing. It is committed or taken back by itself."),
    ),
    _S.ROLLING_BACK: _Words(
        "rolled_back",
        mark("It failed its probation and is being taken back."),
        mark("Wait for the end; then publish a mended version under a higher release."),
    ),
    _S.ROLLED_BACK: _Words(
        "rolled_back",
        mark("It failed its probation; what ran before runs again."),
        mark("Publish a mended version under a higher release; this one is not taken again."),
    ),
    _S.FAILED: _Words(
        "failed",
        mark("It failed before it ran; what ran before runs."),
        mark("Mend what the reason names, or publish a mended version under a higher release."),
    ),
}
_HELD: Final = _Words(
    "held",
    mark("It is ordered, and must not be fetched now; what is here already is kept."),
    mark("Look at the reason; 'edge-agent update resume' lets go on what was canceled here."),
)
_UNDER_WAY: Final = _Words(
    "under_way",
    mark("It is here and verified, and is about to take its place."),
    mark("Nothing. It is tested first."),
)
_NO_ROOM: Final = _Words(
    "no_room",
    mark("There is not enough room for it; what runs goes on running."),
    mark("Free space in the data folder, or raise the profile's limit; it is tried again."),
)
_UNREACHABLE: Final = _Words(
    "unreachable",
    mark("The last look did not come to its end; what runs goes on running."),
    mark("Look at the uplink and at the address in [updates], or bring the update on a stick."),
)
_WAITING: Final = _Words(
    "waiting",
    mark("It is ordered, and its turn has not come: another update, or the time for it, comes first."),
    mark("Nothing. It is fetched as soon as it may be."),
)
_SERVER: Final = mark("the update server")


def findings(journal: Journal, installed: Installed, held: Mapping[str, str]) -> list[Finding]:
    """Everything that stands; empty where what is ordered runs, and nothing failed.

    ``held`` says, by digest, why something must not be fetched now.
    """
    return [*_of_looks(journal), *_of_entries(journal, held), *_of_orders(journal, installed)]


def _of_looks(journal: Journal) -> Iterator[Finding]:
    looked = journal.looked
    for refused in looked.refused:
        words = WORDS[refused.refusal]
        yield Finding(refused.refusal, refused.scope, words.meaning, refused.detail, words.next_step)
    if looked.problem:
        yield _found(_NO_ROOM if _is_full(looked.problem) else _UNREACHABLE, _(_SERVER), looked.problem)


def _of_entries(journal: Journal, held: Mapping[str, str]) -> Iterator[Finding]:
    for entry in journal.entries:
        if entry.state is _S.DOWNLOADING and (reason := held.get(entry.target.sha256)):
            yield _found(_HELD, entry.target.path, reason)
        elif entry.state not in {_S.COMMITTED, _S.IDLE}:
            yield _of_entry(entry)


def _of_entry(entry: Entry) -> Finding:
    subject = entry.target.path
    if entry.refusal is not None:
        words = WORDS[entry.refusal]
        return Finding(entry.refusal, subject, words.meaning, entry.detail, words.next_step)
    if entry.state is _S.FAILED and _is_full(entry.detail):
        return _found(_NO_ROOM, subject, entry.detail)
    return _found(_STATES.get(entry.state, _UNDER_WAY), subject, entry.detail)


def _of_orders(journal: Journal, installed: Installed) -> Iterator[Finding]:
    """What the director orders, does not run, and has no update of its own yet."""
    for each in journal.looked.ordered:
        entry = journal.entry(each.key)
        told = entry is not None and entry.target.sha256 == each.sha256
        if not told and not _runs(each, installed):
            yield _found(_WAITING, _named(each), _against(each, installed))


def _against(ordered: OrderedVersion, installed: Installed) -> str:
    runs = installed.slot(ordered.key).current
    return _("ordered is release {ordered}, release {runs} runs").format(
        ordered=ordered.release, runs=runs.description.release if runs else _("none")
    )


def _runs(ordered: OrderedVersion, installed: Installed) -> bool:
    current = installed.slot(ordered.key).current
    return current is not None and current.sha256 == ordered.sha256


def _named(each: OrderedVersion) -> str:
    return _("{kind} {name} {version} (release {release})").format(
        kind=each.kind, name=each.name, version=each.version, release=each.release
    )


def _found(words: _Words, subject: str, detail: str) -> Finding:
    return Finding(words.code, subject, _(words.meaning), detail, _(words.next_step))


def _is_full(problem: str) -> bool:
    """Whether the medium was full; the operating system's own words are part of the problem."""
    return os.strerror(errno.ENOSPC) in problem or os.strerror(errno.EDQUOT) in problem
