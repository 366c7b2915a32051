"""How often the power was cut, counted over all test processes and said at the end of a run."""

from collections.abc import Callable
from typing import Any

import pytest

_PREFIX = "power cuts: "

Cuts = Callable[[str, int], None]


class CutCounts:
    """Adds up; a plugin of the process that reports."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    @pytest.hookimpl
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take over what a test that passed has counted."""
        if report.when == "call" and report.passed:
            properties: dict[str, Any] = dict(report.user_properties)
            counted = {what: count for what, count in properties.items() if what.startswith(_PREFIX)}
            self._counts |= {what.removeprefix(_PREFIX): count for what, count in counted.items()}

    @pytest.hookimpl
    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Say it."""
        if self._counts:
            terminalreporter.section("power cuts")
            for what, count in sorted(self._counts.items()):
                terminalreporter.line(f"{count:6} {what}")
            terminalreporter.line(f"{sum(self._counts.values()):6} in all; each came back and got there")


def recorder(request: pytest.FixtureRequest) -> Cuts:
    """Notes how many cuts of which kind a test has survived."""
    return lambda what, count: request.node.user_properties.append((_PREFIX + what, count))
