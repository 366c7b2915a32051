"""The console over a real server's API: what it shows, where keys lead, what it says when nobody answers."""

import time
from collections.abc import Iterator

import msgspec
import pytest
from fastapi import FastAPI
from sqlalchemy import Engine
from textual.widgets import Input

from fleet_console.screens.device import DeviceScreen
from fleet_console.screens.devices import DevicesScreen
from fleet_console.screens.overview import OverviewScreen
from fleet_console.sources.fleet import Fleet
from fleet_console.sources.http import Access
from fleet_protocol.messages import (
    ClockState,
    Event,
    Events,
    HealthReport,
    Inference,
    Metric,
    ModelReport,
    Quality,
    Reading,
    Reported,
    SensorReport,
    Severity,
    SpoolReport,
    Status,
    Telemetry,
    UpdateReport,
)
from fleet_protocol.topics import Channel
from fleet_server.telemetry.store import Store
from tests.support.batches import BOOT, EPOCH, arrival, base, register
from tests.support.centre import answering, make_centre, now_ms
from tests.support.console import (
    ShownFleet,
    asks,
    console,
    driven,
    rows,
    screen,
    shows,
    text_of,
    told,
    until,
    way,
)
from tests.support.rollout_answers import rollout_server, serving

NOW_MS = time.time_ns() // 1_000_000


def _telemetry() -> Telemetry:
    readings = [Reading(0, -1000 * number, 20.0 + number) for number in reversed(range(30))]
    readings.append(Reading(1, 0, None, Quality.BAD))
    inference = Inference(-500, "pressure_leak", "1.2", "leak", 0.91, 0.77, 341, uncertain=True)
    metrics = [Metric(0, "flow", "l/s"), Metric(1, "pressure", "bar")]
    return Telemetry(EPOCH, 1, base(NOW_MS), metrics, readings, [inference])


def _reported() -> Reported:
    model = ModelReport(
        name="pressure_leak", version="1.2", release=3, digest="d", runtime="litert", isolation="worker",
        policy="leak_watch 2",
    )  # fmt: skip
    update = UpdateReport(
        kind="model", name="pressure_leak", release=4, version="1.3", state="failed", since_wall_ms=NOW_MS,
        installed=3, refusal="wrong_hardware", detail="needs 512 MiB",
    )  # fmt: skip
    return Reported(
        agent="argan-0.1.0", profile="simulated", boot_id=BOOT, epoch=EPOCH, wall_ms=NOW_MS,
        clock=ClockState.TRUSTED, sensors=[SensorReport(name="cabinet", kind="modbus", metrics=["flow"])],
        models=[model], health=[HealthReport(code="sensor.timeout", since_wall_ms=NOW_MS, detail="[b]pump")],
        spool=SpoolReport(batches=12, bytes=48_200, dropped_records=7), updates=[update],
    )  # fmt: skip


@pytest.fixture(scope="module")
def access(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Access]:
    """A server that has heard of three devices, one of which is ill and has raised an event."""
    engine, config = make_centre(tmp_path_factory.mktemp("centre") / "data")
    register(engine, "gw-canal-01", "gw-hill-01", "gw-hill-02")
    _tell(engine)
    with answering(engine, config) as client:
        yield Access(str(client.base_url), config.token.read_text().strip())
    engine.dispose()


def _tell(engine: Engine) -> None:
    # Now, and not when this file was read: a device that is not heard for minutes is silent.
    heard_ms = now_ms()
    store = Store(engine)
    status = Status(online=True, boot_id=BOOT, epoch=EPOCH, agent="argan-0.1.0", wall_ms=NOW_MS)
    raised = Event(0, "leak", Severity.CRITICAL, "a leak [bold]here", "leak_watch", {"score": 0.91})
    outcome = store.commit(
        [
            arrival(status, "gw-hill-01", Channel.STATUS, received_ms=heard_ms),
            arrival(
                msgspec.structs.replace(status, online=False),
                "gw-canal-01",
                Channel.STATUS,
                received_ms=heard_ms,
            ),
            arrival(_reported(), "gw-hill-01", Channel.REPORTED, received_ms=heard_ms),
            arrival(_telemetry(), "gw-hill-01", received_ms=heard_ms),
            arrival(Events(EPOCH, 1, base(NOW_MS), [raised]), "gw-hill-01", received_ms=heard_ms),
        ]
    )
    assert outcome.refused == 0
    store.close()


