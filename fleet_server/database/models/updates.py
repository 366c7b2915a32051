"""What may run where, and the moves of the fleet that bring it there, with who asked and who agreed."""

from sqlalchemy import BigInteger, ForeignKeyConstraint, Text, UniqueConstraint
from sqlmodel import Field

from fleet_server.database.models.base import Model, integer, of_device


class Artifact(Model, table=True):
    """A model or policy that the image repository vouches for, by its content.

    ``release`` only grows within a name. ``manifest`` is what was signed of it: a
    :class:`fleet_protocol.targets.Description` as JSON.
    """

    __table_args__ = (UniqueConstraint("tenant", "kind", "name", "release"),)

    tenant: str = Field(primary_key=True, foreign_key="tenant.id", max_length=63)
    sha256: str = Field(primary_key=True, max_length=64)
    kind: str = Field(max_length=16)
    name: str = Field(max_length=64)
    version: str = Field(max_length=64)
    release: int = integer()
    size: int = integer()
    manifest: str = Field(sa_type=Text)
    created_ms: int = integer()


class Assignment(Model, table=True):
    """Which artifact a device shall have, by kind and name."""

    __table_args__ = (
        of_device(),
        ForeignKeyConstraint(["tenant", "artifact"], ["artifact.tenant", "artifact.sha256"]),
    )

    tenant: str = Field(primary_key=True, max_length=63)
    device: str = Field(primary_key=True, max_length=63)
    kind: str = Field(primary_key=True, max_length=16)
    name: str = Field(primary_key=True, max_length=64)
    artifact: str = Field(max_length=64)
    assigned_ms: int = integer()


class Directive(Model, table=True):
    """What the director signed for a device. Versions only grow; the last few are kept for slow devices.

    ``state`` is a digest of what was assigned and of the key that signed it.
    """

    __table_args__ = (of_device(),)

    tenant: str = Field(primary_key=True, max_length=63)
    device: str = Field(primary_key=True, max_length=63)
    version: int = Field(primary_key=True, sa_type=BigInteger)
    state: str = Field(max_length=64)
    expires_ms: int = integer()
    targets: str = Field(sa_type=Text)
    snapshot: str = Field(sa_type=Text)
    timestamp: str = Field(sa_type=Text)


class DeviceGroup(Model, table=True):
    """A saved filter over devices."""

    tenant: str = Field(primary_key=True, foreign_key="tenant.id", max_length=63)
    name: str = Field(primary_key=True, max_length=63)
    filter: str = Field(sa_type=Text)
    created_ms: int = integer()


class Rollout(Model, table=True):
    """A move of a group to an artifact."""

    __table_args__ = (
        ForeignKeyConstraint(["tenant", "device_group"], ["device_group.tenant", "device_group.name"]),
        ForeignKeyConstraint(["tenant", "artifact"], ["artifact.tenant", "artifact.sha256"]),
    )

    tenant: str = Field(primary_key=True, max_length=63)
    id: str = Field(primary_key=True, max_length=36)
    device_group: str = Field(max_length=63)
    artifact: str = Field(max_length=64)
    state: str = Field(max_length=16)
    rules: str = Field(sa_type=Text)
    created_ms: int = integer()


class Wave(Model, table=True):
    """The devices that a rollout moves together, in order."""

    __table_args__ = (ForeignKeyConstraint(["tenant", "rollout"], ["rollout.tenant", "rollout.id"]),)

    tenant: str = Field(primary_key=True, max_length=63)
    rollout: str = Field(primary_key=True, max_length=36)
    number: int = Field(primary_key=True)
    state: str = Field(max_length=16)
    devices: str = Field(sa_type=Text)
    started_ms: int | None = integer(default=None)
    ended_ms: int | None = integer(default=None)


class Proposal(Model, table=True):
    """A change that somebody asks for; it waits for approvals."""

    __table_args__ = (ForeignKeyConstraint(["tenant", "proposer"], ["person.tenant", "person.id"]),)

    tenant: str = Field(primary_key=True, max_length=63)
    id: str = Field(primary_key=True, max_length=36)
    proposer: str = Field(max_length=63)
    change: str = Field(sa_type=Text)
    state: str = Field(max_length=16)
    created_ms: int = integer()


class Approval(Model, table=True):
    """One person's yes or no to a proposal; never the proposer's own."""

    __table_args__ = (
        ForeignKeyConstraint(["tenant", "proposal"], ["proposal.tenant", "proposal.id"]),
        ForeignKeyConstraint(["tenant", "person"], ["person.tenant", "person.id"]),
    )

    tenant: str = Field(primary_key=True, max_length=63)
    proposal: str = Field(primary_key=True, max_length=36)
    person: str = Field(primary_key=True, max_length=63)
    agrees: bool
    reason: str = Field(default="", max_length=200)
    given_ms: int = integer()
