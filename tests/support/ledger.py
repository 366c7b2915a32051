"""What the attack suite tried, counted over all test processes, and said at the end of a run.

A test marked ``attack`` counts as one case, or as many as it records with the fixture ``tried``. A skipped
attack proves nothing, so it fails the run.
"""

from collections.abc import Callable
from typing import Any

import pytest

MARKER = "attack"
_CASES = "attack_cases"

Tried = Callable[[int], None]


class Ledger:
    """Adds up the cases; a plugin of the process that reports."""

    def __init__(self) -> None:
        self.refused = self.got_in = 0
        self.skipped: list[str] = []

    @pytest.hookimpl
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count a test's cases once it is over."""
        properties: dict[str, Any] = dict(report.user_properties)
        if MARKER not in properties:
            return
        if report.skipped:
            self.skipped.append(report.nodeid)
        elif report.failed:
            self.got_in += 1
        elif report.when == "call":
            self.refused += properties.get(_CASES, 1)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail a run in which an attack was not tried."""
        if self.skipped and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    @pytest.hookimpl
    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Say what was tried."""
        tried = self.refused + self.got_in
        if not tried and not self.skipped:
            return
        terminalreporter.section("attacks")
        terminalreporter.line(
            f"{tried} cases tried, {self.refused} refused, {self.got_in} failed, {len(self.skipped)} skipped"
        )
        for name in self.skipped:
            terminalreporter.line(f"not tried: {name}")


def mark_case(item: pytest.Item) -> None:
    """Let the report of an attack say that it is one, in whichever process it runs."""
    if item.get_closest_marker(MARKER):
        item.user_properties.append((MARKER, True))


def recorder(request: pytest.FixtureRequest) -> Tried:
    """Adds to the number of cases that a test has tried, which is one where it never says."""
    properties = request.node.user_properties
    total = 0

    def tried(cases: int) -> None:
        nonlocal total
        total += cases
        properties[:] = [each for each in properties if each[0] != _CASES] + [(_CASES, total)]

    return tried
