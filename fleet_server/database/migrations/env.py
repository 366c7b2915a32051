"""Alembic's entry: runs the migrations on the connection that the caller hands in."""

from alembic import context

from fleet_server.database.models import metadata
from fleet_server.database.schema import is_ours

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    include_name=is_ours,
    render_as_batch=True,
)

with context.begin_transaction():
    context.run_migrations()
