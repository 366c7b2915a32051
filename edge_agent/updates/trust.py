"""The one wrapping of python-tuf: what the two repositories say, verified, or why it is refused.

python-tuf's updater is right about signatures, versions and expiry as long as it starts from the
pinned root, knows the time, and still has what it saw before. Each of these is seen to here: the
root is always handed in, the time has a floor, and what was seen before is compared with the
:mod:`~edge_agent.updates.marks` afterwards.
"""

import contextlib
import datetime as dt
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from tuf.api import exceptions as tuf_errors
from tuf.api.metadata import Root, Snapshot, TargetFile, Targets, Timestamp
from tuf.ngclient.config import UpdaterConfig
from tuf.ngclient.fetcher import FetcherInterface
from tuf.ngclient.updater import Updater

from edge_agent.clock import BUILD_MS
from edge_agent.errors import UpdateBroken, UpdateError, UpdateRefused, UpdateUnreachable
from edge_agent.updates.marks import Marks, RepositoryMark
from edge_agent.updates.source import NotThere, Source
from edge_agent.updates.spoken import Ask
from fleet_protocol import delivery
from fleet_protocol.delivery import Delivery
from fleet_protocol.errors import TargetError
from fleet_protocol.targets import Refusal, Target, parse
from fleet_protocol.texts import _

IMAGE: Final = "image"
DIRECTOR: Final = "director"

MAX_ORDERS: Final = 128
"""Targets that a director may name for one device; a report has room for so many."""

_DEVICE: Final = "device"
"""The key under which the director's targets name their device, the empty set too."""

_REFUSALS: Final[tuple[tuple[type[Exception], Refusal], ...]] = (
    (tuf_errors.UnsignedMetadataError, Refusal.FORGED),
    (tuf_errors.BadVersionNumberError, Refusal.REPLAYED),
    (tuf_errors.ExpiredMetadataError, Refusal.EXPIRED),
    (tuf_errors.LengthOrHashMismatchError, Refusal.TAMPERED),
    (tuf_errors.RepositoryError, Refusal.MALFORMED),
)
"""python-tuf's errors, the more special first; what does not parse is a RepositoryError."""


class Word(NamedTuple):
    """What both repositories say, verified and in force.

    The director's orders, what the image repository says under the same paths, which single paths are
    refused already, and the terms on which each may be fetched.
    """

    orders: list[Target]
    published: dict[str, Target]
    refused: dict[str, UpdateRefused]
    terms: dict[str, Delivery]


class Repositories:
    """Both repositories for one look."""

    def __init__(self, ask: Ask, source: Source) -> None:
        self._ask: Final = ask
        self._source: Final = source
        self._folder: Final = Path(ask.folder)

    def word(self, before: Marks) -> tuple[Marks, Word]:
        """What the repositories say, and the marks to write down before any of it is used.

        Raises:
            UpdateRefused: a repository must not be believed.
            UpdateUnreachable: it does not answer.
            UpdateBroken: the device's own files are in the way.
        """
        ask = self._ask
        now_ms = max(ask.now_ms, before.verified_ms, BUILD_MS)
        director = self._opened(DIRECTOR, ask.director_root, f"{DIRECTOR}/{ask.device}", now_ms)
        image = self._opened(IMAGE, ask.image_root, IMAGE, now_ms)
        self._refresh(DIRECTOR, director)
        word = self._orders(director)
        self._refresh(IMAGE, image)
        after = before.with_versions({DIRECTOR: director.mark(), IMAGE: image.mark()}, now_ms)
        _ask_published(image, word)
        return after, word

    def _opened(self, name: str, root: str, place: str, now_ms: int) -> "Repository":
        try:
            pinned = Path(root).read_bytes()
        except OSError as error:
            raise UpdateBroken(
                _("{file} cannot be read ({reason}); enroll the device again").format(
                    file=root, reason=error.strerror
                )
            ) from None
        folder = self._folder / "metadata" / name
        with told_in_our_words(name):
            folder.mkdir(parents=True, exist_ok=True)
            return Repository(folder, f"{place}/metadata", self._source, pinned, now_ms)

    def _refresh(self, name: str, repository: "Repository") -> None:
        with told_in_our_words(name):
            repository.refresh()

    def _orders(self, director: "Repository") -> Word:
        """What the director orders; one order that cannot be read costs only itself."""
        self._require_own(director)
        word = Word([], {}, {}, {})
        for target in director.orders():
            try:
                order, terms = _parsed(target), _terms(target)
            except UpdateRefused as error:
                word.refused[target.path] = error
            else:
                word.orders.append(order)
                word.terms[order.path] = terms
        return word

    def _require_own(self, director: "Repository") -> None:
        """A set that is another device's is not even remembered: its versions would keep out our own."""
        if director.device != self._ask.device:
            shutil.rmtree(self._folder / "metadata" / DIRECTOR, ignore_errors=True)
            raise UpdateRefused(
                Refusal.WRONG_DEVICE,
                DIRECTOR,
                _("the whole set is meant for {device!r}").format(device=director.device),
            )


