"""Keep, audit or escalate: the whole decision as a table, and what holds for every answer."""

import math
from datetime import UTC, date, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_protocol.buckets import TokenBucket
from fleet_protocol.errors import PolicyError
from fleet_protocol.escalation import Budget, Decision, Escalation, calibrated, decide
from fleet_protocol.policy import Policy, parse

MODEL = "a" * 64
OTHER = "b" * 64
DAY_MS = 86_400_000
ENDS_MS = int(datetime(2027, 6, 30, tzinfo=UTC).timestamp() * 1000)

TOML = f"""
format = 1
name = "leak"
version = "1"
release = 1
model = "pressure_leak"
[[rules]]
name = "leak"
when = "score > 0.5"
outcome = "event"
[escalation]
model_sha256 = "{MODEL}"
temperature = 1.5
threshold = 0.9
alpha = 0.05
delta = 0.1
n_cal = 500
"""


def escalation(**changes: Any) -> Escalation:
    fields: dict[str, Any] = {
        "model_sha256": MODEL,
        "temperature": 1.0,
        "threshold": 0.9,
        "alpha": 0.05,
        "delta": 0.1,
        "n_cal": 500,
        "expires": date(2027, 6, 30),
        "audit_share": 0.01,
    }
    return Escalation(**(fields | changes))


@pytest.mark.parametrize(
    ("confidence", "changes", "now_ms", "draw", "is_doubted", "decision"),
    [
        (0.95, {}, 0, 0.5, False, Decision.KEEP),
        (0.9, {}, 0, 0.5, False, Decision.KEEP),
        (0.89, {}, 0, 0.5, False, Decision.ESCALATE),
        (0.95, {}, 0, 0.0, False, Decision.AUDIT),
        (0.95, {}, 0, 0.01, False, Decision.KEEP),
        (0.89, {}, 0, 0.0, False, Decision.ESCALATE),
        (0.95, {"audit_share": 0.0}, 0, 0.0, False, Decision.KEEP),
        (0.95, {"audit_share": 1.0}, 0, 0.999, False, Decision.AUDIT),
        (0.95, {}, 0, 0.5, True, Decision.ESCALATE),
        (0.95, {"temperature": 3.0}, 0, 0.5, False, Decision.ESCALATE),
        (0.75, {"temperature": 0.5}, 0, 0.5, False, Decision.KEEP),
        (1.0, {"threshold": 1.01}, 0, 0.5, False, Decision.ESCALATE),
        (0.0, {"threshold": 0.0}, 0, 0.5, False, Decision.KEEP),
        (0.99, {"model_sha256": OTHER}, 0, 0.5, False, Decision.UNCALIBRATED),
        (0.01, {"model_sha256": OTHER}, 0, 0.0, False, Decision.UNCALIBRATED),
        (0.99, {"model_sha256": OTHER}, 0, 0.5, True, Decision.ESCALATE),
        (0.99, {}, ENDS_MS - 1, 0.5, False, Decision.KEEP),
        (0.99, {}, ENDS_MS, 0.5, False, Decision.UNCALIBRATED),
        (0.01, {}, ENDS_MS, 0.0, False, Decision.UNCALIBRATED),
        (0.99, {}, ENDS_MS + DAY_MS, 0.0, True, Decision.ESCALATE),
        (0.99, {}, None, 0.5, False, Decision.UNCALIBRATED),
        (0.99, {"expires": None}, None, 0.5, False, Decision.KEEP),
        (0.99, {"expires": None}, 2**60, 0.5, False, Decision.KEEP),
        (math.nan, {}, 0, 0.5, False, Decision.ESCALATE),
        (math.inf, {}, 0, 0.5, False, Decision.ESCALATE),
        (-0.1, {}, 0, 0.5, False, Decision.ESCALATE),
        (1.1, {}, 0, 0.5, False, Decision.ESCALATE),
    ],
)
def test_the_decision(
    confidence: float,
    changes: dict[str, Any],
    now_ms: int | None,
    draw: float,
    is_doubted: bool,
    decision: Decision,
) -> None:
    found = decide(escalation(**changes), MODEL, confidence, now_ms, draw, is_doubted=is_doubted)
    assert found is decision


def test_what_a_decision_means() -> None:
    asks = {decision for decision in Decision if decision.asks}
    uncertain = {decision for decision in Decision if decision.is_uncertain}
    assert asks == {Decision.AUDIT, Decision.ESCALATE}
    assert uncertain == {Decision.ESCALATE, Decision.UNCALIBRATED}


probabilities = st.floats(0.0, 1.0)
temperatures = st.floats(0.01, 100.0)


@given(probabilities, temperatures)
def test_a_calibrated_confidence_is_a_probability_on_the_same_side(p: float, temperature: float) -> None:
    found = calibrated(p, temperature)
    assert 0.0 <= found <= 1.0
    assert (found - 0.5) * (p - 0.5) >= 0.0


@given(probabilities, probabilities, temperatures)
def test_temperature_keeps_the_order(one: float, other: float, temperature: float) -> None:
    low, high = sorted((one, other))
    assert calibrated(low, temperature) <= calibrated(high, temperature) + 1e-12


