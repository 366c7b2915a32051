"""What rollouts remember: why, how each device fared, and which hints the broker has taken.

Nothing has written the table of waves before; its list of devices becomes a table.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("rollout") as rollout:
        rollout.add_column(sa.Column("reason", sa.String(length=200), nullable=False, server_default=""))
        rollout.add_column(sa.Column("detail", sa.String(length=300), nullable=False, server_default=""))
        rollout.add_column(sa.Column("ended_ms", sa.BigInteger(), nullable=True))
    with op.batch_alter_table("rollout") as rollout:
        for column in ("reason", "detail"):
            rollout.alter_column(column, existing_type=sa.String(), server_default=None)
    with op.batch_alter_table("wave") as wave:
        wave.drop_column("state")
        wave.drop_column("devices")
    _members()
    op.create_table(
        "sent_hint",
        _text("tenant", 63),
        _text("device", 63),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("sent_ms", sa.BigInteger(), nullable=False),
        _refers("sent_hint", "device", "device", "id"),
        sa.PrimaryKeyConstraint("tenant", "device", name=op.f("pk_sent_hint")),
    )


def downgrade() -> None:
    op.drop_table("sent_hint")
    op.drop_table("rollout_member")
    with op.batch_alter_table("wave") as wave:
        wave.add_column(sa.Column("state", sa.String(length=16), nullable=False, server_default=""))
        wave.add_column(sa.Column("devices", sa.Text(), nullable=False, server_default="[]"))
    with op.batch_alter_table("rollout") as rollout:
        for column in ("reason", "detail", "ended_ms"):
            rollout.drop_column(column)


def _members() -> None:
    op.create_table(
        "rollout_member",
        _text("tenant", 63),
        _text("rollout", 36),
        _text("device", 63),
        sa.Column("wave", sa.Integer(), nullable=False),
        _text("state", 16),
        sa.Column("previous", sa.String(length=64), nullable=True),
        _text("tried", 200),
        _text("refusal", 200),
        _text("detail", 200),
        sa.Column("since_ms", sa.BigInteger(), nullable=False),
        _refers("rollout_member", "device", "device", "id"),
        _refers("rollout_member", "previous", "artifact", "sha256"),
        _refers("rollout_member", "rollout", "rollout", "id"),
        sa.PrimaryKeyConstraint("tenant", "rollout", "device", name=op.f("pk_rollout_member")),
    )


def _text(name: str, length: int) -> "sa.Column[str]":
    return sa.Column(name, sa.String(length=length), nullable=False)


def _refers(table: str, column: str, other: str, key: str) -> sa.ForeignKeyConstraint:
    """``tenant`` and ``column`` name a row of ``other``."""
    return sa.ForeignKeyConstraint(
        ["tenant", column], [f"{other}.tenant", f"{other}.{key}"], name=op.f(f"fk_{table}_tenant_{column}")
    )
