"""The image repository on disk: what is published, and how something new comes to be.

Everything is written before the timestamp that names it, each file whole or not at all, and nothing
that was served is taken away, so that a device that reads slowly still finds what it was promised.
What is about to be published lies in a file of its own first: a server that dies half-way finishes
it at its next start.

::

    image/metadata/   1.root.json 1.targets.json 2.models.json 7.snapshot.json … timestamp.json
    director/roots/   1.root.json …
    pending.json      what was accepted and may not be complete
    lock              held by whoever writes: the API publishes, the device listener renews dates
"""

import fcntl
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from tuf.api.metadata import Metadata, Root, Snapshot, T, Targets, Timestamp

from fleet_protocol.targets import Target
from fleet_protocol.texts import _
from fleet_server.errors import NoCeremony, UpdatesError
from fleet_server.files import make_folder, write_durably
from fleet_server.updates.online import refusing
from fleet_signing import acceptance, image
from fleet_signing.ceremony import Bundle, OnlineKeys, decode_bundle, encode_bundle
from fleet_signing.errors import SigningError
from fleet_signing.metadata import ONLINE_LIFE, decode, encode, file_name

_PENDING: Final = "pending.json"
_TIMESTAMP: Final = file_name(Timestamp.type, 0)


class Repository:
    """The repository in ``folder``, whose snapshots and timestamps are signed with ``online``."""

    def __init__(self, folder: Path, online: OnlineKeys) -> None:
        self._folder = folder
        self._online = online
        self._metadata = folder / "image" / "metadata"
        self._director_roots = folder / "director" / "roots"

    @property
    def online(self) -> OnlineKeys:
        """The server's own keys."""
        return self._online

    def current(self) -> Bundle | None:
        """What is published; None before the first ceremony was imported."""
        if not (self._metadata / _TIMESTAMP).exists():
            return None
        snapshot = self._read(self._metadata, Snapshot, self._timestamp().signed.snapshot_meta.version)
        return Bundle(
            image_roots=tuple(self._roots(self._metadata)),
            director_roots=tuple(self._roots(self._director_roots)),
            roles={
                role: self._read(self._metadata, Targets, snapshot.signed.meta[f"{role}.json"].version, role)
                for role in image.OFFLINE_ROLES
            },
        )

    def require(self) -> Bundle:
        """What is published.

        Raises:
            NoCeremony: as :meth:`require_vouched`.
        """
        self.require_vouched()
        current = self.current()
        assert current is not None  # noqa: S101 - else nobody had vouched
        return current

    def require_vouched(self) -> None:
        """See to it that the newest roots are for this server's own keys.

        Raises:
            NoCeremony: no ceremony was imported yet, or the last one was for other keys.
        """
        if not (self._metadata / _TIMESTAMP).exists():
            raise NoCeremony(_("no ceremony has vouched for this server's signing keys yet"))
        *_older, image_root = self._roots(self._metadata)
        *_older, director_root = self._roots(self._director_roots)
        try:
            acceptance.require_online(image_root, director_root, self._online.public)
        except SigningError as error:
            raise NoCeremony(str(error)) from error

    def publish(
        self,
        incoming: Bundle,
        at: datetime,
        require_bytes: Callable[[Target], None],
        register: Callable[[Bundle], None],
    ) -> Bundle:
        """Publish ``incoming`` on top of what is there, if that may be; everything published then.

        ``register`` is called with it before it counts as done, and again should the server die before.

        Raises:
            Stale: a version does not grow.
            Refused: it is not as it has to be.
        """
        with self._locked():
            self._settle(at, register)
            with refusing():
                accepted = acceptance.accept(self.current(), incoming, self._online.public, at, require_bytes)
            write_durably(self._folder / _PENDING, encode_bundle(accepted))
            self._settle(at, register)
            return accepted

    def check(self, incoming: Bundle, at: datetime, require_bytes: Callable[[Target], None]) -> None:
        """See to it that ``incoming`` could be published; raises as :meth:`publish`."""
        with refusing():
            acceptance.accept(self.current(), incoming, self._online.public, at, require_bytes)

    def settle(self, at: datetime, register: Callable[[Bundle], None]) -> None:
        """Finish what a server that died has left half-way."""
        with self._locked():
            self._settle(at, register)

    def renew(self, at: datetime) -> None:
        """Sign snapshot and timestamp anew where half of their time is over; else do nothing.

        Raises:
            NoCeremony: as :meth:`require`.
        """
        if self._is_fresh(at):
            return
        with self._locked():
            if not self._is_fresh(at):
                self._release(self.require().roles, at)

    def metadata(self, name: str) -> bytes | None:
        """The image repository's file ``name``, which is a plain file name; None where there is none."""
        return _content(self._metadata / name)

    def director_root(self, name: str) -> bytes | None:
        """The director's root ``name`` (``1.root.json``), the same for every device."""
        return _content(self._director_roots / name)

    def _settle(self, at: datetime, register: Callable[[Bundle], None]) -> None:
        pending = self._folder / _PENDING
        content = _content(pending)
        if content is None:
            return
        with refusing():
            bundle = decode_bundle(content)
        self._write(bundle, at)
        register(bundle)
        pending.unlink()

    def _write(self, bundle: Bundle, at: datetime) -> None:
        for folder, roots in (
            (self._metadata, bundle.image_roots),
            (self._director_roots, bundle.director_roots),
        ):
            make_folder(folder)
            for root in roots:
                self._keep(folder / file_name(Root.type, root.signed.version), encode(root))
        self._release(bundle.roles, at)

    def _release(self, roles: Mapping[str, Metadata[Targets]], at: datetime) -> None:
        """Make ``roles`` the current ones: they first, then the snapshot, then the timestamp."""
        offline = {role: encode(metadata) for role, metadata in roles.items()}
        for role, content in offline.items():
            self._keep(self._metadata / file_name(role, roles[role].signed.version), content)
        is_first = not (self._metadata / _TIMESTAMP).exists()
        before = None if is_first else self._timestamp().signed
        previous = before.snapshot_meta.version if before else 0
        snapshot = image.snapshot(offline, previous, at, self._online.image)
        content, version = encode(snapshot), snapshot.signed.version
        write_durably(self._metadata / file_name(Snapshot.type, version), content)
        timestamp = image.timestamp(version, content, before.version if before else 0, at, self._online.image)
        write_durably(self._metadata / _TIMESTAMP, encode(timestamp))

    def _keep(self, path: Path, content: bytes) -> None:
        """Write what is not there in the same words already."""
        if _content(path) != content:
            write_durably(path, content)

    def _is_fresh(self, at: datetime) -> bool:
        try:
            return bool(self._timestamp().signed.expires - at > ONLINE_LIFE / 2)
        except FileNotFoundError:
            return True

    def _timestamp(self) -> Metadata[Timestamp]:
        return _decoded(self._metadata / _TIMESTAMP, Timestamp)

    def _roots(self, folder: Path) -> Iterator[Metadata[Root]]:
        version = 1
        while (folder / file_name(Root.type, version)).exists():
            yield self._read(folder, Root, version)
            version += 1

    def _read(self, folder: Path, kind: type[T], version: int, role: str = "") -> Metadata[T]:
        return _decoded(folder / file_name(role or kind.type, version), kind)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Write alone, among threads and among processes."""
        make_folder(self._folder)
        descriptor = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def newest_root(roots: tuple[Metadata[Root], ...]) -> str:
    """The text that a device pins: the last of ``roots``."""
    return encode(roots[-1]).decode()


def _decoded(path: Path, kind: type[T]) -> Metadata[T]:
    with refusing():
        return decode(path.read_bytes(), kind)


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UpdatesError(
            _("{path} cannot be read ({reason}); check its owner").format(path=path, reason=error.strerror)
        ) from error


def versions(bundle: Bundle) -> dict[str, int]:
    """The version of every role in ``bundle``."""
    roots: dict[str, Any] = {"image_root": bundle.image_roots, "director_root": bundle.director_roots}
    return {name: chain[-1].signed.version for name, chain in roots.items() if chain} | {
        role: metadata.signed.version for role, metadata in bundle.roles.items()
    }
