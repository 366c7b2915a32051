"""Everything that signed updates take on a server, put together for one process."""

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Engine

from fleet_server.config import ServerConfig
from fleet_server.updates.artifacts import ArtifactStore
from fleet_server.updates.director import Director
from fleet_server.updates.online import provide_online_keys, read_online_keys
from fleet_server.updates.repository import Repository
from fleet_signing.ceremony import Bundle
from fleet_signing.metadata import now

PREFIX: Final = "/v1/updates"
"""What the paths of the device listener begin with."""

_KEYS: Final = "keys"
_ARTIFACTS: Final = "artifacts"


@dataclass(frozen=True, slots=True)
class Office:
    """The repository, the artifacts and the director of one server; ``url`` is where devices find them."""

    url: str
    repository: Repository
    artifacts: ArtifactStore
    director: Director

    def publish(self, incoming: Bundle) -> Bundle:
        """Publish ``incoming``; raises as :meth:`.repository.Repository.publish`."""
        return self.repository.publish(incoming, now(), self.artifacts.require_bytes, self.artifacts.register)

    def check(self, incoming: Bundle) -> None:
        """See to it that ``incoming`` could be published now; raises as :meth:`publish`."""
        self.repository.check(incoming, now(), self.artifacts.require_bytes)

    def settle(self) -> None:
        """Finish a publication that a death has interrupted, and clear away uploads that never ended."""
        self.artifacts.clean()
        self.repository.settle(now(), self.artifacts.register)


def provide_keys(config: ServerConfig) -> None:
    """See to it that the server has signing keys of its own."""
    provide_online_keys(config.updates / _KEYS)


def open_office(engine: Engine, config: ServerConfig) -> Office:
    """The updates of the server that ``config`` describes, whose keys are there."""
    online = read_online_keys(config.updates / _KEYS)
    return Office(
        url=f"{config.device_url}{PREFIX}",
        repository=Repository(config.updates, online),
        artifacts=ArtifactStore(config.updates / _ARTIFACTS, engine, config.tenant),
        director=Director(engine, config.tenant, online),
    )
