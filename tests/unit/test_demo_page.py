"""The page at the end of a check: self-contained, escaped, and true to what was found."""

import re

import pytest

pytest.importorskip("wntr")

from hil.account import account
from use_cases.water_network.demo import page, plan, plots
from use_cases.water_network.demo.findings import Findings, Refused, Rollout, Sample

STARTED_MS = 1_000_000
DAY_MS = 19_200


def escalation(device: str, day: float, label: str) -> dict[str, object]:
    received = STARTED_MS + int(day * DAY_MS)
    return {
        "device": device,
        "id": f"{device}{day}",
        "received_ms": received,
        "answered_ms": received + 45,
        "state": "answered" if label else "refused",
        "label": label,
        "confidence": 0.9,
        "answered_by": "leak_zone 1.0.0",
    }


@pytest.fixture
def findings() -> Findings:
    found = Findings(STARTED_MS)
    found.counts = {"readings": 10, "inferences": 5, "events": 2, "lost_records": 0, "refused": 0}
    found.leak_event = {"device": plan.LEAK_GUARD, "time_ms": STARTED_MS + 10 * DAY_MS, "name": "leak"}
    found.memory_mib = {"gw-1": 31.0, "gw-2": 44.0}
    found.kills_ms = {"gw-149": [STARTED_MS + 5]}
    found.accounts = [account("gw-149", 2, [(1, 100), (2, 200)], [], {"flow": 2})]
    found.latencies_ms = [12, 12, 80, 900]
    found.pressures = {
        device: [(STARTED_MS + at * DAY_MS, 30.0 + at) for at in range(14)] for device in page.SHOWN
    }
    found.scores = {device: [(STARTED_MS + 9 * DAY_MS, 0.2)] for device in page.SHOWN}
    found.escalations = [
        escalation("gw-207", 8.5, "none"),
        escalation("gw-207", 9.5, "gw-149"),
        escalation("gw-213", 9.6, ""),
    ]
    went = Rollout(
        "1", "model pressure_leak", plan.BAD, "1.1.1", plan.GROUP, "more <training>", "failed", "1 failed"
    )
    went.samples = [Sample(0, {"waiting": 6}), Sample(2_000, {"failed": 1, "withdrawn": 5})]
    went.failures = {"gw-213": "golden inputs & outputs differ"}
    found.rollouts = [went]
    found.refusals = [Refused(STARTED_MS + 13 * DAY_MS, "gw-213", "image", "replayed", "timestamp is <old>")]
    return found


def test_it_stands_alone_and_escapes_what_it_shows(findings: Findings) -> None:
    html = page.render(findings, [])
    assert not re.search(r"(https?:|src=|href=|url\(|@import|<script)", html)
    assert "golden inputs &amp; outputs differ" in html
    assert "more &lt;training&gt;" in html
    assert "timestamp is &lt;old&gt;" in html
    assert "light-dark(" in html


def test_it_tells_how_often_the_center_was_right_while_the_leak_was_open(findings: Findings) -> None:
    html = page.render(findings, [])
    assert "3 questions, 2 of them with the leak open" in html
    assert "1 of 2" in html
    assert "gw-149 ×1, refused ×1" in html


def test_it_says_what_was_wrong(findings: Findings) -> None:
    assert "no reading was lost" in page.render(findings, [])
    html = page.render(findings, ["gw-1: 3 readings lost"])
    assert "gw-1: 3 readings lost" in html
    assert "no reading was lost" not in html


def test_a_refusal_comes_with_its_next_step(findings: Findings) -> None:
    assert "publish anew so that versions grow" in page.render(findings, [])


def test_a_rollout_curve_stacks_its_devices(findings: Findings) -> None:
    drawn = plots.rollout(findings.rollouts[0])
    heights = [float(height) for height in re.findall(r'height="([0-9.]+)" fill', drawn)]
    waiting, *after = heights
    assert sum(after) == pytest.approx(waiting, abs=0.2)
    assert after[0] == pytest.approx(5 * after[1], abs=0.5)


def test_every_latency_is_in_one_bar(findings: Findings) -> None:
    drawn = plots.latencies(findings.latencies_ms)
    heights = [float(height) for height in re.findall(r'height="([0-9.]+)" fill', drawn)]
    assert sum(heights) == pytest.approx(4 * max(heights) / 2, rel=0.05)


def test_thinning_keeps_the_extremes() -> None:
    values = [(at, float(at % 7)) for at in range(50_000)]
    values[31_337] = (31_337, 99.0)
    thinned = plots.thin(values)
    assert len(thinned) <= plots.MOST_POINTS + 2
    assert (31_337, 99.0) in thinned
    assert [at for at, _value in thinned] == sorted(at for at, _value in thinned)


def test_nothing_measured_is_no_error(findings: Findings) -> None:
    findings.pressures, findings.scores, findings.latencies_ms, findings.rollouts = {}, {}, [], []
    assert "<svg" in page.render(findings, [])
