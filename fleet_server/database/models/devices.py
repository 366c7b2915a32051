"""Who owns, where it stands, what stands there, what it may prove with, and what it says of itself."""

from enum import StrEnum

from sqlalchemy import ForeignKeyConstraint, Text, UniqueConstraint
from sqlmodel import Field

from fleet_server.database.models.base import Model, integer, of_device


class Tenant(Model, table=True):
    """An owner of devices and data."""

    id: str = Field(primary_key=True, max_length=63)
    name: str = Field(max_length=200)
    created_ms: int = integer()


class Site(Model, table=True):
    """A place with a position (WGS 84 degrees) and a time zone."""

    tenant: str = Field(primary_key=True, foreign_key="tenant.id", max_length=63)
    id: str = Field(primary_key=True, max_length=63)
    name: str = Field(max_length=200)
    latitude: float | None = None
    longitude: float | None = None
    time_zone: str = Field(default="UTC", max_length=64)


class Device(Model, table=True):
    """The logical post in the field. Its id is unique in the whole installation: topics carry no tenant."""

    __table_args__ = (
        UniqueConstraint("id"),
        ForeignKeyConstraint(["tenant", "site"], ["site.tenant", "site.id"]),
    )

    tenant: str = Field(primary_key=True, foreign_key="tenant.id", max_length=63)
    id: str = Field(primary_key=True, max_length=63)
    site: str | None = Field(default=None, max_length=63)
    profile: str = Field(max_length=64)
    created_ms: int = integer()


class HardwareUnit(Model, table=True):
    """The board that fills a device's post, from one swap to the next."""

    __table_args__ = (of_device(),)

    tenant: str = Field(primary_key=True, max_length=63)
    serial: str = Field(primary_key=True, max_length=128)
    device: str = Field(primary_key=True, max_length=63)
    since_ms: int = integer(primary_key=True)
    until_ms: int | None = integer(default=None)


class Certificate(Model, table=True):
    """A certificate that the fleet's authority gave to a device; ``serial`` in hexadecimal."""

    __table_args__ = (of_device(),)

    tenant: str = Field(primary_key=True, max_length=63)
    serial: str = Field(primary_key=True, max_length=40)
    device: str = Field(index=True, max_length=63)
    sha256: str = Field(max_length=64)
    pem: str = Field(sa_type=Text)
    not_before_ms: int = integer()
    not_after_ms: int = integer()
    revoked_ms: int | None = integer(default=None)


class Enrollment(Model, table=True):
    """A one-time right to become a device; only the digest of its secret is kept."""

    tenant: str = Field(primary_key=True, foreign_key="tenant.id", max_length=63)
    secret_sha256: str = Field(primary_key=True, max_length=64)
    device: str = Field(max_length=63)
    created_ms: int = integer()
    expires_ms: int = integer()
    used_ms: int | None = integer(default=None)


class TwinHalf(StrEnum):
    """What is wished, what the device reports, and whether it is there."""

    DESIRED = "desired"
    REPORTED = "reported"
    STATUS = "status"


class Twin(Model, table=True):
    """One half of what is known of a device: a JSON document, how often it changed and when.

    ``reason`` says why the device differs from the wish, in its own words.
    """

    __table_args__ = (of_device(),)

    tenant: str = Field(primary_key=True, max_length=63)
    device: str = Field(primary_key=True, max_length=63)
    half: str = Field(primary_key=True, max_length=16)
    version: int = integer(default=1)
    changed_ms: int = integer()
    document: str = Field(sa_type=Text)
    reason: str = Field(default="", max_length=200)
