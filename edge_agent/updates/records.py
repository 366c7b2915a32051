"""What the agent writes down of its updates: what is installed, the journal of what it does, and its history.

All are small documents, replaced whole. ``installed.json`` is the switch: it says what runs after a
restart. The journal says what was about to be done. The history says what was done; nothing is decided by it.

The agent itself is updated, and may come back to the version before: each reads what the other wrote.
A later version may add fields, which an earlier one passes over, and values that it does not know, of
which it loses the one entry. It never takes a field away, or gives it another meaning.
"""

import logging
import secrets
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import msgspec

from edge_agent import durable
from edge_agent.errors import UpdateBroken
from edge_agent.pipeline.vitals import Vitals
from edge_agent.updates.passing_over import without_unknown
from edge_agent.updates.planner import Key
from fleet_protocol.manifest import Digest
from fleet_protocol.messages import Count, Hex16, Line, WallMs
from fleet_protocol.targets import Kind, Refusal, Target
from fleet_protocol.texts import _
from fleet_protocol.update_states import FINAL, UpdateState
from fleet_protocol.versions import Happened, OrderedVersion

_LOG: Final = logging.getLogger(__name__)

INSTALLED: Final = "installed.json"
JOURNAL: Final = "journal.json"
HISTORY: Final = "history.json"
WANTED: Final = "receipt.json"
MAX_BYTES: Final = 1 << 22

_MAX_FAILED: Final = 1024
"""Names of artifacts of which a failure is remembered; more than anybody publishes for one device."""

Format1 = Annotated[int, msgspec.Meta(ge=1, le=1)]


class Slot(msgspec.Struct, frozen=True):
    """One artifact name: what runs, and what ran before; none is what the configuration names."""

    kind: Kind
    name: str
    current: Target | None
    previous: Target | None = None

    @property
    def in_shadow(self) -> bool:
        """Whether what is here runs beside what acts."""
        return self.current is not None and self.current.in_shadow


class Failed(msgspec.Struct, frozen=True):
    """An artifact that failed on this device."""

    kind: Kind
    name: str
    sha256: Digest
    release: Count


