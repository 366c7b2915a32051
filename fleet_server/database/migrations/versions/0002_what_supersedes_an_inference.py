"""Inferences name the question that they went out with, and what supersedes them; requests by time."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Not in batch mode: that would copy the table, and on PostgreSQL it is a partitioned one.
    op.add_column(
        "inference", sa.Column("request", sa.String(32), nullable=False, server_default=sa.text("''"))
    )
    op.add_column(
        "inference", sa.Column("supersedes", sa.Boolean(), nullable=False, server_default=sa.false())
    )
    op.create_index(op.f("ix_request_tenant_received_ms"), "request", ["tenant", "received_ms"])


def downgrade() -> None:
    op.drop_index(op.f("ix_request_tenant_received_ms"), "request")
    op.drop_column("inference", "supersedes")
    op.drop_column("inference", "request")