@given(st.floats(1e-6, 1 - 1e-6), st.floats(0.5, 4.0))
def test_it_divides_the_log_odds(p: float, temperature: float) -> None:
    found = calibrated(p, temperature)
    assert math.log(found / (1 - found)) == pytest.approx(math.log(p / (1 - p)) / temperature, rel=1e-6)


@given(
    st.floats(),
    st.integers(0, 2**45) | st.none(),
    st.floats(0.0, 1.0, exclude_max=True),
    st.booleans(),
    st.sampled_from([MODEL, OTHER]),
    temperatures,
    st.floats(0.0, 2.0),
)
def test_nothing_is_kept_silently_that_is_not_vouched_for(
    confidence: float,
    now_ms: int | None,
    draw: float,
    is_doubted: bool,
    model: str,
    temperature: float,
    threshold: float,
) -> None:
    policy = escalation(temperature=temperature, threshold=threshold)
    decision = decide(policy, model, confidence, now_ms, draw, is_doubted=is_doubted)
    if decision is Decision.KEEP:
        assert not is_doubted
        assert model == MODEL
        assert now_ms is not None
        assert now_ms < ENDS_MS
        assert calibrated(confidence, temperature) >= threshold
        assert draw >= policy.audit_share
    if is_doubted:
        assert decision is Decision.ESCALATE
    elif model == OTHER or now_ms is None or now_ms >= ENDS_MS:
        assert decision is Decision.UNCALIBRATED


def changed(key: str, value: str) -> str:
    lines = [line for line in TOML.splitlines() if not line.startswith(f"{key} =")]
    return "\n".join((*lines, f"{key} = {value}"))


def test_a_policy_may_say_when_to_ask() -> None:
    found = parse(TOML.encode()).escalation
    assert found == escalation(temperature=1.5, expires=None)
    assert (found.budget, found.deadline_ms) == (Budget(per_hour=60.0, burst=10), 5000)
    assert parse(TOML[: TOML.index("[escalation]")].encode()).escalation is None


@pytest.mark.parametrize(
    ("key", "value", "found"),
    [
        ("expires", "2027-06-30", date(2027, 6, 30)),
        ("expires", '"2027-06-30"', date(2027, 6, 30)),
        ("budget", "{ per_hour = 0.5, burst = 1 }", Budget(per_hour=0.5, burst=1)),
        ("deadline_s", "0.25", 0.25),
        ("threshold", "1.5", 1.5),
    ],
)
def test_what_it_may_say(key: str, value: str, found: object) -> None:
    policy = parse(changed(key, value).encode())
    assert getattr(policy.escalation, key) == found


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model_sha256", '"abc"'),
        ("temperature", "0.0"),
        ("temperature", "inf"),
        ("temperature", "nan"),
        ("threshold", "-0.1"),
        ("threshold", "nan"),
        ("alpha", "0.0"),
        ("alpha", "1.0"),
        ("delta", "1.0"),
        ("n_cal", "0"),
        ("audit_share", "1.1"),
        ("audit_share", "nan"),
        ("expires", "2027-06-30T10:00:00Z"),
        ("expires", "2027"),
        ("budget", "{ per_hour = 0.0 }"),
        ("budget", "{ per_hour = inf }"),
        ("budget", "{ burst = 0 }"),
        ("deadline_s", "0.0"),
        ("deadline_s", "90000.0"),
        ("unheard", "1"),
    ],
)
def test_what_it_may_not_say(key: str, value: str) -> None:
    with pytest.raises(PolicyError, match="escalation"):
        parse(changed(key, value).encode())


def test_every_calibration_survives_a_policys_encoding() -> None:
    policy = parse(TOML.encode())
    assert msgspec.convert(msgspec.to_builtins(policy), Policy) == policy


def test_a_bucket_begins_full_and_fills_slowly() -> None:
    bucket = TokenBucket(per_hour=3600.0, burst=3, now_s=100.0)
    assert [bucket.take(100.0) for _time in range(4)] == [True, True, True, False]
    assert not bucket.take(100.9)
    assert bucket.take(101.0)
    assert not bucket.is_full(102.0)
    assert bucket.is_full(1000.0)
    assert [bucket.take(1000.0) for _time in range(4)] == [True, True, True, False]


@given(st.lists(st.floats(0.0, 100.0), max_size=60), st.floats(1.0, 10_000.0), st.integers(1, 20))
def test_a_bucket_never_gives_more_than_it_may(waits: list[float], per_hour: float, burst: int) -> None:
    now, bucket, given_ = 0.0, TokenBucket(per_hour, burst, 0.0), 0
    for wait in waits:
        now += wait
        given_ += bucket.take(now)
        assert given_ <= burst + now * per_hour / 3600 + 1e-6


def test_a_clock_that_goes_back_gives_nothing() -> None:
    bucket = TokenBucket(per_hour=3600.0, burst=1, now_s=1000.0)
    assert bucket.take(1000.0)
    assert not bucket.take(10.0)
    assert not bucket.take(1000.5)
