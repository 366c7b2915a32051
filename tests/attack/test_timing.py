"""How long a token check takes tells nothing of how much of a token is right."""

import secrets
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from fleet_server.access.tokens import identify
from tests.support.centre import make_centre
from tests.support.ledger import Tried

pytestmark = pytest.mark.attack

ROUNDS = 400
TOLERANCE = 0.15
"""Of the median. A comparison byte by byte in Python differs by less; what is looked for is a second query,
or a slow hash that only known names get."""

ATTEMPTS = 5


@pytest.fixture
def place(tmp_path: Path) -> Iterator[tuple[Engine, str, str]]:
    engine, config = make_centre(tmp_path / "data")
    yield engine, config.tenant, config.token.read_text().strip()
    engine.dispose()


def medians(first: Callable[[], object], second: Callable[[], object]) -> tuple[float, float]:
    """Median times of both in seconds, taken in turns so that the machine's moods hit both alike."""
    times: tuple[list[float], list[float]] = ([], [])
    for _round in range(ROUNDS):
        for kept, act in zip(times, (first, second), strict=True):
            began = time.perf_counter()
            act()
            kept.append(time.perf_counter() - began)
    return statistics.median(times[0]), statistics.median(times[1])


def test_a_nearly_right_token_takes_as_long_as_a_wrong_one(
    place: tuple[Engine, str, str], tried: Tried
) -> None:
    engine, tenant, right = place
    last = "A" if right[-1] != "A" else "B"
    nearly = right[:-1] + last
    wrong = secrets.token_urlsafe(32)
    for _attempt in range(ATTEMPTS):
        near, far = medians(
            lambda: identify(engine, tenant, nearly, "x"), lambda: identify(engine, tenant, wrong, "x")
        )
        tried(2 * ROUNDS)
        if abs(near / far - 1) < TOLERANCE:
            return
    pytest.fail(f"a nearly right token takes {near / far:.2f} times as long")
