"""``fleet rollout watch``: a rollout as it moves, until it ends.

On a terminal the waves are drawn over and over; into a pipe goes a line whenever something moved,
or the whole page as a line of JSON.
"""

import json
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from fleet_console.commands import rollout_text
from fleet_console.errors import Unreachable
from fleet_console.sources.http import Answer, Server
from fleet_protocol.texts import _

EVERY_S: Final = 1.0
"""How often it asks; a device takes longer for any step."""

PATIENCE_S: Final = 60.0
"""How long the server may be away before watching ends: it restarts its own parts much sooner."""

_COLORS: Final = {"done": "green", "failed": "red", "aborted": "red", "paused": "yellow"}

Show = Callable[[Answer, str], None]


def watch(centre: Server, identity: str, *, as_json: bool) -> str:
    """Show the rollout until it has ended; the state in which it did.

    Raises:
        ConsoleError: there is no such rollout.
        Unreachable: the server has not answered for :data:`PATIENCE_S`.
    """
    is_drawn = sys.stdout.isatty() and not as_json
    live = Live(console=Console(), auto_refresh=False) if is_drawn else None
    context: AbstractContextManager[object] = live or nullcontext()
    show: Show = _Drawing(live) if live else _Lines(as_json=as_json)
    with context:
        return _follow(centre, identity, show)


def _follow(centre: Server, identity: str, show: Show) -> str:
    answer, heard = centre.get(f"/v1/rollouts/{identity}"), time.monotonic()
    while True:
        show(answer, "")
        state = str(answer.content["rollout"]["state"])
        if state in rollout_text.ENDED:
            return state
        time.sleep(EVERY_S)
        try:
            answer, heard = centre.get(f"/v1/rollouts/{identity}"), time.monotonic()
        except Unreachable as error:
            silent_s = time.monotonic() - heard
            if silent_s > PATIENCE_S:
                raise
            show(answer, _("as of {seconds:.0f} s ago: {reason}").format(seconds=silent_s, reason=error))


class _Lines:
    """Prints what is new since the last time."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._before: Mapping[str, Any] | None = None

    def __call__(self, answer: Answer, _trouble: str) -> None:
        after = answer.content
        if self._as_json:
            lines = [json.dumps(after)] if after != self._before else []
        else:
            lines = list(rollout_text.changes(self._before, after))
        for line in lines:
            typer.echo(line)
        self._before = after


class _Drawing:
    """Draws the waves anew each time."""

    def __init__(self, live: Live) -> None:
        self._live = live

    def __call__(self, answer: Answer, trouble: str) -> None:
        self._live.update(_drawing(answer, trouble), refresh=True)


def _drawing(answer: Answer, trouble: str) -> Table:
    content = answer.content
    rollout = content["rollout"]
    grid = Table.grid()
    grid.add_row(Text(rollout_text.headline(rollout), style=_COLORS.get(rollout["state"], "")))
    for wave in content["waves"]:
        grid.add_row(Text("  " + rollout_text.wave_line(wave, answer.now_ms)))
        if wave["state"] == "open":
            for line in rollout_text.under_way(wave):
                grid.add_row(Text(f"    {line}"))
    if trouble:
        grid.add_row(Text(trouble, style="yellow"))
    return grid
