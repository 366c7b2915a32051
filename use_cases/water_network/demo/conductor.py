"""The story that tells itself beside the live view: published, rolled out, attacked at stated days.

``python -m use_cases.water_network.demo.conductor --folder DIR`` works on the city in DIR like any other
client, and prints what it does, a line each. It kills nobody.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from fleet_console.errors import ConsoleError
from fleet_console.sources.http import Place
from fleet_protocol.texts import _
from hil.stopping import StoppedError, listen
from use_cases.water_network.demo import plan
from use_cases.water_network.demo.agent_builds import BuildError
from use_cases.water_network.demo.city import started_ms
from use_cases.water_network.demo.findings import DAY_S, Findings
from use_cases.water_network.demo.journeys import (
    again,
    away,
    beside,
    better,
    escalation,
    flawed,
    leak,
    mended,
    stolen,
)
from use_cases.water_network.demo.observe import Observer
from use_cases.water_network.demo.operating import Operator, OperatorError
from use_cases.water_network.demo.stage import WITHIN_S, CheckFailedError, Stage, now_ms

Journey = Callable[[Stage], None]

STORY: Final[tuple[tuple[float, Journey], ...]] = (
    (0.0, leak.history),
    (0.0, leak.found),
    (0.0, escalation.answered),
    (plan.BETTER_DAY, beside.in_shadow),
    (0.0, better.model),
    (0.0, better.policy),
    (plan.BAD_DAY, flawed.bad),
    (plan.WORSE_DAY, flawed.worse),
    (0.0, again.refused),
    (plan.THIEF_DAY, stolen.forged_and_replayed),
    (plan.MENDED_DAY, mended.accepted),
    (0.0, away.updated_from_a_stick),
)
"""The journeys in their order, each with the day before which it does not begin."""


def main() -> int:
    """Tell the story from its beginning to its end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    folder: Path = parser.parse_args().folder
    listen()
    try:
        with Place(data=folder / "server").connect() as server:
            _tell(folder, Observer(server))
    except StoppedError:
        return 0
    except (BuildError, CheckFailedError, OperatorError, ConsoleError, OSError) as error:
        _say(_("The story ends here: {reason}").format(reason=error))
        return 1
    _say(_("The story is told; the city goes on until you quit."))
    return 0


def _tell(folder: Path, observer: Observer) -> None:
    findings = Findings(started_ms(folder))
    stage = Stage(folder, observer, Operator(folder), findings, _say, _nothing, _spare)
    for day, journey in STORY:
        _await_day(stage, day)
        journey(stage)


def _await_day(stage: Stage, day: float) -> None:
    stage.until(
        _("day {day:.0f} begins").format(day=day),
        lambda: stage.findings.day(now_ms()) >= day,
        day * DAY_S + WITHIN_S,
    )


def _say(text: str) -> None:
    print(text, flush=True)


def _nothing() -> None:
    """Whoever shows the city keeps its agents alive."""


def _spare(_name: str) -> None:
    """Nobody is killed here."""


if __name__ == "__main__":
    sys.exit(main())
