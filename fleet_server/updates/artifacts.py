"""The artifacts: their bytes by digest on disk, and the register of those that are published.

Bytes come first and are checked as if they were published here; they count for nothing until signed
metadata vouches for them.
"""

import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path
from typing import Final, Self

import msgspec
from sqlalchemy import Engine
from sqlmodel import Session, col, select, tuple_

from fleet_protocol.manifest import Manifest
from fleet_protocol.targets import ROLES, Description, Kind, Target, max_bytes, path_of
from fleet_protocol.texts import _
from fleet_server.access.roles import Actor
from fleet_server.audit import chain as audit
from fleet_server.audit.chain import Change
from fleet_server.clock import wall_ms
from fleet_server.database.engine import writing
from fleet_server.database.models import Artifact
from fleet_server.errors import NoArtifact, Refused, Stale, TooLarge
from fleet_server.files import make_folder
from fleet_server.updates.online import refusing
from fleet_signing import acceptance, artifacts, os_images
from fleet_signing.ceremony import Bundle
from fleet_signing.files import flush_folder


@dataclass(frozen=True, slots=True)
class ArtifactSummary:
    """A published artifact in a list."""

    sha256: str
    kind: str
    name: str
    version: str
    release: int
    size: int
    created_ms: int


class ArtifactStore:
    """The bytes of artifacts in ``folder``, by digest, and their rows in the database."""

    def __init__(self, folder: Path, engine: Engine, tenant: str) -> None:
        self._folder = folder
        self._engine = engine
        self._tenant = tenant

    def path(self, sha256: str) -> Path:
        """Where the bytes with this digest lie, if they do."""
        return self._folder / sha256

    def incoming(self, path: str) -> "Incoming":
        """The artifact at ``path``, to be written bit by bit.

        Raises:
            NoArtifact: no artifact has such a path.
        """
        kind = _kind_of(path)
        make_folder(self._folder)
        return Incoming(self._folder, max_bytes(kind))

    def take(self, incoming: "Incoming", path: str, actor: Actor) -> Target:
        """Keep what was written, as the artifact at ``path`` (``models/pressure_leak/2.tar``).

        Raises:
            Refused: it is no artifact, or another one than its path says.
            Stale: other content was published under this path.
        """
        kind = _kind_of(path)
        with refusing():
            target = self._checked(kind, path, incoming)
        if target.path != path:
            raise Refused(
                _("these are the bytes of {found}, not of {path}").format(found=target.path, path=path)
            )
        self._require_free(target)
        detail = {"sha256": target.sha256, "size": target.length}
        change = Change("artifact.upload", path, None, detail, detail)
        with audit.attempt(self._engine, self._tenant, actor, change):
            incoming.keep(self.path(target.sha256))
        return target

    def clean(self) -> None:
        """Remove what uploads that never ended have left; nobody uploads meanwhile."""
        for path in self._folder.glob(".incoming.*"):
            path.unlink(missing_ok=True)

    def require_bytes(self, target: Target) -> None:
        """See to it that the bytes of ``target`` are here, and are described as they are.

        Raises:
            Refused: they are not; upload them first.
            Stale: other content was published under its path.
        """
        try:
            with self.path(target.sha256).open("rb") as file, refusing():
                found = _found(target, file)
        except OSError:
            raise Refused(
                _("the bytes of {path} are not here; upload them before the metadata").format(
                    path=target.path
                )
            ) from None
        if found != target:
            raise Refused(_("{path} is signed as what it is not").format(path=target.path))
        self._require_free(target)

    def register(self, bundle: Bundle) -> None:
        """Put down everything that ``bundle`` vouches for and that is not registered yet."""
        now_ms = wall_ms()
        with writing(self._engine) as session:
            for target in acceptance.targets_of(bundle):
                if session.get(Artifact, (self._tenant, target.sha256)) is None:
                    session.add(_row(self._tenant, target, now_ms))

    def list(self, after: str, limit: int) -> list[ArtifactSummary]:
        """At most ``limit`` published artifacts by kind, name and release, from behind ``after`` on."""
        place = (col(Artifact.kind), col(Artifact.name), col(Artifact.release))
        query = select(Artifact).where(Artifact.tenant == self._tenant).order_by(*place).limit(limit)
        if after:
            query = query.where(tuple_(*place) > tuple_(*_place_of(after)))
        with Session(self._engine) as session:
            return [_summary(row) for row in session.exec(query)]

    def _checked(self, kind: Kind, path: str, incoming: "Incoming") -> Target:
        """A policy is compiled for the newest release of its model, where there is one."""
        if kind is Kind.OS:
            return os_images.uploaded(path, incoming.file)
        content = incoming.content()
        if kind is not Kind.POLICY:
            return artifacts.of_bytes(kind, content).target
        model = self._newest_model(artifacts.read_policy(content).model)
        return artifacts.of_policy(content, model).target

    def _newest_model(self, name: str) -> Manifest | None:
        query = (
            select(Artifact.sha256)
            .where(Artifact.tenant == self._tenant, Artifact.kind == Kind.MODEL, Artifact.name == name)
            .order_by(col(Artifact.release).desc())
        )
        with Session(self._engine) as session:
            sha256 = session.exec(query).first()
        return artifacts.read_model(self.path(sha256).read_bytes()) if sha256 else None

    def _require_free(self, target: Target) -> None:
        with Session(self._engine) as session:
            taken = find(session, self._tenant, *target.key, target.description.release)
        if taken is not None and taken.sha256 != target.sha256:
            raise Stale(
                _("{path} was published with other content; raise its release").format(path=target.path)
            )


