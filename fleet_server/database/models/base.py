"""What all tables share: their naming, their number types, and the key of a device."""

import re
from typing import Any, Final

from sqlalchemy import BigInteger, ForeignKeyConstraint, Integer
from sqlalchemy.orm import declared_attr
from sqlmodel import Field, SQLModel

# SQLite only numbers rows by itself where the key's type is spelled INTEGER.
ROW_NUMBER: Final = BigInteger().with_variant(Integer(), "sqlite")

_CAPITAL: Final = re.compile(r"(?<!^)(?=[A-Z])")

SQLModel.metadata.naming_convention = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


class Model(SQLModel):
    """A table, named like its class in snake case."""

    @declared_attr.directive
    def __tablename__(cls) -> str:  # noqa: N805 - SQLAlchemy hands in the class
        return _CAPITAL.sub("_", cls.__name__).lower()


def row_number() -> Any:
    """A primary key that the database counts."""
    return Field(default=None, primary_key=True, sa_type=ROW_NUMBER)


def integer(**options: Any) -> Any:
    """A 64-bit number: ms since 1970, a sequence, a size. A plain INTEGER ends in 2038 on PostgreSQL."""
    return Field(sa_type=BigInteger, **options)


def of_device() -> ForeignKeyConstraint:
    """The columns ``tenant`` and ``device`` name a registered device."""
    return ForeignKeyConstraint(["tenant", "device"], ["device.tenant", "device.id"])
