"""Fixtures of the integration tests."""

from tests.support.databases import database_url, engine, postgres

__all__ = ["database_url", "engine", "postgres"]
