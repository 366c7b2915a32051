"""What the doctor makes of figures: each threshold from both sides, and the page that a person reads."""

import dataclasses
import datetime as dt
from pathlib import Path

import pytest

from edge_agent.allowance import Allowance
from edge_agent.errors import ConfigError
from edge_agent.identity.identity import Identity
from edge_agent.service import doctor
from edge_agent.service.board import Board
from edge_agent.service.doctor import Finding
from edge_agent.service.probes import CommitSpeed
from firmware_profiles.schema import load
from fleet_protocol.manifest import Runtime

NOW = dt.datetime(2026, 11, 24, tzinfo=dt.UTC)
NOW_MS = int(NOW.timestamp() * 1000)
ZERO = Allowance(load("raspberry-pi-zero-2-w"), 0, 10.0)
BOARD = Board(machine="aarch64", cores=4, memory_mib=420, available_mib=160, has_rtc=False, has_watchdog=True)


def certificate(days: float) -> Finding:
    """One of thirty days, of which so many are left."""
    ends = NOW + dt.timedelta(days=days)
    begins = ends - dt.timedelta(days=30)
    identity = Identity("gw-1", Path("ca"), Path("cert"), Path("key"), begins, ends, "1f")
    return doctor.certificate(identity, NOW_MS, "")


@pytest.mark.parametrize(
    ("available_mib", "own_mib", "ok"), [(160, 0, True), (159, 0, False), (100, 60, True)]
)
def test_memory(available_mib: int, own_mib: int, ok: bool) -> None:
    board = dataclasses.replace(BOARD, available_mib=available_mib)
    assert doctor.memory(board, own_mib, ZERO).ok == ok


@pytest.mark.parametrize(("free_mib", "used_mib", "ok"), [(300, 0, True), (299, 0, False), (100, 200, True)])
def test_disk(free_mib: int, used_mib: int, ok: bool) -> None:
    assert doctor.disk(free_mib, used_mib, 300).ok == ok


@pytest.mark.parametrize(
    ("median_ms", "interval_s", "ok"), [(250, 1.0, True), (251, 1.0, False), (2500, 10.0, True)]
)
def test_commits(median_ms: float, interval_s: float, ok: bool) -> None:
    """The worst alone is no reason: one slow commit among twenty is a busy card."""
    assert doctor.commits(CommitSpeed(median_ms, 60_000), interval_s).ok == ok


@pytest.mark.parametrize(("days", "ok"), [(30, True), (3.1, True), (2.9, False), (-0.1, False)])
def test_certificate(days: float, ok: bool) -> None:
    assert certificate(days).ok == ok


def test_a_device_that_knows_nowhere_to_renew_is_told_so() -> None:
    assert doctor.renewal("https://fleet.example:8443").ok
    finding = doctor.renewal(None)
    assert not finding.ok
    assert "[server]" in finding.next_step


def test_dates_are_not_judged_by_a_clock_that_nobody_believes() -> None:
    identity = Identity("gw-1", Path("ca"), Path("cert"), Path("key"), NOW, NOW, "1f")
    finding = doctor.certificate(identity, 0, "it shows 1970")
    assert finding.ok
    assert "cannot be judged" in finding.text


@pytest.mark.parametrize(
    ("faults", "needed", "oks"),
    [
        ({Runtime.LITERT: "", Runtime.OPENVINO: None}, True, [True]),
        ({Runtime.LITERT: "", Runtime.OPENVINO: "no libopenvino.so"}, True, [False, True]),
        ({Runtime.LITERT: None}, True, [False]),
        ({Runtime.LITERT: None}, False, [True]),
        ({Runtime.LITERT: "no libc.so"}, True, [False, False]),
    ],
)
def test_runtimes(faults: dict[Runtime, str | None], needed: bool, oks: list[bool]) -> None:
    assert [finding.ok for finding in doctor.runtimes(faults, needed=needed)] == oks


def test_a_missing_runtime_says_what_it_needs() -> None:
    (finding,) = doctor.runtimes({Runtime.TFLITE: None}, needed=True, needs=load("tflite-64").runtimes.needs)
    assert finding.next_step.startswith("Install 'argan[tflite]'. It needs tflite: Python 3.11, numpy < 2")


def test_an_errors_remedy_becomes_the_next_step() -> None:
    finding = doctor.from_error("sensors", ConfigError("plc: no file a;b.csv; correct 'path'"))
    assert (finding.text, finding.next_step) == ("plc: no file a;b.csv", "Correct 'path'.")
    assert doctor.from_error("model", ConfigError("spoiled")).next_step


def test_the_page_has_a_line_each_and_a_last_word() -> None:
    found = [doctor.well("disk", "room enough"), doctor.ill("certificate", "expired", "Enroll again.")]
    assert doctor.table(found).splitlines() == [
        "ok   disk         room enough",
        "BAD  certificate  expired",
        "                  → Enroll again.",
        "",
        "1 to mend.",
    ]
    assert doctor.table(found[:1]).endswith("\n\nNothing is wrong.\n")
