"""What devices have said of their versions, signed by their keys, and the receipts that bundles got."""

from sqlalchemy import Index, Text
from sqlmodel import Field

from fleet_server.database.models.base import Model, integer, of_device, row_number


class VersionStatement(Model, table=True):
    """A signed version report that said something new; the highest number is the device's last word.

    ``way`` is ``online`` or ``courier``. ``first_ms`` and ``attested_ms`` are when it was first and last
    said, by the server's clock; of a courier's, when it arrived. ``issued_ms`` is when the nonce was given
    out that it answers: the device said it no earlier. ``state_sha256`` digests what it says of versions,
    ``document`` is the report as JSON, ``jws`` the proof, signed by the key of the certificate ``serial``.
    """

    __table_args__ = (
        of_device(),
        Index("ix_version_statement_tenant_device_number", "tenant", "device", "number"),
    )

    number: int | None = row_number()
    tenant: str = Field(max_length=63)
    device: str = Field(max_length=63)
    way: str = Field(max_length=16)
    serial: str = Field(max_length=40)
    state_sha256: str = Field(max_length=64)
    first_ms: int = integer()
    attested_ms: int = integer()
    issued_ms: int = integer()
    document: str = Field(sa_type=Text)
    jws: str = Field(sa_type=Text)


class Receipt(Model, table=True):
    """A bundle's nonce that a receipt came in for; ``journal`` and ``happened``: how far the last one went.

    ``closed_ms`` is when one came that was final; none is taken after it.
    """

    __table_args__ = (of_device(),)

    tenant: str = Field(primary_key=True, max_length=63)
    nonce_sha256: str = Field(primary_key=True, max_length=64)
    device: str = Field(max_length=63)
    issued_ms: int = integer()
    expires_ms: int = integer()
    journal: str = Field(max_length=16)
    happened: int = integer()
    sha256: str = Field(max_length=64)
    closed_ms: int | None = integer(default=None)