class Installed(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is installed, the latest switched last, and what failed here."""

    format: Format1 = 1
    slots: tuple[Slot, ...] = ()
    failed: tuple[Failed, ...] = ()

    def slot(self, key: Key) -> Slot:
        """What is installed of one artifact; an empty slot where nothing is."""
        return next((slot for slot in self.slots if (slot.kind, slot.name) == key), Slot(*key, None))

    def switched(self, target: Target) -> "Installed":
        """After ``target`` took the place of what ran; unchanged if it runs already.

        What ran in shadow before is not kept: nothing depends on it, so nobody goes back to it.
        """
        before = self.slot(target.key).current
        if before == target:
            return self
        return self._with(Slot(*target.key, target, None if target.in_shadow else before))

    def taken_back(self, target: Target) -> "Installed":
        """After what ran before ``target`` came back; unchanged if ``target`` does not run."""
        slot = self.slot(target.key)
        if slot.current != target:
            return self
        return self._with(Slot(*target.key, slot.previous))

    def without_shadows(self, wanted: AbstractSet[tuple[Kind, str, str]]) -> "Installed":
        """Without what runs in shadow and is not ``wanted``."""
        kept = tuple(
            slot
            for slot in self.slots
            if not (slot.current and slot.in_shadow) or (*slot.current.key, slot.current.sha256) in wanted
        )
        return self if kept == self.slots else msgspec.structs.replace(self, slots=kept)

    def with_failed(self, target: Target) -> "Installed":
        """With ``target`` remembered as failed here; lower releases of its name are refused anyway.

        What failed in shadow must not act either: it is the same bytes on the same board.
        """
        described = target.description
        failed = Failed(described.kind, described.name, target.sha256, described.release)
        others = [
            each
            for each in self.failed
            if (each.kind, each.name) != (described.kind, described.name)
            or (each.release >= failed.release and each.sha256 != failed.sha256)
        ]
        return msgspec.structs.replace(self, failed=(*others, failed)[-_MAX_FAILED:])

    def _with(self, slot: Slot) -> "Installed":
        others = [each for each in self.slots if (each.kind, each.name) != (slot.kind, slot.name)]
        kept = [slot] if slot.current else []
        return msgspec.structs.replace(self, slots=(*others, *kept))


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """The last update of one artifact.

    ``attempts`` counts how often the act of ``state`` was begun. ``spent_s`` is how long the
    probation has lasted, ``before`` what the version before did, ``vitals`` what this one has done.
    ``withdrawn``: it failed and is not ordered any more; only the reason is kept.
    """

    target: Target
    state: UpdateState
    since_wall_ms: WallMs
    attempts: Count = 0
    refusal: Refusal | None = None
    detail: Line = ""
    spent_s: float = 0.0
    before: Vitals = Vitals()
    vitals: Vitals = Vitals()
    withdrawn: bool = False

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to do."""
        return self.state in FINAL or self.state is UpdateState.IDLE


class Refusing(msgspec.Struct, frozen=True):
    """A whole repository, or an order that cannot be read, is refused."""

    scope: str
    refusal: Refusal
    detail: str


class Looked(msgspec.Struct, frozen=True, kw_only=True):
    """What the last look brought, as far as it is no artifact's own; ``ordered`` by the last whole one."""

    wall_ms: WallMs = 0
    refused: tuple[Refusing, ...] = ()
    problem: str = ""
    ordered: tuple[OrderedVersion, ...] = ()


class Journal(msgspec.Struct, frozen=True, kw_only=True):
    """The last update of every artifact, and the last look."""

    format: Format1 = 1
    entries: tuple[Entry, ...] = ()
    looked: Looked = Looked()

    def entry(self, key: Key) -> Entry | None:
        """The last update of one artifact."""
        return next((entry for entry in self.entries if entry.target.key == key), None)

    def with_entry(self, entry: Entry) -> "Journal":
        """With ``entry`` in place of the one of the same artifact."""
        entries = tuple(entry if each.target.key == entry.target.key else each for each in self.entries)
        if self.entry(entry.target.key) is None:
            entries += (entry,)
        return msgspec.structs.replace(self, entries=entries)

    def without(self, key: Key) -> "Journal":
        """With nothing of one artifact."""
        return msgspec.structs.replace(
            self, entries=tuple(each for each in self.entries if each.target.key != key)
        )


class History(msgspec.Struct, frozen=True, kw_only=True):
    """The last entries of what happened, oldest first; ``happened`` counts all that there ever were.

    ``id`` is its own: after it was set aside, another one begins.
    """

    format: Format1 = 1
    id: Hex16 = msgspec.field(default_factory=lambda: secrets.token_hex(8))
    happened: Count = 0
    entries: tuple[Happened, ...] = ()


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """The receipt that the last bundle asked for; an empty ``nonce`` where none ever did."""

    format: Format1 = 1
    nonce: Annotated[str, msgspec.Meta(pattern=r"^([A-Za-z0-9_-]{16,128})?\Z")] = ""
    taken_wall_ms: WallMs = 0


Document = TypeVar("Document", Installed, Journal, History, Wanted)


def load(folder: Path, kind: type[Document]) -> Document:
    """The document in ``folder``, a new one where there is none.

    One that cannot be read is set aside and a new one begun: the device then runs what its
    configuration names, and asks the director anew. The marks still keep it from going back.
    """
    file = folder / _NAMES[kind]
    try:
        with file.open("rb") as content:
            return _decoded(content.read(MAX_BYTES), kind)
    except FileNotFoundError:
        return kind()
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        _LOG.error(_("{file} cannot be read and is set aside: {reason}").format(file=file, reason=error))
    try:
        durable.rename(file, file.with_name(file.name + ".unreadable"))
    except OSError as error:
        raise UpdateBroken(
            _("{file} cannot be set aside: {reason}").format(file=file, reason=error.strerror)
        ) from error
    return kind()


def _decoded(content: bytes, kind: type[Document]) -> Document:
    """The document in ``content``; of its lists and of the last look, what this version understands."""
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.ValidationError:
        known = without_unknown(msgspec.json.decode(content, type=dict[str, Any]), kind)
    for field in msgspec.structs.fields(kind):
        if field.name in known and field.name in _LISTS:
            (element, _any_number) = field.type.__args__
            known[field.name] = _understood(known[field.name], element)
        elif field.name in known and field.type is Looked:
            # The next look brings it anew.
            known[field.name] = next(iter(_understood([known[field.name]], Looked)), Looked())
    return msgspec.convert(known, kind)


def _understood(parts: list[Any], kind: Any) -> list[Any]:
    """Those of ``parts`` that are of this ``kind``."""
    found = []
    for each in msgspec.convert(parts, list[Any]):
        try:
            found.append(msgspec.convert(each, kind))
        except msgspec.ValidationError as error:
            _LOG.warning(_("what another version has written is passed over: {reason}").format(reason=error))
    return found


def save(folder: Path, document: Document) -> None:
    """Write the document; when this returns it outlives a power cut.

    Raises:
        UpdateBroken: it cannot be written; what was there before still is.
    """
    file = folder / _NAMES[type(document)]
    try:
        durable.make_folder(folder)
        durable.write(file, msgspec.json.format(msgspec.json.encode(document), indent=1))
    except OSError as error:
        raise UpdateBroken(
            _("{file} cannot be written: {reason}").format(file=file, reason=error.strerror)
        ) from error


_LISTS: Final = frozenset({"slots", "failed", "entries"})

_NAMES: Final[dict[type[Any], str]] = {
    Installed: INSTALLED,
    Journal: JOURNAL,
    History: HISTORY,
    Wanted: WANTED,
}
