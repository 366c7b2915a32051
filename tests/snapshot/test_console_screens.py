"""How the console looks. After a change that is meant: pytest tests/snapshot --snapshot-update, and look."""

from collections.abc import Callable
from typing import Any

import pytest
from textual.pilot import Pilot

from tests.support.console import ShownAgent, ShownFleet, console, shows, until

NARROW = (80, 24)
WIDE = (120, 40)
Compare = Callable[..., bool]

FLEET: dict[str, tuple[tuple[str, ...], str]] = {
    "overview": ((), "gw-hill-03"),
    "devices": (("2",), "gw-spare-99"),
    "filtered": (("2", "slash", "h", "i", "l", "l", "enter"), "pass the filter"),
    "device": (("2", "down", "enter"), "l/s"),
    "events": (("3",), "leak"),
    "rollouts": (("4",), "leak_watch 2"),
    "rollout": (("4", "enter"), "wave 3"),
    "abort": (("4", "enter", "a"), "Cancel"),
    "proposals": (("5",), "device.assign"),
    "proposal": (("5", "enter"), "gw-hill-02"),
    "approve": (("5", "enter", "a"), "Cancel"),
    "help": (("2", "question_mark"), "What policies and agents raised"),
}
PARTS = {"health": 1, "models": 2, "updates": 3, "agent": 4}


def run(*keys: str, until_shown: str) -> Callable[[Pilot[None]], Any]:
    async def drive(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: pilot.app.screen.query_one("#body").display, "the first look")
        for key in keys:
            await pilot.press(key)
            await pilot.pause()
        await until(pilot, shows(pilot, until_shown), until_shown)

    return drive


@pytest.mark.parametrize("size", [NARROW, WIDE], ids=["80x24", "120x40"])
@pytest.mark.parametrize("name", list(FLEET))
def test_the_fleet(snap_compare: Compare, name: str, size: tuple[int, int]) -> None:
    keys, text = FLEET[name]
    assert snap_compare(console(ShownFleet()), terminal_size=size, run_before=run(*keys, until_shown=text))


@pytest.mark.parametrize("name", list(PARTS))
def test_a_part_of_a_device_on_a_narrow_terminal(snap_compare: Compare, name: str) -> None:
    keys = ("2", "enter", *["tab"] * PARTS[name])
    text = {
        "health": "sensor.timeout",
        "models": "uncertain",
        "updates": "shall have",
        "agent": "waiting",
    }
    drive = run(*keys, until_shown=text[name])
    assert snap_compare(console(ShownFleet()), terminal_size=NARROW, run_before=drive)


@pytest.mark.parametrize("size", [NARROW, WIDE], ids=["80x24", "120x40"])
def test_a_server_that_does_not_answer(snap_compare: Compare, size: tuple[int, int]) -> None:
    fleet = ShownFleet()
    app = console(fleet)

    async def drive(pilot: Pilot[None]) -> None:
        await run(until_shown="gw-hill-03")(pilot)
        fleet.die()
        app.clock.at_s += 42  # type: ignore[attr-defined]
        await pilot.press("ctrl+r")
        await until(pilot, shows(pilot, "No answer"), "the banner")

    assert snap_compare(app, terminal_size=size, run_before=drive)


@pytest.mark.parametrize("size", [NARROW, WIDE], ids=["80x24", "120x40"])
def test_on_site(snap_compare: Compare, size: tuple[int, int]) -> None:
    assert snap_compare(console(ShownAgent()), terminal_size=size, run_before=run(until_shown="linked"))


def test_what_the_doctor_found(snap_compare: Compare) -> None:
    drive = run("d", until_shown="Check the time service.")
    assert snap_compare(console(ShownAgent()), terminal_size=NARROW, run_before=drive)


@pytest.mark.parametrize("name", ["overview", "devices", "device", "abort"])
def test_without_color(snap_compare: Compare, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    keys, text = FLEET[name]
    app = console(ShownFleet())
    assert app.no_color
    assert snap_compare(app, terminal_size=NARROW, run_before=run(*keys, until_shown=text))
