"""What may run where, and the moves of the fleet that bring it there, with who asked and who agreed."""

from sqlalchemy import BigInteger, ForeignKeyConstraint, Text, UniqueConstraint, text
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
    """Which artifact a device shall have, by kind, name and how it is to run it (a ``Mode``).

    ``delivery``: on which terms it is fetched, as JSON.
    """

    __table_args__ = (
        of_device(),
        ForeignKeyConstraint(["tenant", "artifact"], ["artifact.tenant", "artifact.sha256"]),
    )

    tenant: str = Field(primary_key=True, max_length=63)
    device: str = Field(primary_key=True, max_length=63)
    kind: str = Field(primary_key=True, max_length=16)
    name: str = Field(primary_key=True, max_length=64)
    mode: str = Field(primary_key=True, default="act", max_length=16)
    artifact: str = Field(max_length=64)
    assigned_ms: int = integer()
    delivery: str = Field(default="", max_length=512, sa_column_kwargs={"server_default": text("''")})


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
    """A move of a group to an artifact, acting or in shadow; ``detail`` says why it ended as it did."""

    __table_args__ = (
        ForeignKeyConstraint(["tenant", "device_group"], ["device_group.tenant", "device_group.name"]),
        ForeignKeyConstraint(["tenant", "artifact"], ["artifact.tenant", "artifact.sha256"]),
    )

    tenant: str = Field(primary_key=True, max_length=63)
    id: str = Field(primary_key=True, max_length=36)
    device_group: str = Field(max_length=63)
    artifact: str = Field(max_length=64)
    mode: str = Field(default="act", max_length=16)
    state: str = Field(max_length=16)
    rules: str = Field(sa_type=Text)
    reason: str = Field(max_length=200)
    detail: str = Field(default="", max_length=300)
    created_ms: int = integer()
    ended_ms: int | None = integer(default=None)


class Wave(Model, table=True):
    """A step of a rollout: when its devices were assigned, and when the last of them had ended."""

    __table_args__ = (ForeignKeyConstraint(["tenant", "rollout"], ["rollout.tenant", "rollout.id"]),)

    tenant: str = Field(primary_key=True, max_length=63)
    rollout: str = Field(primary_key=True, max_length=36)
    number: int = Field(primary_key=True)
    started_ms: int | None = integer(default=None)
    ended_ms: int | None = integer(default=None)


class RolloutMember(Model, table=True):
    """A device of a rollout, in the wave that it was cut into; wave 0 holds those that it does not fit.

    ``previous`` is what the device was to have when the rollout began. ``tried`` marks the failure
    of an earlier try that it reported when it was assigned. ``since_ms`` is when its state changed.
    """

    __table_args__ = (
        of_device(),
        ForeignKeyConstraint(["tenant", "rollout"], ["rollout.tenant", "rollout.id"]),
        ForeignKeyConstraint(["tenant", "previous"], ["artifact.tenant", "artifact.sha256"]),
    )

    tenant: str = Field(primary_key=True, max_length=63)
    rollout: str = Field(primary_key=True, max_length=36)
    device: str = Field(primary_key=True, max_length=63)
    wave: int
    state: str = Field(max_length=16)
    previous: str | None = Field(default=None, max_length=64)
    tried: str = Field(default="", max_length=200)
    refusal: str = Field(default="", max_length=200)
    detail: str = Field(default="", max_length=200)
    since_ms: int = integer()


class SentHint(Model, table=True):
    """The version of its desired half that the broker last took a hint of, for a device, and when."""

    __table_args__ = (of_device(),)

    tenant: str = Field(primary_key=True, max_length=63)
    device: str = Field(primary_key=True, max_length=63)
    version: int = integer()
    sent_ms: int = integer()
