"""What devices could not decide, who worked on it, and what they were told."""

from sqlalchemy import ForeignKeyConstraint, Index, LargeBinary, Text
from sqlmodel import Field

from fleet_server.database.models.base import Model, integer, of_device


class Request(Model, table=True):
    """A device's question. ``id`` is its correlation data: the same question twice is one request."""

    __table_args__ = (of_device(), Index(None, "tenant", "received_ms"))

    tenant: str = Field(primary_key=True, max_length=63)
    device: str = Field(primary_key=True, max_length=63)
    id: str = Field(primary_key=True, max_length=64)
    kind: str = Field(max_length=64)
    payload: bytes = Field(sa_type=LargeBinary)
    deadline_ms: int = integer()
    received_ms: int = integer()


class Answer(Model, table=True):
    """What a request brought; ``answered_by`` names the backend and its model."""

    __table_args__ = (
        ForeignKeyConstraint(
            ["tenant", "device", "request"], ["request.tenant", "request.device", "request.id"]
        ),
    )

    tenant: str = Field(primary_key=True, max_length=63)
    device: str = Field(primary_key=True, max_length=63)
    request: str = Field(primary_key=True, max_length=64)
    state: str = Field(max_length=16)
    answered_by: str = Field(max_length=200)
    payload: bytes = Field(sa_type=LargeBinary)
    answered_ms: int = integer()


class Job(Model, table=True):
    """Heavy work for a request, on a queue."""

    __table_args__ = (
        ForeignKeyConstraint(
            ["tenant", "device", "request"], ["request.tenant", "request.device", "request.id"]
        ),
    )

    tenant: str = Field(primary_key=True, max_length=63)
    id: str = Field(primary_key=True, max_length=64)
    device: str = Field(max_length=63)
    request: str = Field(max_length=64)
    state: str = Field(max_length=16)
    detail: str = Field(default="", sa_type=Text)
    created_ms: int = integer()
    ended_ms: int | None = integer(default=None)


class EscalationBudget(Model, table=True):
    """How many questions an hour one device and all of a tenant may ask; none before it was changed."""

    tenant: str = Field(primary_key=True, foreign_key="tenant.id", max_length=63)
    device_per_hour: float
    tenant_per_hour: float
    changed_ms: int = integer()
