"""Desired against reported: what a device shall have, what it has, and why they differ. Pure.

The device's signed word counts before what the broker says of it, unless the broker has heard of it later;
who said it stands beside it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from fleet_protocol.messages import UpdateReport
from fleet_protocol.targets import WORDS, Mode, Refusal
from fleet_protocol.texts import _, mark
from fleet_protocol.update_states import UpdateState
from fleet_protocol.versions import InstalledVersion, VersionReport

MQTT: Final = "mqtt"
"""Who says it where it is not the device's signed word."""


class Why(StrEnum):
    """Why a device has, or has not, what it shall have."""

    SAME = "same"
    UNWISHED = "unwished"
    UNHEARD = "unheard"
    SILENT = "silent"
    AWAITED = "awaited"
    REFUSED = "refused"
    FAILED = "failed"
    ROLLED_BACK = "rolled_back"
    DOWNLOADING = "downloading"
    UNDER_WAY = "under_way"
    PROBATION = "probation"
    UNREACHABLE = "unreachable"


_WORDS: Final[Mapping[Why, str]] = {
    Why.SAME: mark("It has what it shall have."),
    Why.UNWISHED: mark("Nothing of this name is ordered; what runs may stay."),
    Why.UNHEARD: mark("The device has not said anything of its versions yet."),
    Why.SILENT: mark("The device is not heard from; bring the update on a stick, and its receipt back."),
    Why.AWAITED: mark("The device has not looked at the order yet, or waits for another update."),
    Why.REFUSED: mark("The device refuses it."),
    Why.FAILED: mark("It failed on the device before it ran; what ran before runs."),
    Why.ROLLED_BACK: mark("It failed its probation on the device; what ran before runs again."),
    Why.DOWNLOADING: mark("The device is fetching it."),
    Why.UNDER_WAY: mark("The device has it and is about to switch."),
    Why.PROBATION: mark("It runs on probation."),
    Why.UNREACHABLE: mark("The device does not reach the update server, or its own files are in the way."),
}

_BY_STATE: Final[Mapping[str, Why]] = {
    UpdateState.DOWNLOADING: Why.DOWNLOADING,
    UpdateState.VERIFIED: Why.UNDER_WAY,
    UpdateState.STAGED: Why.UNDER_WAY,
    UpdateState.TESTING: Why.UNDER_WAY,
    UpdateState.ACTIVATING: Why.UNDER_WAY,
    UpdateState.PROBATION: Why.PROBATION,
    UpdateState.ROLLING_BACK: Why.ROLLED_BACK,
    UpdateState.ROLLED_BACK: Why.ROLLED_BACK,
    UpdateState.FAILED: Why.FAILED,
}

_RESTING: Final = frozenset({UpdateState.COMMITTED, UpdateState.ROLLED_BACK, UpdateState.FAILED})

Key = tuple[str, str, str]
"""Of an artifact: its kind, its name, and how it is run."""


@dataclass(frozen=True, slots=True)
class Wished:
    """What a device shall have of one name."""

    kind: str
    name: str
    version: str
    release: int
    sha256: str
    mode: str = Mode.ACT


@dataclass(frozen=True, slots=True)
class Word:
    """A device's signed word, which ``way`` it came, and when, in ms since 1970 by the server's clock."""

    report: VersionReport
    way: str
    attested_ms: int


@dataclass(frozen=True, slots=True)
class Told:
    """What the broker says that the device reports; ``wall_ms`` and ``boot_id`` are the device's own.

    ``heard_ms`` is when it was last heard, by the server's clock, and ``is_there`` whether it still is.
    """

    updates: Sequence[UpdateReport] = ()
    heard_ms: int = 0
    is_there: bool = True
    wall_ms: int = 0
    boot_id: str = ""


@dataclass(frozen=True, slots=True)
class Difference:
    """One artifact of a device; a release of 0 and an empty version are none.

    ``reported_by`` is ``online`` or ``courier`` for the device's signed word, ``mqtt`` for what the broker
    says, empty for nobody. ``attested_ms`` is when the signed word was given, None where there is none.
    ``why`` is stable, ``text`` says it in words; ``refusal`` is the class of attack or accident.
    """

    kind: str
    name: str
    desired_version: str
    desired_release: int
    reported_version: str
    reported_release: int
    reported_by: str
    attested_ms: int | None
    why: str
    text: str
    refusal: str = ""
    detail: str = ""
    mode: str = Mode.ACT


def differences(wishes: Iterable[Wished], word: Word | None, told: Told | None) -> list[Difference]:
    """Every artifact that is wished for or reported, by kind, name and mode."""
    wished = {_key(each): each for each in wishes}
    parts = [_of(key, wished.get(key), word, told) for key in sorted({*wished, *_keys(word), *_keys(told)})]
    return [_difference(part, word, told) for part in parts]


