"""How the server itself fares, and what it refused to take.

These belong to the installation, not to a tenant, where no tenant is known: then ``tenant`` is empty.
"""

from sqlalchemy import Text
from sqlmodel import Field

from fleet_server.database.models.base import Model, integer, row_number


class Service(Model, table=True):
    """A process of the server, and when it last said that it lives."""

    name: str = Field(primary_key=True, max_length=63)
    started_ms: int = integer()
    beat_ms: int = integer()


class ServerHealth(Model, table=True):
    """A health code of the server: raised while ``cleared_ms`` is empty; ``count`` times so far."""

    code: str = Field(primary_key=True, max_length=64)
    since_ms: int = integer()
    cleared_ms: int | None = integer(default=None)
    detail: str = Field(default="", max_length=200)
    count: int = integer(default=1)


class RefusalCount(Model, table=True):
    """How many messages of a device were refused; all unknown devices together are the empty name."""

    tenant: str = Field(primary_key=True, max_length=63)
    device: str = Field(primary_key=True, max_length=63)
    count: int = integer()
    last_ms: int = integer()
    last_reason: str = Field(max_length=300)


class RefusedMessage(Model, table=True):
    """One of the last refused messages, for support; ``head`` is the payload's beginning in hexadecimal."""

    id: int | None = row_number()
    tenant: str = Field(max_length=63)
    device: str = Field(max_length=63)
    topic: str = Field(max_length=200)
    received_ms: int = integer()
    reason: str = Field(max_length=300)
    size: int = integer()
    head: str = Field(sa_type=Text)