@driven
async def test_from_the_overview_to_the_cause_and_back(access: Access) -> None:
    async with console(Fleet(access)).run_test(size=(80, 24)) as pilot:
        await until(pilot, shows(pilot, "● online", "gw-hill-01", "Sensor does not answer"), "the overview")
        assert way(pilot) == ["argan", "overview"]
        await pilot.press("enter")
        await until(pilot, shows(pilot, "flow", "l/s", "✓ good", "✗ bad"), "the device's values")
        assert way(pilot) == ["argan", "overview", "gw-hill-01"]
        await pilot.press("tab")
        await until(pilot, shows(pilot, "→ Check power, cable", "[b]pump"), "its health")
        await pilot.press("tab")
        await until(
            pilot, shows(pilot, "pressure_leak 1.2", "leak_watch 2", "77% sure", "? uncertain"), "models"
        )
        await pilot.press("tab")
        await until(pilot, shows(pilot, "refused (wrong_hardware)", "needs 512 MiB"), "updates")
        await pilot.press("tab")
        await until(pilot, shows(pilot, "12 batches, 48.2 kB", "7 records ever dropped"), "the agent")
        await pilot.press("shift+tab", "escape")
        await until(pilot, lambda: isinstance(pilot.app.screen, OverviewScreen), "back")
        await pilot.press("escape")
        assert isinstance(pilot.app.screen, OverviewScreen)


@driven
async def test_a_wide_terminal_shows_all_parts_at_once(access: Access) -> None:
    async with console(Fleet(access)).run_test(size=(120, 40)) as pilot:
        await pilot.press("2")
        await until(pilot, lambda: rows(pilot) == ["gw-canal-01", "gw-hill-01", "gw-hill-02"], "the devices")
        await pilot.press("down", "enter")
        await until(
            pilot, shows(pilot, "Values", "Health", "Models", "Updates", "Agent", "flow, the last 30"), "all"
        )
        await pilot.resize_terminal(80, 24)
        await until(pilot, lambda: "No answer within" not in screen(pilot), "one part alone")


@driven
async def test_filter_and_sort(access: Access) -> None:
    async with console(Fleet(access)).run_test(size=(80, 24)) as pilot:
        await pilot.press("2")
        await until(pilot, lambda: len(rows(pilot)) == 3, "the devices")
        await pilot.press("slash", *"hill")
        await until(pilot, lambda: rows(pilot) == ["gw-hill-01", "gw-hill-02"], "narrowed while typing")
        await pilot.press("space", *"!online", "enter")
        await until(pilot, lambda: rows(pilot) == ["gw-hill-02"], "and inverted")
        assert "1 of 3 pass the filter" in text_of(pilot, "#tally")
        await pilot.press("escape")
        await until(pilot, lambda: len(rows(pilot)) == 3, "taken away")
        assert isinstance(pilot.app.screen, DevicesScreen)
        await pilot.press("slash", *"~gc1", "enter")
        await until(pilot, lambda: rows(pilot) == ["gw-canal-01"], "fuzzy")
        await pilot.press("escape", "s", "s", "s")
        await until(pilot, lambda: rows(pilot)[0] == "gw-hill-01", "what ails comes first")


@driven
async def test_events_and_the_figures_behind_one(access: Access) -> None:
    async with console(Fleet(access)).run_test(size=(80, 24)) as pilot:
        await pilot.press("3")
        await until(pilot, shows(pilot, "■ critical", "a leak [bold]here"), "the event")
        await pilot.press("enter")
        await until(pilot, shows(pilot, "0.91", "raised by leak_watch"), "its figures")
        await pilot.press("escape", "escape", "1")
        await until(pilot, lambda: isinstance(pilot.app.screen, OverviewScreen), "back")


