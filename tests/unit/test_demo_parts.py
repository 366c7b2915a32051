"""Parts of the demonstration that need no city: configuration, policies, the view on a small terminal."""

import tomllib
from io import StringIO

import pytest

pytest.importorskip("wntr")

from rich.console import Console

from fleet_protocol.device_folder import skeleton, updates_section
from fleet_protocol.enrollment import Enrolled
from fleet_protocol.policy import parse
from use_cases.water_network.demo import plan, view
from use_cases.water_network.demo.devices import configured
from use_cases.water_network.demo.findings import Rollout
from use_cases.water_network.demo.journeys.rolling import write_down
from use_cases.water_network.demo.observe import CityView, DeviceView
from use_cases.water_network.demo.policies import PACK, in_fast_time


def test_a_device_has_terms_of_updates_at_the_speed_of_the_demonstration() -> None:
    urls = ("https://localhost:2", "https://localhost:2/v1/updates")
    given = Enrolled("gw-149", "simulated", "CERT", "CA", "localhost", 1, *urls, "{}", "{}")
    enrolled = skeleton(given, updates_section(given.updates_url, has_roots=True))
    config = tomllib.loads(configured(enrolled, plan.POSTS[1], 5020))
    assert config["updates"]["probation_windows"] == plan.PROBATION_WINDOWS
    assert config["updates"]["probation_s"] == plan.PROBATION_S
    assert config["sensors"][0]["unit"] == plan.POSTS[1].unit
    assert config["models"][0]["policy"] == "leak.toml"


@pytest.mark.parametrize("name", ["leak.toml", "leak_2.toml"])
def test_a_policy_in_fast_time_differs_in_its_budget_alone(name: str) -> None:
    text = (PACK / "policies" / name).read_text()
    before, after = tomllib.loads(text), tomllib.loads(in_fast_time(text))
    budget = after["escalation"].pop("budget")
    assert budget != before["escalation"].pop("budget")
    assert before == after
    assert parse(in_fast_time(text).encode()).escalation is not None


CODES = ("escalation.uncalibrated", "escalation.over_budget", "update.refused")


def city() -> CityView:
    devices = tuple(
        DeviceView(post, "online", 61.25, 120.5, 300, "1.1.0", "normal", 0.12, CODES) for post in plan.POSTS
    )
    counts = {"readings": 123_456, "events": 20, "lost_records": 0}
    events = tuple(
        {"device": "gw-149", "time_ms": 0, "name": name, "text": f"text of {name} " * 8}
        for name in ("leak", "update_refused", "burst", "leak")
    )
    rollout = {
        "name": "pressure_leak", "release": 2, "version": "1.1.0", "group": plan.GROUP, "state": "running",
        "counts": {"done": 1, "assigned": 2, "waiting": 3, "failed": 0}, "reason": "knows leaks elsewhere",
        "asked_by": "operator", "approved_by": ["anna"],
    }  # fmt: skip
    answer = {"device": "gw-207", "label": "gw-149", "confidence": 0.97, "answered_ms": 0}
    return CityView(1_000, devices, events, counts, 120.0, (1.0, 2.0), (), rollout, answer)


@pytest.mark.parametrize(("width", "height"), [(120, 40), (80, 24)])
def test_the_view_fits_the_terminal_and_tells_the_story(width: int, height: int) -> None:
    out = StringIO()
    console = Console(file=out, width=width, height=height, force_terminal=False)
    console.print(view.city(city(), 9.5 * 86_400, "a note", height))
    lines = out.getvalue().rstrip("\n").split("\n")
    assert len(lines) <= height
    assert max(map(len, lines)) <= width
    text = out.getvalue()
    assert "1 done 2 assigned 3 waiting" in text
    assert "asked by operator" in text
    assert "zone gw-149 (97%)" in text
    assert "refused  1.0 s ago  gw-149  update_refused" in text
    assert "gw-main litert" in text
    assert "1.1.0 normal" in text
    assert "q quits" in text


def test_a_rollout_is_written_down_as_it_moves() -> None:
    def page(state: str, *devices: tuple[str, str, str]) -> dict[str, object]:
        members = [{"id": i, "state": s, "update": u, "detail": f"{i} {s}"} for i, s, u in devices]
        return {"rollout": {"state": state, "detail": ""}, "waves": [{"devices": members}]}

    went = Rollout("1", "model pressure_leak", plan.WORSE, "1.1.2", plan.GROUP, "mended")
    on_trial = page("running", ("a", "assigned", "probation"), ("b", "waiting", ""))
    for moment in (
        on_trial,
        on_trial,
        page("failed", ("a", "failed", "rolled_back"), ("b", "withdrawn", "")),
    ):
        write_down(went, moment)
    assert [sample.counts for sample in went.samples] == [
        {"probation": 1, "waiting": 1},
        {"failed": 1, "withdrawn": 1},
    ]
    assert (went.state, went.failures, went.untouched) == ("failed", {"a": "a failed"}, ("b",))
