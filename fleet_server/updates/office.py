"""Everything that signed updates take on a server, put together for one process."""

import hashlib
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Engine

from fleet_server.access.roles import Actor
from fleet_server.audit.chain import Change, append, attempt
from fleet_server.config import ServerConfig
from fleet_server.database.engine import writing
from fleet_server.updates.artifacts import ArtifactStore
from fleet_server.updates.director import Director
from fleet_server.updates.online import provide_online_keys, read_online_keys
from fleet_server.updates.repository import Repository, versions
from fleet_signing.ceremony import Bundle, encode_bundle
from fleet_signing.metadata import now

PREFIX: Final = "/v1/updates"
"""What the paths of the device listener begin with."""

_KEYS: Final = "keys"
_ARTIFACTS: Final = "artifacts"


@dataclass(frozen=True, slots=True)
class Office:
    """The repository, the artifacts and the director of one server; ``url`` is where devices find them."""

    engine: Engine
    tenant: str
    url: str
    repository: Repository
    artifacts: ArtifactStore
    director: Director

    def publish(self, incoming: Bundle, actor: Actor) -> Bundle:
        """Publish ``incoming``; raises as :meth:`.repository.Repository.publish`.

        What a death interrupts is finished at the next start, and recorded then as the server's own doing.
        """
        self.repository.settle(now(), self._finish)
        current = self.repository.current()
        change = _publication(incoming, before=versions(current) if current else None)
        with attempt(self.engine, self.tenant, actor, change):
            return self.repository.publish(
                incoming, now(), self.artifacts.require_bytes, self.artifacts.register
            )

    def check(self, incoming: Bundle) -> None:
        """See to it that ``incoming`` could be published now; raises as :meth:`publish`."""
        self.repository.check(incoming, now(), self.artifacts.require_bytes)

    def settle(self) -> None:
        """Finish a publication that a death has interrupted, and clear away uploads that never ended."""
        self.artifacts.clean()
        self.repository.settle(now(), self._finish)

    def _finish(self, bundle: Bundle) -> None:
        """Register what was interrupted."""
        self.artifacts.register(bundle)
        with writing(self.engine) as session:
            change = _publication(bundle, before=None)
            append(session, self.tenant, Actor.system("api"), change._replace(action="metadata.finish"))


def _publication(bundle: Bundle, before: dict[str, int] | None) -> Change:
    """What publishing ``bundle`` is in the record of changes."""
    new = versions(bundle)
    is_ceremony = bool(bundle.image_roots or bundle.director_roots)
    return Change(
        action="ceremony.import" if is_ceremony else "metadata.publish",
        subject=" ".join(f"{role}:{version}" for role, version in sorted(new.items())),
        before=before,
        after=(before or {}) | new,
        detail={"versions": new, "sha256": hashlib.sha256(encode_bundle(bundle)).hexdigest()},
    )


def provide_keys(config: ServerConfig) -> None:
    """See to it that the server has signing keys of its own."""
    provide_online_keys(config.updates / _KEYS)


def open_office(engine: Engine, config: ServerConfig) -> Office:
    """The updates of the server that ``config`` describes, whose keys are there."""
    online = read_online_keys(config.updates / _KEYS)
    return Office(
        engine=engine,
        tenant=config.tenant,
        url=f"{config.device_url}{PREFIX}",
        repository=Repository(config.updates, online),
        artifacts=ArtifactStore(config.updates / _ARTIFACTS, engine, config.tenant),
        director=Director(engine, config.tenant, online),
    )
