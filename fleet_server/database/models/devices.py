"""Who owns, where it stands, what stands there, what it may prove with, and what it says of itself."""

from enum import StrEnum
from typing import Final

from sqlalchemy import ForeignKeyConstraint, Index, Text, UniqueConstraint, text
from sqlmodel import Field

from fleet_server.database.models.base import Model, integer, of_device

_UNENFORCED: Final = text("revoked_reason <> '' AND enforced_ms IS NULL")


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


class DeviceTag(Model, table=True):
    """A word that somebody put on a device, to find it by and to hand out rights by."""

    __table_args__ = (of_device(),)

    tenant: str = Field(primary_key=True, max_length=63)
    device: str = Field(primary_key=True, max_length=63)
    tag: str = Field(primary_key=True, max_length=63)


class HardwareUnit(Model, table=True):
    """The board that fills a device's post, from one swap to the next."""

    __table_args__ = (of_device(),)

    tenant: str = Field(primary_key=True, max_length=63)
    serial: str = Field(primary_key=True, max_length=128)
    device: str = Field(primary_key=True, max_length=63)
    since_ms: int = integer(primary_key=True)
    until_ms: int | None = integer(default=None)


class Certificate(Model, table=True):
    """A certificate that the fleet's authority gave to a device; ``serial`` in hexadecimal.

    ``key_sha256`` is the digest of its public key (SubjectPublicKeyInfo), ``issuer`` the key
    identifier of the authority that signed it, ``trust_sha256`` the digest of the trusted roots that
    were handed out with it. ``revoked_reason`` is a reason of RFC 5280, ``enforced_ms`` when the
    broker was made to obey the revocation. One that is taken back has no ``revoked_ms`` any more, and
    the reason ``removeFromCRL`` until the broker obeys that.
    """

    __table_args__ = (
        of_device(),
        # What the broker does not obey yet: few rows or none, and asked for all the time.
        Index("ix_certificate_unenforced", "tenant", "serial", sqlite_where=_UNENFORCED,
              postgresql_where=_UNENFORCED),
    )  # fmt: skip

    tenant: str = Field(primary_key=True, max_length=63)
    serial: str = Field(primary_key=True, max_length=40)
    device: str = Field(index=True, max_length=63)
    sha256: str = Field(max_length=64)
    key_sha256: str = Field(index=True, max_length=64)
    issuer: str = Field(max_length=64)
    trust_sha256: str = Field(max_length=64)
    pem: str = Field(sa_type=Text)
    not_before_ms: int = integer()
    not_after_ms: int = integer()
    revoked_ms: int | None = integer(default=None)
    revoked_reason: str = Field(default="", max_length=32)
    enforced_ms: int | None = integer(default=None)


class Hold(Model, table=True):
    """A device that is kept out until somebody lets it in again.

    ``code`` is the health code that tells why; ``reason`` says it in words.
    """

    __table_args__ = (of_device(),)

    tenant: str = Field(primary_key=True, max_length=63)
    device: str = Field(primary_key=True, max_length=63)
    since_ms: int = integer()
    code: str = Field(max_length=64)
    reason: str = Field(max_length=200)


class Enrollment(Model, table=True):
    """A one-time right to become a device; only the digest of its secret is kept.

    ``replaces`` lets another board take over a device that is there. ``key_sha256`` is the public key
    that has claimed it: the same key may ask again, because an answer can get lost.
    """

    tenant: str = Field(primary_key=True, foreign_key="tenant.id", max_length=63)
    secret_sha256: str = Field(primary_key=True, max_length=64)
    device: str = Field(max_length=63)
    profile: str = Field(max_length=64)
    site: str = Field(default="", max_length=63)
    replaces: bool = False
    invited_by: str = Field(max_length=63)
    created_ms: int = integer()
    expires_ms: int = integer()
    used_ms: int | None = integer(default=None)
    key_sha256: str = Field(default="", max_length=64)
    revoked_ms: int | None = integer(default=None)


class FactoryBatch(Model, table=True):
    """A number of boards that carry one claim certificate; each waits for somebody's approval."""

    tenant: str = Field(primary_key=True, foreign_key="tenant.id", max_length=63)
    id: str = Field(primary_key=True, max_length=63)
    profile: str = Field(max_length=64)
    site: str = Field(default="", max_length=63)
    most: int
    claim_pem: str = Field(sa_type=Text)
    made_by: str = Field(max_length=63)
    created_ms: int = integer()
    expires_ms: int = integer()
    closed_ms: int | None = integer(default=None)


class Claim(Model, table=True):
    """A board of a factory batch that asks to become a device, and what somebody decided."""

    __table_args__ = (
        ForeignKeyConstraint(["tenant", "batch"], ["factory_batch.tenant", "factory_batch.id"]),
    )

    tenant: str = Field(primary_key=True, max_length=63)
    id: str = Field(primary_key=True, max_length=36)
    batch: str = Field(index=True, max_length=63)
    serial: str = Field(max_length=128)
    csr_pem: str = Field(sa_type=Text)
    key_sha256: str = Field(index=True, max_length=64)
    source: str = Field(max_length=64)
    state: str = Field(max_length=16)
    device: str = Field(default="", max_length=63)
    decided_by: str = Field(default="", max_length=63)
    reason: str = Field(default="", max_length=200)
    asked_ms: int = integer()
    decided_ms: int | None = integer(default=None)


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