class Repository(Updater):
    """python-tuf's updater with a pinned root and a time that is handed in."""

    def __init__(self, folder: Path, base: str, source: Source, pinned: bytes, now_ms: int) -> None:
        config = UpdaterConfig(max_root_rotations=64, max_delegations=8)
        super().__init__(str(folder), base, fetcher=_Fetcher(source), config=config, bootstrap=pinned)
        # The only way to tell it the time; without it a clock at 1970 would believe what has expired.
        self._trusted_set.reference_time = dt.datetime.fromtimestamp(now_ms / 1000, dt.UTC)

    @property
    def device(self) -> str | None:
        """The device that the whole set is for, where it says so."""
        device = self._trusted_set.targets.unrecognized_fields.get(_DEVICE)
        return None if device is None else str(device)

    @property
    def is_consistent(self) -> bool:
        """Whether artifacts lie under their digest and their name."""
        return bool(self._trusted_set.root.consistent_snapshot)

    def orders(self) -> list[TargetFile]:
        """Every target of the top level."""
        targets = self._trusted_set.targets
        if targets.delegations is not None:
            raise UpdateRefused(Refusal.MALFORMED, DIRECTOR, _("a director delegates to nobody"))
        if len(targets.targets) > MAX_ORDERS:
            raise UpdateRefused(
                Refusal.MALFORMED, DIRECTOR, _("more than {limit} targets").format(limit=MAX_ORDERS)
            )
        return list(targets.targets.values())

    def mark(self) -> RepositoryMark:
        """The versions of every role, also of those that were not looked at."""
        trusted = self._trusted_set
        versions = {name.removesuffix(".json"): file.version for name, file in trusted.snapshot.meta.items()}
        versions |= {
            Root.type: trusted.root.version,
            Timestamp.type: trusted.timestamp.version,
            Snapshot.type: trusted.snapshot.version,
            Targets.type: trusted.targets.version,
        }
        online = [sorted(trusted.root.roles[role].keyids) for role in (Timestamp.type, Snapshot.type)]
        return RepositoryMark(versions, " ".join(",".join(keys) for keys in online))


class _Fetcher(FetcherInterface):
    """Hands python-tuf the pieces of a source."""

    def __init__(self, source: Source) -> None:
        self._source: Final = source

    def _fetch(self, url: str) -> Iterator[bytes]:
        try:
            yield from self._source.document(url)
        except NotThere as error:
            raise tuf_errors.DownloadHTTPError(str(error), error.status) from error
        except UpdateUnreachable as error:
            raise tuf_errors.DownloadError(str(error)) from error


def _ask_published(image: Repository, word: Word) -> None:
    """Look each order up in the image repository; one that cannot be told costs only itself."""
    for order in list(word.orders):
        try:
            with told_in_our_words(order.path):
                found = image.get_targetinfo(order.path)
            if found is not None:
                word.published[order.path] = _parsed(found)
        except UpdateRefused as error:
            word.orders.remove(order)
            word.refused[order.path] = error


def _parsed(target: TargetFile) -> Target:
    try:
        return parse(target.path, target.length, target.hashes, target.custom)
    except TargetError as error:
        raise UpdateRefused(Refusal.MALFORMED, target.path[:200], str(error)) from None


def _terms(target: TargetFile) -> Delivery:
    try:
        return delivery.parse(target.custom)
    except TargetError as error:
        raise UpdateRefused(Refusal.MALFORMED, target.path[:200], str(error)) from None


@contextlib.contextmanager
def told_in_our_words(scope: str) -> Iterator[None]:
    """Say in the agent's words what python-tuf raises."""
    try:
        yield
    except tuf_errors.DownloadLengthMismatchError as error:
        raise UpdateRefused(Refusal.ENDLESS, scope, str(error)) from error
    except tuf_errors.DownloadError as error:
        raise UpdateUnreachable(str(error)) from error
    except tuf_errors.RepositoryError as error:
        refusal = next(refusal for kind, refusal in _REFUSALS if isinstance(error, kind))
        raise UpdateRefused(refusal, scope, str(error.__cause__ or error)[:300]) from error
    except UpdateError:
        raise
    except OSError as error:
        raise UpdateBroken(
            _("the folder of updates cannot be used: {reason}").format(reason=error.strerror)
        ) from error
