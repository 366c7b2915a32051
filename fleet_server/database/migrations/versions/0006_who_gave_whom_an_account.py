"""Records are found by what was done: who gave whom an account is asked at every approval."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_INDEX = op.f("ix_audit_record_tenant_action")


def upgrade() -> None:
    op.create_index(_INDEX, "audit_record", ["tenant", "action", "time_ms"])


def downgrade() -> None:
    op.drop_index(_INDEX, "audit_record")
