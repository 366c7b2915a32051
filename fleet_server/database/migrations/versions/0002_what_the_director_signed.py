"""What the director signed for each device, so that its versions only grow."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "directive",
        sa.Column("tenant", sa.String(63), nullable=False),
        sa.Column("device", sa.String(63), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(64), nullable=False),
        sa.Column("expires_ms", sa.BigInteger(), nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("targets", "snapshot", "timestamp")),
        sa.PrimaryKeyConstraint("tenant", "device", "version", name="pk_directive"),
        sa.ForeignKeyConstraint(
            ["tenant", "device"], ["device.tenant", "device.id"], name="fk_directive_tenant_device"
        ),
    )


def downgrade() -> None:
    op.drop_table("directive")
