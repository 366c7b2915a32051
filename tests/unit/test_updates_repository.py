"""The image repository on disk: whole at every moment, finished after every death, renewed in time."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from tuf.api.exceptions import DownloadHTTPError
from tuf.api.metadata import Timestamp
from tuf.ngclient import FetcherInterface, Updater

from fleet_protocol.targets import Target
from fleet_server.errors import NoCeremony, Stale
from fleet_server.updates import repository as module
from fleet_server.updates.online import provide_online_keys, read_online_keys
from fleet_server.updates.repository import Repository, versions
from fleet_signing import acceptance, ceremony, image
from fleet_signing.ceremony import Bundle
from fleet_signing.metadata import ONLINE_LIFE, decode, encode, now
from tests.support.repositories import policy


class DiskFetcher(FetcherInterface):
    """What python-tuf fetches with, from a repository on disk, without the listener between them."""

    def __init__(self, repository: Repository) -> None:
        self.repository = repository

    def _fetch(self, url: str) -> Iterator[bytes]:
        content = self.repository.metadata(url.rsplit("/", 1)[1])
        if content is None:
            raise DownloadHTTPError(url, 404)
        return iter([content])


class SlowFetcher(DiskFetcher):
    """As a device fetches that is slow: ``meanwhile`` happens after each file that ends so."""

    def __init__(self, repository: Repository, after: str, meanwhile: Callable[[], object]) -> None:
        super().__init__(repository)
        self.after = after
        self.meanwhile = meanwhile

    def _fetch(self, url: str) -> Iterator[bytes]:
        yield from super()._fetch(url)
        if url.endswith(self.after):
            self.meanwhile()


class Desk:
    """A repository in ``folder`` after its first ceremony, and the offline keys."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        provide_online_keys(folder / "keys")
        self.online = read_online_keys(folder / "keys")
        self.offline = ceremony.OfflineKeys.generate()
        self.first = ceremony.hold(self.offline, self.online.public, now())
        self.registered: list[list[Target]] = []

    def open(self) -> Repository:
        """As a process does that starts."""
        return Repository(self.folder, self.online)

    def register(self, bundle: Bundle) -> None:
        self.registered.append(acceptance.targets_of(bundle))

    def publish(self, incoming: Bundle, at: datetime | None = None) -> Bundle:
        return self.open().publish(incoming, at or now(), lambda _target: None, self.register)

    def settle(self) -> None:
        self.open().settle(now(), self.register)

    def vouching(self, release: int) -> Bundle:
        """What publishes that release of a policy, on top of what is there."""
        role = self.open().require().roles["policies"]
        signers = self.offline.roles["policies"]
        return Bundle((), (), {"policies": image.add(role, policy(release).target, signers, now())})

    def seen(self, folder: Path, fetcher: FetcherInterface | None = None) -> list[int]:
        """The releases that a device finds; python-tuf raises where anything does not fit together."""
        folder.mkdir(parents=True, exist_ok=True)
        updater = Updater(
            str(folder),
            "disk:///image/metadata/",
            str(folder),
            "disk:///image/targets/",
            fetcher=fetcher or DiskFetcher(self.open()),
            bootstrap=encode(self.first.image_roots[0]),
        )
        updater.refresh()
        return [n for n in (1, 2, 3) if updater.get_targetinfo(policy(n).target.path) is not None]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    desk = Desk(tmp_path / "updates")
    desk.publish(desk.first)
    return desk


def die_at(desk: Desk, incoming: Bundle, write: int) -> None:
    """Publish, and be gone without a word just before the file number ``write`` is written."""
    left = iter(range(write - 1))
    real = module.write_durably

    def write_or_die(path: Path, content: bytes, mode: int = 0o600) -> None:
        if next(left, None) is None:
            os._exit(9)
        real(path, content, mode)

    module.write_durably = write_or_die
    desk.publish(incoming)
    os._exit(0)


@pytest.mark.parametrize("write", range(1, 13))
@pytest.mark.parametrize("kind", ["publication", "ceremony"])
def test_a_death_at_any_file_leaves_the_old_or_the_new_and_the_next_start_finishes(
    desk: Desk, tmp_path: Path, kind: str, write: int
) -> None:
    desk.publish(desk.vouching(1))
    again = ceremony.hold(desk.offline, desk.online.public, now(), desk.open().current())
    incoming = desk.vouching(2) if kind == "publication" else again
    assert desk.seen(tmp_path / "device") == [1]
    process = multiprocessing.get_context("fork").Process(target=die_at, args=(desk, incoming, write))
    process.start()
    process.join()
    new = [1, 2] if kind == "publication" else [1]
    assert desk.seen(tmp_path / "device") in ([1], new)
    desk.settle()
    is_lost = write == 1
    assert desk.seen(tmp_path / "device") == ([1] if is_lost else new)
    assert not (desk.folder / "pending.json").exists()
    assert desk.publish(incoming).roles.keys() == again.roles.keys() | {"models", "policies"}
    assert desk.seen(tmp_path / "device") == new


