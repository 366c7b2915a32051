"""The console on site: a real agent's socket, its sensors read, its bundle written, its refusals told."""

import tarfile
from collections.abc import Callable
from pathlib import Path

from textual.widgets import Button, Input

from fleet_console.sources.local import Agent
from tests.support.agents import AgentProcess, recording, replay_section
from tests.support.console import ShownAgent, console, driven, screen, shows, told, until, way
from tests.support.waiting import free_port, wait_until

Start = Callable[..., AgentProcess]


@driven
async def test_at_the_cabinet(start_agent: Start, tmp_path: Path) -> None:
    section = replay_section(recording(tmp_path / "r.csv", 100_000), interval_s=0.05)
    agent = start_agent("gw-01", free_port(), section)
    wait_until((agent.data / "agent.sock").exists, "the socket")
    async with console(Agent(agent.data / "agent.sock")).run_test(size=(80, 24)) as pilot:
        await until(pilot, shows(pilot, "○ no link to the broker", "flow", "l/s", "✓ good"), "its values")
        assert way(pilot) == ["argan", "gw-01"]
        await pilot.press("r")
        await until(pilot, shows(pilot, "recording, read at 14:02:09"), "read now")
        await pilot.press("escape", "d")
        await until(
            pilot, lambda: "not available in this agent" in told(pilot) or "checks" in screen(pilot), "doctor"
        )
        await pilot.press("escape", "b")
        await until(pilot, lambda: isinstance(pilot.app.focused, Input), "where to")
        bundle = tmp_path / "b.tar.gz"
        pilot.app.focused.value = str(bundle)  # type: ignore[union-attr]
        await pilot.press("enter")
        await until(pilot, shows(pilot, "Support bundle", "tell them its id"), "written")
        with tarfile.open(bundle) as archive:
            assert "status.json" in archive.getnames()
        await pilot.press("escape", "3")
        await until(pilot, shows(pilot, "Nothing was raised"), "its events")
        agent.kill()
        await pilot.press("1")
        await until(pilot, shows(pilot, "▲ No answer", "check that it runs"), "nobody answers")


@driven
async def test_an_update_is_applied_only_after_a_yes() -> None:
    agent = ShownAgent()
    async with console(agent).run_test(size=(80, 24)) as pilot:
        await until(pilot, shows(pilot, "linked"), "its page")
        await pilot.press("u")
        await until(pilot, lambda: isinstance(pilot.app.focused, Input), "which")
        await pilot.press(*"media/update.tar", "enter")
        await until(
            pilot, shows(pilot, "Nothing restarts", "/media/update.tar", "on probation first"), "what it cuts"
        )
        assert pilot.app.focused is pilot.app.screen.query_one("#cancel", Button)
        await pilot.press("enter")
        await until(pilot, lambda: "Nothing restarts" not in screen(pilot), "cancelled")
        assert agent.asked == []
        await pilot.press("u")
        await until(pilot, lambda: isinstance(pilot.app.focused, Input), "which")
        await pilot.press(*"u.tar", "enter")
        await until(pilot, shows(pilot, "Nothing restarts"), "what it cuts")
        await pilot.press("right", "enter")
        await until(pilot, lambda: agent.asked == [("apply", "/u.tar")], "asked for")
        await until(pilot, lambda: "not available" in told(pilot), "and its refusal told")


@driven
async def test_one_of_several_sensors_is_chosen() -> None:
    agent = ShownAgent()
    async with console(agent).run_test(size=(80, 24)) as pilot:
        await until(pilot, shows(pilot, "linked"), "its page")
        await pilot.press("r")
        await until(pilot, shows(pilot, "Which sensor?", "cabinet", "pump"), "the choice")
        await pilot.press("down", "enter")
        await until(pilot, shows(pilot, "pump, read at 14:02:09", "21.4"), "read")
        assert agent.asked == [("read", "pump")]
        await pilot.press("escape", "2")
        await until(pilot, lambda: "only with a server" in told(pilot), "why there are no devices here")


@driven
async def test_nobody_at_the_socket(tmp_path: Path) -> None:
    async with console(Agent(tmp_path / "agent.sock")).run_test(size=(80, 24)) as pilot:
        await until(pilot, shows(pilot, "▲ No answer since 14:02:09", "no agent answers at"), "the banner")
