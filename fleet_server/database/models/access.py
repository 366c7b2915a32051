"""People, what they may do, and the record of what they did."""

from sqlalchemy import ForeignKeyConstraint, Text
from sqlmodel import Field

from fleet_server.database.models.base import Model, integer


class Person(Model, table=True):
    """Somebody with an account; also the operator that a new installation makes for itself."""

    tenant: str = Field(primary_key=True, foreign_key="tenant.id", max_length=63)
    id: str = Field(primary_key=True, max_length=63)
    name: str = Field(max_length=200)
    created_ms: int = integer()
    disabled_ms: int | None = integer(default=None)


class Token(Model, table=True):
    """An API token of a person; only its digest is kept."""

    __table_args__ = (ForeignKeyConstraint(["tenant", "person"], ["person.tenant", "person.id"]),)

    tenant: str = Field(primary_key=True, max_length=63)
    sha256: str = Field(primary_key=True, max_length=64)
    person: str = Field(max_length=63)
    name: str = Field(max_length=64)
    created_ms: int = integer()
    expires_ms: int | None = integer(default=None)
    revoked_ms: int | None = integer(default=None)


class Role(Model, table=True):
    """What a person may do (viewer, technician, operator, approver, admin), and where.

    ``site`` and ``tag`` narrow it; empty means everywhere in the tenant.
    """

    __table_args__ = (ForeignKeyConstraint(["tenant", "person"], ["person.tenant", "person.id"]),)

    tenant: str = Field(primary_key=True, max_length=63)
    person: str = Field(primary_key=True, max_length=63)
    role: str = Field(primary_key=True, max_length=16)
    site: str = Field(default="", primary_key=True, max_length=63)
    tag: str = Field(default="", primary_key=True, max_length=63)


class AuditRecord(Model, table=True):
    """One change, chained by digest to the one before it in its tenant."""

    tenant: str = Field(primary_key=True, foreign_key="tenant.id", max_length=63)
    number: int = integer(primary_key=True)
    time_ms: int = integer()
    person: str = Field(max_length=63)
    action: str = Field(max_length=64)
    subject: str = Field(max_length=200)
    detail: str = Field(sa_type=Text)
    previous_sha256: str = Field(max_length=64)
    sha256: str = Field(max_length=64)