@driven
async def test_the_palette_finds_a_device_and_an_action(access: Access) -> None:
    async with console(Fleet(access)).run_test(size=(80, 24)) as pilot:
        await until(pilot, shows(pilot, "gw-hill-01"), "the overview")
        await pilot.press("colon", *"canal")
        await until(pilot, shows(pilot, "Open this device"), "the device is found")
        await pilot.press("down", "enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, DeviceScreen), "and opened")
        await pilot.press("ctrl+p", *"every dev")
        await until(pilot, shows(pilot, "Every device"), "the action is found")
        await pilot.press("down", "enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, DevicesScreen), "and done")


@driven
async def test_help_lists_the_keys_of_this_screen_first(access: Access) -> None:
    async with console(Fleet(access)).run_test(size=(80, 40)) as pilot:
        await pilot.press("2", "question_mark")
        await until(pilot, shows(pilot, "Devices (here)", "Sort by the next column", "Everywhere"), "help")
        await pilot.press("q")
        await until(pilot, lambda: isinstance(pilot.app.screen, DevicesScreen), "closed, not left")


@driven
async def test_a_device_that_is_not_there_is_told_in_the_servers_words(access: Access) -> None:
    async with console(Fleet(access)).run_test(size=(80, 24)) as pilot:
        pilot.app.open_device("gw-none")
        await until(pilot, shows(pilot, "There is no device 'gw-none'"), "the refusal")


@driven
async def test_a_wrong_token_is_a_banner_and_no_end(access: Access) -> None:
    async with console(Fleet(Access(access.url, "wrong"))).run_test(size=(80, 24)) as pilot:
        await until(pilot, shows(pilot, "The request carries no valid token"), "the refusal")
        assert "live" not in screen(pilot)


@driven
async def test_nobody_there_from_the_start() -> None:
    async with console(Fleet(Access("http://127.0.0.1:9", "t"))).run_test(size=(80, 24)) as pilot:
        await until(pilot, shows(pilot, "▲ No answer since 14:02:09", "nothing seen yet"), "the banner")


@driven
async def test_what_is_shown_grows_old_and_comes_back() -> None:
    """The clock stands still but for the hand of the test, so that the age is the test's to say."""
    fleet = ShownFleet()
    app = console(fleet)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, shows(pilot, "gw-hill-03", "● live 0 s"), "the overview")
        fleet.die()
        app.clock.at_s += 90  # type: ignore[attr-defined]
        await pilot.press("ctrl+r")
        await until(pilot, shows(pilot, "▲ No answer. What is shown is of 14:02:09, 1 min old"), "the banner")
        assert "gw-hill-03" in screen(pilot)
        assert "○ 1 min old" in screen(pilot)
        fleet.dead = None
        await pilot.press("ctrl+r")
        await until(pilot, shows(pilot, "● live 0 s"), "fresh again")
        assert "No answer" not in screen(pilot)


@driven
async def test_rollouts_are_steered_only_after_a_yes() -> None:
    with rollout_server() as server:
        async with console(Fleet(Access(server.url, "t"))).run_test(size=(80, 24)) as pilot:
            await pilot.press("4")
            await until(pilot, shows(pilot, "▶ running", "pressure_leak 1.3", "1/2"), "the list")
            await pilot.press("enter")
            await until(pilot, shows(pilot, "wave 1", "gw-01", "wave 2", "gw-02"), "its waves")
            await pilot.press("a")
            await until(
                pilot,
                asks(pilot, "Abort this rollout?", "pressure_leak 1.3 → group old-town"),
                "the question",
            )
            await pilot.press("enter")
            await until(pilot, lambda: "Abort this" not in screen(pilot), "cancelled")
            assert server.steps == []
            await pilot.press("r")
            await until(pilot, lambda: "there is nothing to resume" in told(pilot), "why not")
            await pilot.press("p")
            await until(pilot, asks(pilot, "Pause this rollout?"), "the question")
            await pilot.press("right", "enter")
            await until(pilot, shows(pilot, "‖ paused"), "paused")
            server.refusal = "it has just ended"
            await pilot.press("r")
            await until(pilot, asks(pilot, "Ask to resume this rollout?"), "the question")
            await pilot.press("tab", "enter")
            await until(pilot, lambda: "409" in told(pilot), "the server's refusal")
            assert server.steps == ["pause"]


@driven
async def test_a_server_without_rollouts_says_so() -> None:
    with serving(FastAPI()) as url:
        async with console(Fleet(Access(url, "t"))).run_test(size=(80, 24)) as pilot:
            await pilot.press("4")
            await until(pilot, shows(pilot, "This server has no rollouts yet.", "● answers"), "said so")


@driven
async def test_a_server_that_talks_nonsense_is_told() -> None:
    app = FastAPI()

    @app.get("/v1/devices")
    def devices() -> dict[str, object]:
        return {"items": [{"id": 4}], "next_after": None}

    with serving(app) as url:
        async with console(Fleet(Access(url, "t"))).run_test(size=(80, 24)) as pilot:
            await pilot.press("2")
            await until(pilot, shows(pilot, "not understood"), "the banner")


@driven
async def test_a_click_on_the_key_bar_presses_the_key(access: Access) -> None:
    async with console(Fleet(access)).run_test(size=(80, 24)) as pilot:
        await until(pilot, shows(pilot, "gw-hill-01"), "the overview")
        await pilot.click("#keys", offset=(14, 0))
        await until(pilot, lambda: isinstance(pilot.app.screen, DevicesScreen), "the devices")
        await pilot.press("slash")
        await until(pilot, lambda: isinstance(pilot.app.focused, Input), "the filter has the keyboard")
        await pilot.press("q")
        assert pilot.app.focused.value == "q"  # type: ignore[union-attr]
