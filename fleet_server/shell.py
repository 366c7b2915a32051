"""What commands on the server's own machine share: its database where it has one yet, and the audit."""

import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from fleet_protocol.texts import _
from fleet_server.access.roles import Actor
from fleet_server.audit.chain import Change, append
from fleet_server.config import SETTINGS_FILE, ServerConfig, without_password
from fleet_server.database.engine import open_engine, writing
from fleet_server.errors import StoreError


@contextmanager
def database(config: ServerConfig) -> Iterator[Engine | None]:
    """The server's database; None before its first start.

    Raises:
        StoreError: it cannot be used.
    """
    if not (config.data / SETTINGS_FILE).exists():
        yield None
        return
    engine = open_engine(config.database_url)
    try:
        yield engine
    except SQLAlchemyError as error:
        raise StoreError(
            _("the database {url} cannot be used ({reason}); nothing was changed").format(
                url=without_password(config.database_url), reason=str(getattr(error, "orig", None) or error)
            )
        ) from error
    finally:
        engine.dispose()


@contextmanager
def recorded(config: ServerConfig, change: Change) -> Iterator[None]:
    """Do something under a record in the audit that it was this user; what fails leaves no record.

    Raises:
        StoreError: the record cannot be written.
    """
    with database(config) as engine:
        if engine is None:  # nobody has ever been let in, there is nothing to account for
            yield
            return
        with writing(engine) as session:
            append(session, config.tenant, Actor.shell(pwd.getpwuid(os.getuid()).pw_name), change)
            yield
