"""``python -m use_cases.water_network.demo [--check]``: the whole city on this machine."""

import argparse
import select
import shutil
import sys
import tempfile
import termios
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from rich.console import Console, RenderableType
from rich.live import Live

from fleet_console.errors import ConsoleError
from fleet_console.sources.http import Place
from fleet_protocol.texts import _
from hil.processes import Child
from hil.stopping import StoppedError, listen, pause
from use_cases.water_network.demo import check, page, plan, report, view
from use_cases.water_network.demo.agent_builds import BuildError
from use_cases.water_network.demo.city import City, CityError, running_city
from use_cases.water_network.demo.observe import Observer
from use_cases.water_network.demo.operating import OperatorError
from use_cases.water_network.demo.stage import CheckFailedError

LOOK_EVERY_S: Final = 1.0
SEED: Final = 2026
REPORT: Final = Path("var/demo-report.html")

Pressed = Callable[[str, float], bool]
"""Whether a key is pressed within some seconds."""


def main() -> int:
    """Run the demonstration; exit code 0 if everything was as it should be."""
    parser = argparse.ArgumentParser(
        prog="scripts/demo", description=_("A city's water network, watched by Argan.")
    )
    parser.add_argument("--check", action="store_true", help=_("no terminal: observe every journey and exit"))
    parser.add_argument("--keep", type=Path, metavar="DIR", help=_("keep logs and databases in DIR"))
    parser.add_argument(
        "--report", type=Path, metavar="FILE", default=REPORT, help=_("where --check writes its page")
    )
    options = parser.parse_args()
    console = Console(stderr=options.check)
    listen()
    try:
        with _folder(options.keep) as folder:
            return _check(folder, console, options.report) if options.check else _show(folder, console)
    except StoppedError:
        console.print(_("Stopped; no process is left."))
        return 130
    except (CityError, CheckFailedError, BuildError, OperatorError, ConsoleError, OSError) as error:
        console.print(f"[bold red]{_('Failed')}:[/] {error}", highlight=False)
        return 1


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    """Where everything lives: a folder to keep, or one that is gone afterwards."""
    if keep is not None:
        keep.mkdir(parents=True)
        yield keep.resolve()
        return
    folder = Path(tempfile.mkdtemp(prefix="argan-demo-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _check(folder: Path, console: Console, page_file: Path) -> int:
    def say(text: str) -> None:
        console.print(f"{time.strftime('%H:%M:%S')} {text}", highlight=False, soft_wrap=True)

    with running_city(folder, SEED, say) as city, Place(data=folder / "server").connect() as server:
        findings = check.run(city, Observer(server), say)
    wrong = check.failures(findings)
    Console().print(report.tables(findings))
    page_file.parent.mkdir(parents=True, exist_ok=True)
    page_file.write_text(page.render(findings, wrong), encoding="utf-8")
    Console().print(_("The same with plots: {file}").format(file=page_file.resolve()), soft_wrap=True)
    for line in wrong:
        console.print(f"[bold red]{line}[/]")
    return 1 if wrong else 0


def _show(folder: Path, console: Console) -> int:
    with console.status(_("Starting")) as status:

        def say(text: str) -> None:
            console.log(text)
            status.update(text)

        with running_city(folder, SEED, say) as city, Place(data=folder / "server").connect() as server:
            status.stop()
            _watch(city, Observer(server), console)
    return 0


def _watch(city: City, observer: Observer, console: Console) -> None:
    """Draw the city until the user quits, while the story tells itself."""
    story = _conductor(city)
    story.start()
    try:
        with _keys() as pressed, Live(console=console, screen=True, auto_refresh=False) as live:
            while not pressed("q", LOOK_EVERY_S):
                pause()
                city.mend()
                live.update(_screen(city, observer, story, console.height), refresh=True)
    finally:
        story.stop()


def _conductor(city: City) -> Child:
    command = (sys.executable, "-m", "use_cases.water_network.demo.conductor", "--folder", str(city.folder))
    return Child("conductor", command, city.folder / "logs" / "conductor.log")


def _screen(city: City, observer: Observer, story: Child, height: int) -> RenderableType:
    plant_s = (time.time() * 1000 - city.started_ms) / 1000 * plan.TIME_FACTOR
    told = story.log.read_text(errors="replace").splitlines()
    try:
        return view.city(observer.look(), plant_s, _note(plant_s, told), height)
    except ConsoleError as error:
        return str(error)


def _note(plant_s: float, told: list[str]) -> str:
    """What goes on: how the story was told last; the beginning, where nothing is told yet."""
    days = plant_s / 86_400
    if days < plan.WARM_UP_DAYS:
        return _(
            "The models gather history. On day {day} a leak of {size:.0f} L/s opens near {device}."
        ).format(day=plan.WARM_UP_DAYS, size=plan.LEAK_SIZE_LS, device=plan.LEAK_GUARD)
    if days < plan.LENGTH_DAYS:
        return told[-1] if told else ""
    return _("The simulated days are over; the plant stands still.")


@contextmanager
def _keys() -> Iterator[Pressed]:
    """Keys as they are pressed, without Enter; nothing is ever pressed where there is no terminal."""
    if not sys.stdin.isatty():
        yield _never
        return
    before = termios.tcgetattr(sys.stdin)
    # What was typed before counts too: a flush would lose the q of whoever was quick.
    tty.setcbreak(sys.stdin, termios.TCSADRAIN)
    try:
        yield _pressed
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _pressed(key: str, within_s: float) -> bool:
    ready, _writable, _failed = select.select([sys.stdin], [], [], within_s)
    return bool(ready) and sys.stdin.read(1) == key


def _never(_key: str, within_s: float) -> bool:
    pause(within_s)
    return False


if __name__ == "__main__":
    sys.exit(main())
