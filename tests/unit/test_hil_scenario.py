"""Scenario files: what is wrong is told with its line."""

from pathlib import Path

import pytest

from hil.errors import ScenarioError
from hil.lines import line_of
from hil.scenario import Await, Kill, by_name, every, load

GOOD = """\
format = 1
name = "a-scenario"
title = "A title"
promise = "A promise"
rigs = ["simulated"]

[[devices]]
name = "gw-1"

[[steps]]
do = "kill"
what = "agent"
device = "gw-1"

[[steps]]
do = "await"
what = "fresh"
"""


def written(folder: Path, text: str) -> Path:
    file = folder / "scenario.toml"
    file.write_text(text)
    return file


def test_every_shipped_scenario_loads_under_a_name_of_its_own() -> None:
    names = [scenario.name for scenario in every()]
    assert len(names) == len(set(names)) >= 7


def test_a_good_scenario_loads(tmp_path: Path) -> None:
    scenario = load(written(tmp_path, GOOD))
    assert isinstance(scenario.steps[0], Kill)
    assert isinstance(scenario.steps[1], Await)


@pytest.mark.parametrize(
    ("before", "after", "line", "says"),
    [
        ('do = "kill"', 'do = "explode"', 11, "explode"),
        ('what = "agent"', 'what = "printer"', 12, "printer"),
        ('what = "fresh"', 'what = "fresh"\nwithin_s = -1', 18, "0"),
        ('what = "fresh"', 'what = "fresh"\nwithin = 3', 15, "within"),
        ('device = "gw-1"', 'device = "gw-9"', 10, "no device 'gw-9'"),
        ('device = "gw-1"', "", 10, "'device' goes with"),
        ('name = "gw-1"', 'name = "GW 1"', 8, "regex"),
        ('rigs = ["simulated"]', 'rigs = ["moon"]', 5, "moon"),
        ('title = "A title"', 'title = ""', 3, "length"),
        ('do = "kill"\nwhat = "agent"\ndevice = "gw-1"', 'do = "link"\nloss = 0.5', 10, "namespace"),
        ('do = "kill"\nwhat = "agent"', 'do = "disk"\nfull = true', 10, "disk_mib"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(
    tmp_path: Path, before: str, after: str, line: int, says: str
) -> None:
    assert before in GOOD
    file = written(tmp_path, GOOD.replace(before, after, 1))
    with pytest.raises(ScenarioError) as caught:
        load(file)
    assert str(caught.value).startswith(f"{file}:{line}: ")
    assert says in str(caught.value)


def test_two_devices_of_one_name_are_refused(tmp_path: Path) -> None:
    file = written(tmp_path, GOOD.replace("[[steps]]", '[[devices]]\nname = "gw-1"\n\n[[steps]]', 1))
    with pytest.raises(ScenarioError, match=r":11: two devices are named 'gw-1'"):
        load(file)


@pytest.mark.parametrize("text", ["format = ", "\x00", "name = 'x'\nname = 'y'"])
def test_what_is_no_toml_is_told_as_that(tmp_path: Path, text: str) -> None:
    with pytest.raises(ScenarioError, match="no TOML"):
        load(written(tmp_path, text))


def test_a_file_that_is_missing_and_a_name_that_is_unknown(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="No such file"):
        load(tmp_path / "nowhere.toml")
    with pytest.raises(ScenarioError, match="there are: "):
        by_name(["nothing-of-the-kind"])


def test_a_missing_key_is_placed_at_its_table() -> None:
    assert line_of(GOOD, "$.steps[1].within_s") == 15
    assert line_of(GOOD, "$.nothing") == 1
