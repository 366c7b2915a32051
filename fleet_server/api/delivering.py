"""The terms of delivery as they are asked for over HTTP."""

from typing import Annotated

from pydantic import BaseModel, Field

from fleet_protocol.delivery import MAX_WINDOWS, PATTERN

_Window = Annotated[str, Field(pattern=PATTERN.replace(r"\Z", "$"))]


class Terms(BaseModel):
    """How fast, and at which hours of each device's own day (`22:00-06:00`), an artifact may be fetched."""

    max_kib_per_s: int = Field(default=0, ge=0, le=2**20, description="0 is as fast as it goes.")
    windows: list[_Window] = Field(default=[], max_length=MAX_WINDOWS)