def contradictions(word: Word, told: Told) -> list[str]:
    """Where what the broker says of a device cannot be true beside the device's signed word.

    Both date by the device's clock of one boot. The broker says that an artifact has been at rest since
    before the word was given, until after it, and names another release: one of the two lies.
    """
    report = word.report
    if told.boot_id != report.boot_id or told.wall_ms < report.wall_ms:
        return []
    installed = {_key(each): each.release for each in report.installed}
    return [
        _("{kind} {name}: the broker says that release {told} runs, the device has signed {said}").format(
            kind=each.kind, name=each.name, told=each.installed, said=installed.get(_key(each), 0)
        )
        for each in told.updates
        if each.state in _RESTING
        and each.since_wall_ms < report.wall_ms
        and each.installed != installed.get(_key(each), 0)
    ]


@dataclass(frozen=True, slots=True)
class _Part:
    """What is known of one artifact: the wish, what the word says is installed, and the latest update."""

    key: Key
    wished: Wished | None
    installed: InstalledVersion | None
    update: UpdateReport | None
    is_mqtt: bool

    @property
    def release(self) -> int:
        """What runs."""
        if self.is_mqtt and self.update is not None:
            return self.update.installed
        return self.installed.release if self.installed else 0

    @property
    def version(self) -> str:
        """Its version, as far as somebody said it."""
        if self.installed is not None and self.installed.release == self.release:
            return self.installed.version
        update = self.update
        return update.version if update and self.release and update.release == self.release else ""

    @property
    def tried(self) -> UpdateReport | None:
        """The update to what is wished."""
        update, wished = self.update, self.wished
        return update if update and wished and update.release == wished.release else None

    @property
    def is_as_wished(self) -> bool:
        """Whether what runs is what is wished, by its digest where the word has one."""
        installed, wished = self.installed, self.wished
        if wished is None or self.release != wished.release:
            return False
        return installed is None or installed.release != self.release or installed.sha256 == wished.sha256


def _of(key: Key, wished: Wished | None, word: Word | None, told: Told | None) -> _Part:
    said = next((each for each in word.report.updates if _key(each) == key), None) if word else None
    heard = next((each for each in told.updates if _key(each) == key), None) if told else None
    installed = next((each for each in word.report.installed if _key(each) == key), None) if word else None
    is_later = told is not None and (word is None or told.heard_ms > word.attested_ms)
    # Both say the same most of the time; then it is the signed one that counts.
    runs = installed.release if installed else 0
    is_mqtt = heard is not None and (word is None or (is_later and heard.installed != runs))
    return _Part(key, wished, installed, heard if heard and (is_later or said is None) else said, is_mqtt)


def _difference(part: _Part, word: Word | None, told: Told | None) -> Difference:
    wished = part.wished
    why, refusal, detail = _why(part, word, told)
    by = MQTT if part.is_mqtt else word.way if word else ""
    return Difference(
        kind=part.key[0],
        name=part.key[1],
        desired_version=wished.version if wished else "",
        desired_release=wished.release if wished else 0,
        reported_version=part.version,
        reported_release=part.release,
        reported_by=by,
        attested_ms=word.attested_ms if word else None,
        why=why.value,
        text=" ".join(filter(None, (_(_WORDS[why]), _meaning(refusal)))),
        refusal=refusal,
        detail=detail,
        mode=part.key[2],
    )


def _why(part: _Part, word: Word | None, told: Told | None) -> tuple[Why, str, str]:
    """Why, the class of a refusal, and what else is known of it."""
    if part.wished is None:
        return Why.UNWISHED, "", ""
    tried, known = part.tried, _BY_STATE.get(part.tried.state) if part.tried else None
    if tried is not None and known is not None and not (part.is_as_wished and known is Why.FAILED):
        is_refused = known is Why.FAILED and bool(tried.refusal)
        return Why.REFUSED if is_refused else known, tried.refusal, tried.detail
    if part.is_as_wished:
        return Why.SAME, "", ""
    return _hindrance(word, told)


def _hindrance(word: Word | None, told: Told | None) -> tuple[Why, str, str]:
    """What keeps an order from a device that has not begun with it."""
    if word is None and told is None:
        return Why.UNHEARD, "", ""
    if told is not None and not told.is_there and (word is None or told.heard_ms >= word.attested_ms):
        return Why.SILENT, "", ""
    if word is not None and word.report.refused:
        first = word.report.refused[0]
        return Why.REFUSED, first.refusal.value, f"{first.scope}: {first.detail}"
    if word is not None and word.report.problem:
        return Why.UNREACHABLE, "", word.report.problem
    return Why.AWAITED, "", ""


def _meaning(refusal: str) -> str:
    return WORDS[Refusal(refusal)].meaning if refusal in set(Refusal) else ""


def _keys(said: Word | Told | None) -> set[Key]:
    if said is None:
        return set()
    if isinstance(said, Told):
        return {_key(each) for each in said.updates}
    return {_key(each) for each in said.report.installed} | {_key(each) for each in said.report.updates}


def _key(each: Wished | InstalledVersion | UpdateReport) -> Key:
    return str(each.kind), each.name, str(each.mode)
