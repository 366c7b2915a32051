"""The tables as they are: brought up to date, and compared with the models."""

from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, Engine

from fleet_server.database.models import metadata
from fleet_server.database.partitions import PARTITION_NAME


def upgrade(engine: Engine) -> None:
    """Bring the tables up to date; does nothing where they are."""
    with _exclusive(engine) as connection:
        command.upgrade(_config(connection), "head")


def differences(engine: Engine) -> list[Any]:
    """What Alembic would still change for the tables to be the models; empty where they agree."""
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"include_name": is_ours, "compare_server_default": True}
        )
        return list(compare_metadata(context, metadata))


def is_ours(name: str | None, kind: str, _parents: MutableMapping[Any, str | None]) -> bool:
    """Whether a thing in the database is described by the models; a daily partition is not."""
    return not (kind == "table" and name is not None and PARTITION_NAME.match(name))


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def _exclusive(engine: Engine) -> Any:
    """A transaction that no second migration can run beside."""
    return engine.execution_options(write_first=True).begin()