class Incoming:
    """An artifact on its way: a file that is gone again unless it is kept."""

    def __init__(self, folder: Path, most: int) -> None:
        self._most = most
        self._path = folder / f".incoming.{secrets.token_hex(8)}"
        self.file: Final = os.fdopen(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "w+b")
        self._size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.file.close()
        self._path.unlink(missing_ok=True)

    def write(self, part: bytes) -> None:
        """Add ``part``.

        Raises:
            TooLarge: there is more than an artifact may have.
        """
        self._size += len(part)
        if self._size > self._most:
            raise TooLarge(_("this artifact has at most {limit} bytes").format(limit=self._most))
        self.file.write(part)

    def content(self) -> bytes:
        """Everything that was written."""
        self.file.seek(0)
        return self.file.read()

    def keep(self, path: Path) -> None:
        """Make it lie at ``path``, whatever happens."""
        self.file.flush()
        os.fsync(self.file.fileno())
        self._path.replace(path)
        flush_folder(path.parent)


def _found(target: Target, file: BufferedIOBase) -> Target:
    """What the bytes in ``file`` are, as far as they say; an image says nothing, and is what was signed."""
    if target.description.kind is Kind.OS:
        return os_images.measured(target.description, file)
    return artifacts.of_bytes(target.description.kind, file.read()).target


def find(session: Session, tenant: str, kind: str, name: str, release: int) -> Artifact | None:
    """The published artifact of this kind, name and release."""
    return session.exec(
        select(Artifact).where(
            Artifact.tenant == tenant,
            Artifact.kind == kind,
            Artifact.name == name,
            Artifact.release == release,
        )
    ).first()


def target_of(row: Artifact) -> Target:
    """What was signed of ``row``."""
    description = msgspec.json.decode(row.manifest, type=Description)
    return Target(path_of(description), row.size, row.sha256, description)


def _row(tenant: str, target: Target, now_ms: int) -> Artifact:
    described = target.description
    return Artifact(
        tenant=tenant,
        sha256=target.sha256,
        kind=described.kind.value,
        name=described.name,
        version=described.version,
        release=described.release,
        size=target.length,
        manifest=msgspec.json.encode(described).decode(),
        created_ms=now_ms,
    )


def _summary(row: Artifact) -> ArtifactSummary:
    return ArtifactSummary(row.sha256, row.kind, row.name, row.version, row.release, row.size, row.created_ms)


def _kind_of(path: str) -> Kind:
    kind = ROLES.get(path.split("/", 1)[0])
    if kind is None:
        raise NoArtifact(
            _("{path!r} is no artifact's path; it begins with one of: {roles}").format(
                path=path[:120], roles=", ".join(f"{role}/" for role in ROLES)
            )
        )
    return kind


def _place_of(after: str) -> Sequence[str | int]:
    kind, name, release = after.split("/")
    return kind, name, int(release)
