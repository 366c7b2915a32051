"""The console's pure parts: filter, plots, freshness, marks, registry, and texts about a device."""

import math
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.text import Text
from textual.app import App, ComposeResult

from fleet_console.errors import ConsoleError, Unreachable
from fleet_console.screens import actions, device_texts, filters, looks, plots
from fleet_console.screens.actions import ACTIONS, EVERYWHERE
from fleet_console.screens.freshness import Failure, Look, banner
from fleet_console.screens.grid import Column, Grid
from fleet_console.screens.help import keys_in_words
from fleet_console.sources.base import Ability
from fleet_console.sources.views import (
    STATES,
    Device,
    DevicePage,
    Finding,
    Flow,
    Overview,
    Rollout,
    RolloutPage,
    Seen,
    Value,
    health_in_words,
    read,
)
from fleet_protocol.health import CATALOG
from fleet_protocol.messages import Quality, Severity
from fleet_protocol.targets import Refusal
from fleet_protocol.update_states import UpdateState
from tests.support.console import DEVICES, MINUTE, NOW, PAGE, StillClock, driven, health
from tests.support.fleet_server import fleet

FLEET, SITE = frozenset({Ability.FLEET}), frozenset({Ability.ON_SITE})


class TestFilter:
    @pytest.mark.parametrize(
        ("text", "line", "passes"),
        [
            ("", "anything", True),
            ("hill", "gw-HILL-01 online", True),
            ("hill online", "gw-hill-01 online", True),
            ("hill offline", "gw-hill-01 online", False),
            ("!hill", "gw-hill-01", False),
            ("!hill", "gw-canal-01", True),
            ("^gw-c.*2", "gw-canal-02", True),
            ("(", "gw (old)", True),
            ("(", "gw", False),
            ("!(", "gw", True),
            ("~gc2", "gw-canal-02", True),
            ("~g2c", "gw-canal-02", False),
            ("!~gc2", "gw-canal-02", False),
            ("!", "wow!", True),
            ("~", "about ~5", True),
        ],
    )
    def test_the_grammar(self, text: str, line: str, passes: bool) -> None:
        assert filters.compiled(text)(line) is passes

    @given(st.text(max_size=30), st.text(max_size=30))
    def test_any_text_is_a_filter(self, text: str, line: str) -> None:
        assert filters.compiled(text)(line) in {True, False}


NUMBERS = st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=300)


class TestPlots:
    def test_a_line_of_blocks_is_scaled_to_what_it_shows(self) -> None:
        assert plots.spark([9, 0, 7, 0, 7], 4) == "▁█▁█"
        assert plots.spark([0, 7, math.nan, 7], 6) == "  ▁█ █"
        assert plots.spark([5, 5], 2) == "▄▄"
        assert plots.spark([], 3) == plots.spark([math.nan], 3) == "   "

    def test_a_bar_is_as_long_as_its_share(self) -> None:
        assert plots.bar(0.5, 4) == ("━━", "──")
        assert plots.bar(0.4, 4) == ("━╸", "──")
        assert plots.bar(-1, 4) == ("", "────")
        assert plots.bar(7, 4) == ("━━━━", "")

    def test_a_curve_goes_from_corner_to_corner(self) -> None:
        lines = plots.curve([0, 1, 2, 3, 4, 5, 6, 7], 4, 2)
        assert lines == ["⠀⠀⡠⠊", "⡠⠊⠀⠀"]

    def test_a_step_does_not_break_it_and_a_hole_does(self) -> None:
        assert plots.curve([0, 3], 1, 1) == ["⡸"]
        assert plots.curve([0, math.nan, 3, 3], 2, 1) == ["⡀⠉"]

    @given(NUMBERS, st.integers(0, 80), st.integers(0, 6))
    def test_any_numbers_fill_the_room_they_are_given(
        self, values: list[float], width: int, height: int
    ) -> None:
        assert len(plots.spark(values, width)) == width
        assert [len(line) for line in plots.curve(values, width, height)] == [width] * height


def look(content: object, at_s: float = 1000.0) -> Look[object]:
    return Look(Seen(content, NOW), at_s, StillClock().wall())


class TestFreshness:
    def test_ages_go_on_growing_when_nobody_answers(self) -> None:
        seen = look(None)
        assert seen.age(NOW - 2000, 1000.0) == "2 s"
        assert seen.age(NOW - 2000, 1000.0 + 118) == "2 min"
        assert seen.age(None, 1000.0) == "-"

    def test_the_banner(self) -> None:
        wall = StillClock().wall()
        dead = Failure(Unreachable("nobody"), wall)
        assert banner(None, look(None), 1000.0) == ""
        assert "What is shown is of 14:02:09, 42 s old: nobody" in banner(dead, look(None), 1042.0)
        assert banner(dead, None, 0.0).startswith("No answer since 14:02:09: nobody")
        assert banner(Failure(ConsoleError("no token"), wall), look(None), 1000.0) == "no token"


