"""On which terms a device fetches what it is assigned."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "assignment", sa.Column("delivery", sa.String(512), nullable=False, server_default=sa.text("''"))
    )


def downgrade() -> None:
    op.drop_column("assignment", "delivery")
