"""Runs as a page and as JUnit XML."""

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from hil import junit, report, runner
from hil.account import account
from hil.runner import Done, Run, Verdict, describe, run_one
from hil.scenario import Link, by_name
from hil.sights import Look


def finished() -> list[Run]:
    first, second = by_name(["bad-link", "stuck-sensor"])
    good = Run(first, "namespace", seconds=12.5)
    good.steps = [Done("cut <the> link", 1.0, 2.0, is_wait=False), Done("wait", 2.0, 12.0, is_wait=True)]
    good.looks = [Look(1.0, 10, ("gw-1",), ()), Look(5.0, 80, (), ("link.down",))]
    good.accounts = [account("gw-1", 2, [(1, 100), (2, 200)], [], {"flow": 2})]
    bad = Run(second, "simulated", Verdict.FAILED, "not seen & gone", 3.0)
    bad.steps = [Done("await", 0.0, 3.0, is_wait=True, problem="not seen & gone")]
    bad.logs = {"gw-1": "a <log>"}
    return [good, bad]


def test_the_page_stands_alone_and_escapes_what_it_shows() -> None:
    page = report.render(finished())
    assert "http://" not in page
    assert "src=" not in page
    assert "cut &lt;the&gt; link" in page
    assert "a &lt;log&gt;" in page
    assert "not seen &amp; gone" in page
    assert "80 values stored" in page
    assert "1 passed, 1 failed, 0 skipped" in page


def test_junit_counts_and_tells_why() -> None:
    suite = ET.fromstring(junit.render(finished()))
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("2", "1", "0")
    cases = suite.findall("testcase")
    assert [case.get("name") for case in cases] == ["bad-link", "stuck-sensor"]
    failure = cases[1].find("failure")
    assert failure is not None
    assert failure.get("message") == "not seen & gone"


def test_a_required_scenario_that_cannot_be_run_fails(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(runner, "why_not", lambda _rig: "no such thing here")
    (scenario,) = by_name(["bad-link"])
    run = run_one(scenario, "namespace", 1, lambda _text: None)
    assert (run.verdict, run.message) == (Verdict.FAILED, "no such thing here")


def test_a_step_tells_what_it_does() -> None:
    assert describe(Link(loss=0.5)) == "link loss=0.5"
    assert describe(Link(say="the link is bad")) == "the link is bad"
