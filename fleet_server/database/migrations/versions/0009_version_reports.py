"""What devices say of their versions, signed, and the receipts of bundles."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "version_statement",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        *_device(),
        _text("way", 16),
        _text("serial", 40),
        _text("state_sha256", 64),
        _count("first_ms"),
        _count("attested_ms"),
        _count("issued_ms"),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("jws", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_version_statement")),
        _of_device("version_statement"),
    )
    op.create_index(
        op.f("ix_version_statement_tenant_device_number"),
        "version_statement",
        ["tenant", "device", "number"],
    )
    op.create_table(
        "receipt",
        *_device(),
        _text("nonce_sha256", 64),
        _count("issued_ms"),
        _count("expires_ms"),
        _text("journal", 16),
        _count("happened"),
        _text("sha256", 64),
        sa.Column("closed_ms", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("tenant", "nonce_sha256", name=op.f("pk_receipt")),
        _of_device("receipt"),
    )


def downgrade() -> None:
    op.drop_table("receipt")
    op.drop_table("version_statement")


def _device() -> tuple[sa.Column[str], sa.Column[str]]:
    return _text("tenant", 63), _text("device", 63)


def _of_device(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["tenant", "device"], ["device.tenant", "device.id"], name=op.f(f"fk_{table}_tenant_device")
    )


def _text(name: str, length: int) -> sa.Column[str]:
    return sa.Column(name, sa.String(length), nullable=False)


def _count(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), nullable=False)
