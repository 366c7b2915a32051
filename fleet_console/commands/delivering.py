"""The options that say how an artifact is fetched."""

from typing import Annotated, Any

import typer

from fleet_console.errors import UsageError
from fleet_protocol import delivery
from fleet_protocol.texts import _

MaxKib = Annotated[
    int,
    typer.Option("--max-kib-per-s", min=0, metavar="N", help=_("Fetch no faster; 0 is as fast as it goes.")),
]
Window = Annotated[
    list[str] | None,
    typer.Option("--window", metavar="HH:MM-HH:MM", help=_("Fetch only then, by each device's own clock.")),
]


def terms(max_kib_per_s: int, windows: list[str] | None) -> dict[str, Any]:
    """The terms as the server takes them.

    Raises:
        UsageError: a window is none.
    """
    for window in windows or ():
        if problem := delivery.problem(window):
            raise UsageError(problem)
    return {"max_kib_per_s": max_kib_per_s, "windows": windows or []}