def test_registering_that_fails_is_done_again(desk: Desk, tmp_path: Path) -> None:
    def fail(_bundle: Bundle) -> None:
        raise ConnectionError

    incoming = desk.vouching(1)
    with pytest.raises(ConnectionError):
        desk.open().publish(incoming, now(), lambda _target: None, fail)
    desk.registered.clear()
    desk.settle()
    assert desk.registered == [[policy(1).target]]
    desk.settle()
    assert len(desk.registered) == 1
    assert desk.seen(tmp_path / "device") == [1]


def test_a_device_that_reads_slowly_finds_the_older_snapshot(desk: Desk) -> None:
    repository = desk.open()
    timestamp = decode(repository.metadata("timestamp.json") or b"", Timestamp)
    name = f"{timestamp.signed.snapshot_meta.version}.snapshot.json"
    before = repository.metadata(name)
    for release in (1, 2):
        desk.publish(desk.vouching(release))
    assert repository.metadata(name) == before


@pytest.mark.parametrize("after", ["timestamp.json", "snapshot.json", ".targets.json"])
def test_a_device_that_is_overtaken_while_it_reads_ends_with_what_it_began_with(
    desk: Desk, tmp_path: Path, after: str
) -> None:
    """Two publications and a ceremony come between two of its files."""
    desk.publish(desk.vouching(1))

    def meanwhile() -> None:
        for release in (2, 3):
            desk.publish(desk.vouching(release))
        desk.publish(ceremony.hold(desk.offline, desk.online.public, now(), desk.open().current()))

    assert desk.seen(tmp_path / "device", SlowFetcher(desk.open(), after, meanwhile)) == [1]
    assert desk.seen(tmp_path / "device") == [1, 2, 3]


def test_dates_are_renewed_when_half_of_them_is_over(desk: Desk, tmp_path: Path) -> None:
    repository = desk.open()
    first = repository.metadata("timestamp.json")
    repository.renew(now())
    repository.renew(now() + ONLINE_LIFE / 2 - timedelta(minutes=1))
    assert repository.metadata("timestamp.json") == first
    repository.renew(now() + ONLINE_LIFE / 2 + timedelta(minutes=1))
    assert repository.metadata("timestamp.json") != first
    assert desk.seen(tmp_path / "device") == []


def test_before_a_ceremony_there_is_nothing_to_renew_or_to_give(tmp_path: Path) -> None:
    repository = Desk(tmp_path / "updates").open()
    repository.renew(now())
    assert repository.current() is None
    with pytest.raises(NoCeremony):
        repository.require()


def test_keys_that_were_lost_sign_nothing_until_the_next_ceremony(desk: Desk, tmp_path: Path) -> None:
    for path in (desk.folder / "keys").iterdir():
        path.unlink()
    provide_online_keys(desk.folder / "keys")
    desk.online = read_online_keys(desk.folder / "keys")
    late = now() + ONLINE_LIFE / 2 + timedelta(minutes=1)
    with pytest.raises(NoCeremony, match="for other keys than this server's"):
        desk.open().renew(late)
    again = ceremony.hold(desk.offline, desk.online.public, now(), desk.open().current())
    published = desk.publish(again)
    assert versions(published)["image_root"] == 2
    assert desk.seen(tmp_path / "device") == []


def test_two_who_publish_at_once_are_told_apart(desk: Desk) -> None:
    """Both built on the same version: one is taken, the other has to build on it."""
    offers = [desk.vouching(release) for release in (1, 2)]
    told: list[str] = []
    gate = threading.Barrier(2)

    def offer(bundle: Bundle) -> None:
        gate.wait()
        try:
            desk.publish(bundle)
            told.append("published")
        except Stale:
            told.append("stale")

    threads = [threading.Thread(target=offer, args=(bundle,)) for bundle in offers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(told) == ["published", "stale"]


def test_a_clock_that_went_back_does_not_take_versions_back(desk: Desk) -> None:
    def version() -> int:
        content = desk.open().metadata("timestamp.json") or b""
        return decode(content, Timestamp).signed.version

    before = version()
    desk.publish(desk.vouching(1), now() - timedelta(days=20))
    assert version() == before + 1