class TestRegistry:
    @pytest.mark.parametrize("abilities", [FLEET, SITE], ids=["fleet", "site"])
    def test_a_key_does_one_thing_on_a_screen(self, abilities: frozenset[Ability]) -> None:
        for scope in {action.scope for action in ACTIONS}:
            keys = Counter(key for action in actions.of(scope, abilities) for key in action.keys.split(","))
            assert max(keys.values()) == 1, (scope, keys)

    def test_what_cannot_be_done_says_why(self) -> None:
        doctor = next(action for action in ACTIONS if action.name == "doctor")
        assert doctor.obstacle(SITE) == ""
        assert "--local" in doctor.obstacle(FLEET)
        assert doctor not in actions.of("device", FLEET)

    @pytest.mark.parametrize("abilities", [FLEET, SITE], ids=["fleet", "site"])
    def test_help_tells_every_action(self, abilities: frozenset[Ability]) -> None:
        text = keys_in_words("device", abilities).plain
        for action in ACTIONS:
            told = action.purpose in text
            assert told or (action.scope == EVERYWHERE and action.obstacle(abilities))
        assert text.index("Device (here)") < text.index("Everywhere")


class TestMarks:
    def test_every_state_has_its_own_shape_and_word(self) -> None:
        for marks in (
            [looks.state(each) for each in STATES],
            [looks.severity(each) for each in (None, *Severity)],
            [looks.quality(each) for each in Quality],
        ):
            assert len({mark.shape for mark in marks}) == len(marks)
            assert len({mark.word for mark in marks}) == len(marks)
        assert all(looks.update(state).shape != "?" for state in UpdateState)
        assert looks.state("from_the_future").word == "from the future"

    def test_a_refusal_is_told_in_words(self) -> None:
        for refusal in Refusal:
            assert all(looks.refusal(refusal))
        assert looks.refusal("unheard_of") == ("unheard_of", "")

    @pytest.mark.parametrize(
        ("size", "text"),
        [(0, "0 bytes"), (999, "999 bytes"), (1000, "1 kB"), (48_200, "48.2 kB"), (999_950, "1 MB"),
         (8_100_000, "8.1 MB"), (10**18, "1000000 TB")],
    )  # fmt: skip
    def test_sizes(self, size: int, text: str) -> None:
        assert looks.size(size) == text


class TestViews:
    def test_what_a_newer_server_says_beside_is_ignored(self) -> None:
        summary = {"id": "a", "site": None, "profile": "p", "state": "new", "created_ms": 1, "heard_ms": None,
                   "health": [], "color": "green"}  # fmt: skip
        assert read(summary, Device).heard_ms is None

    def test_what_is_no_answer_is_told(self) -> None:
        with pytest.raises(ConsoleError, match="not understood"):
            read({"id": 3}, Device)

    def test_a_rollouts_page_as_the_server_gives_it(self) -> None:
        member = {"id": "gw-1", "state": "assigned", "since_ms": 5, "presence": "offline", "is_holding": True,
                  "update": "", "done": 0, "size": 0, "refusal": "", "detail": ""}  # fmt: skip
        page = read(
            {
                "rollout": {"id": "r", "state": "running", "detail": "", "reason": "x", "group": "g",
                            "kind": "model", "name": "leak", "release": 2, "waves": ["10%", "100%"],
                            "max_failures": 1, "soak_s": 60, "created_ms": 1, "ended_ms": None,
                            "counts": {"waiting": 1, "assigned": 1, "done": 2}},
                "waves": [{"number": 1, "state": "open", "started_ms": 1, "ended_ms": None, "next_ms": None,
                           "devices": [member]}],
                "left_out": [],
            },
            RolloutPage,
        )  # fmt: skip
        assert (page.rollout.target, page.rollout.share) == ("leak 2", 0.5)
        assert page.waves[0].devices[0].is_holding
        assert Rollout(id="r", state="running").share == 0.0

    def test_the_most_severe_comes_first_and_knows_its_cause(self) -> None:
        found = health_in_words(
            [
                {"code": "link.down", "since_wall_ms": 1},
                {"code": "spool.dropping", "since_wall_ms": 2, "detail": "quota"},
                {"code": "no.such", "since_wall_ms": 3, "detail": "one"},
                {"code": "no.such", "since_wall_ms": 1, "detail": "other"},
            ]
        )
        assert [each.code for each in found] == ["spool.dropping", "link.down", "no.such"]
        assert found[0].explained_by == ("link.down",)
        assert (found[2].since_ms, found[2].detail) == (1, "one\nother")
        assert found[2].next_step.startswith("Update the console")

    def test_what_ails_most(self) -> None:
        overview = Overview(devices=DEVICES, server=(), flow=msgspec.convert(
            {"readings": 0, "events": 0, "lost_records": 0, "refused": 0}, Flow
        ))  # fmt: skip
        names = [device.id for device, _health in overview.ailing()]
        assert names == ["gw-hill-03", "gw-hill-02", "gw-hill-01", "gw-canal-02"]
        assert overview.counts()["online"] == 3


