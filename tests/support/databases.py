"""Fixtures: a fresh, migrated database of either kind."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from fleet_server.database.engine import open_engine
from fleet_server.database.schema import upgrade
from tests.support.postgres import PostgresServer, is_installed, running_postgres


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One PostgreSQL for the whole session, with a migrated database ``template`` to copy."""
    if not is_installed():
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    with running_postgres() as server:
        name = server.new_database()
        engine = open_engine(server.url(name))
        upgrade(engine)
        engine.dispose()
        server.template = name
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a migrated, empty database; every test that asks runs on both kinds."""
    if request.param == "postgresql":
        server = request.getfixturevalue("postgres")
        return server.url(server.new_database(server.template))
    return migrated_sqlite(tmp_path / "fleet.db")


def migrated_sqlite(path: Path) -> str:
    """The URL of a new SQLite database with all tables."""
    url = f"sqlite:///{path}"
    engine = open_engine(url)
    upgrade(engine)
    engine.dispose()
    return url


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """An engine on :func:`database_url`."""
    engine = open_engine(database_url)
    yield engine
    engine.dispose()
