"""What runs in shadow: a second assignment beside the one that acts, rollouts of it, and its answers."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_KEY = ("tenant", "device", "kind", "name")


def upgrade() -> None:
    _add_mode("assignment")
    with op.batch_alter_table("assignment") as assignment:
        assignment.drop_constraint(op.f("pk_assignment"), type_="primary")
        assignment.create_primary_key(op.f("pk_assignment"), [*_KEY, "mode"])
    _add_mode("rollout")
    # Not in batch mode: that would copy the table, and on PostgreSQL it is a partitioned one.
    op.add_column("inference", sa.Column("shadow", sa.Boolean(), nullable=False, server_default=sa.false()))


def downgrade() -> None:
    # Unmarked, they would pass for answers that acted.
    op.execute("DELETE FROM inference WHERE shadow")
    op.drop_column("inference", "shadow")
    op.execute(
        "DELETE FROM rollout_member WHERE (tenant, rollout) IN"
        " (SELECT tenant, id FROM rollout WHERE mode <> 'act')"
    )
    op.execute(
        "DELETE FROM wave WHERE (tenant, rollout) IN (SELECT tenant, id FROM rollout WHERE mode <> 'act')"
    )
    op.execute("DELETE FROM rollout WHERE mode <> 'act'")
    op.execute("DELETE FROM assignment WHERE mode <> 'act'")
    with op.batch_alter_table("assignment") as assignment:
        assignment.drop_constraint(op.f("pk_assignment"), type_="primary")
        assignment.create_primary_key(op.f("pk_assignment"), list(_KEY))
    for table in ("assignment", "rollout"):
        with op.batch_alter_table(table) as changed:
            changed.drop_column("mode")


def _add_mode(table: str) -> None:
    """Everything so far acts."""
    with op.batch_alter_table(table) as changed:
        changed.add_column(sa.Column("mode", sa.String(length=16), nullable=False, server_default="act"))
    with op.batch_alter_table(table) as changed:
        changed.alter_column("mode", existing_type=sa.String(), server_default=None)