def age(time_ms: int | None) -> str:
    return look(None).age(time_ms, 1000.0)


class TestTextsOfADevice:
    def test_every_code_is_told_with_what_to_do_next(self) -> None:
        for code, entry in CATALOG.items():
            text = device_texts.health((health(code, MINUTE, "a detail"),), age).plain
            for part in (entry.title, entry.meaning, entry.next_step, "a detail", "1 min", code):
                assert part in text
        assert device_texts.health((), age).plain.startswith("✓ well")

    def test_desired_beside_what_runs(self) -> None:
        text = device_texts.updates(PAGE, age).plain
        assert "shall have  release 4 (1.3)  ≠ not yet" in text
        assert "runs        release 3" in text
        assert "42%" in text
        assert "shall have  release 2 (2)  ✓ it does" in text
        assert "refused (rollback): A lower release" in text
        assert "→ To go back on purpose" in text

    def test_a_device_that_never_reported(self) -> None:
        page = DevicePage(device=DEVICES[-1])
        assert "never heard" in device_texts.head(page, age).plain
        assert "not reported" in device_texts.agent(page, age).plain
        assert "No model" in device_texts.models(page, age).plain
        assert "No update" in device_texts.updates(page, age).plain
        assert device_texts.badges(page)["values"] == "0"

    def test_markup_in_what_a_device_says_stays_text(self) -> None:
        nasty = "[red]x[/red] [@click=app.quit]y[/]"
        assert nasty in device_texts.health((health("sensor.timeout", 1, nasty),), age).plain

    def test_what_is_wrong_comes_first_in_the_doctors_word(self) -> None:
        ok, bad = (
            Finding(code="a", ok=True, text="fine"),
            Finding(code="b", ok=False, text="ill", next_step="mend"),
        )
        text = device_texts.findings((ok, bad)).plain
        assert text.index("ill") < text.index("mend") < text.index("fine")
        assert "nothing is wrong" in device_texts.findings((ok,)).plain

    def test_a_value_that_is_none(self) -> None:
        value = Value(metric="m", unit="", value=None, quality=Quality.BAD, time_ms=0)
        assert looks.number(value) == "—"


@pytest.mark.parametrize(
    ("words", "word", "offered"),
    [("fleet cons", 1, "console"), ("fleet console --lo", 2, "--local"), ("fleet device ", 2, "list")],
)
def test_the_shell_completes_the_command(words: str, word: int, offered: str) -> None:
    """What ``fleet --install-completion`` puts into the shell asks exactly this."""
    asked = {"_FLEET_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(word)}
    done = subprocess.run(
        [Path(sys.executable).with_name("fleet")],
        env=os.environ | asked,
        capture_output=True,
        text=True,
        check=False,
    )
    assert offered in done.stdout.split()


def test_one_source_is_asked_for() -> None:
    for options in ([], ["--local", "/x/agent.sock", "--data", "/x"]):
        done = fleet("console", *options)
        assert (done.returncode, done.stdout) == (2, "")
        assert "give" in done.stderr.lower()


@driven
async def test_the_cursor_stays_with_its_row() -> None:
    """Whatever comes, goes, or is laid out anew."""

    def made(*names: str) -> dict[str, Callable[[], list[Text]]]:
        return {name: partial(lambda text: [Text(text)], name) for name in names}

    class Shown(App[None]):
        def compose(self) -> ComposeResult:
            yield Grid()

    async with Shown().run_test(size=(40, 10)) as pilot:
        grid = pilot.app.query_one(Grid)
        grid.lay_out([Column("A", 10)])
        grid.fill(made("a", "b", "c"))
        grid.choose("b")
        grid.fill(made("x", "a", "b", "c"))
        assert grid.chosen == "b"
        grid.lay_out([Column("A", 5)])
        grid.fill(made("x", "a", "b", "a longer name"))
        assert grid.chosen == "b"
        assert grid.get_row("a longer name")[0].plain == "a lo…"
        grid.fill(made("x"))
        assert grid.chosen == "x"
        grid.fill({})
        assert grid.chosen is None
