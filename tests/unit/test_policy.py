"""Policies: CEL rules checked against what the model declares, and evaluated without surprises."""

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet_protocol import policy as pl
from fleet_protocol.errors import PolicyError
from tests.support.manifests import small_manifest as manifest

TOML = """
format = 1
name = "leak"
version = "1"
release = 1
model = "pressure_leak"

[[rules]]
name = "leak"
when = "{when}"
outcome = "event"
for_windows = 3
cooldown_s = 3600
"""


def compiled(when: str) -> pl.CompiledPolicy:
    return pl.CompiledPolicy(pl.parse(TOML.format(when=when).encode()), manifest())


ANSWERS: dict[str, pl.Value] = {
    "label": "leak",
    "score": 0.95,
    "confidence": 0.95,
    "reading.pressure": 31.0,
}


@pytest.mark.parametrize(
    ("when", "holds"),
    [
        ("label == 'leak' && score > 0.9", True),
        ("reading.pressure < 20.0", False),
        ("score > 0.9 || reading.pressure / 0.0 > 1.0", True),
    ],
)
def test_a_rule_holds_or_not(when: str, holds: bool) -> None:
    [(rule, result)] = compiled(when).evaluate(ANSWERS)
    assert (rule.name, rule.for_windows, result) == ("leak", 3, holds)


@pytest.mark.parametrize(
    ("when", "hint"),
    [
        ("score > 'high'", "no matching overload"),
        ("skore > 0.5", "undeclared reference"),
        ("reading.flow > 1.0", "undeclared reference"),
        ("score", "no true or false"),
        ("score >", "Syntax error"),
    ],
)
def test_a_rule_that_does_not_fit_the_model_is_refused_by_name(when: str, hint: str) -> None:
    with pytest.raises(PolicyError, match=hint) as refused:
        compiled(when)
    assert "rule leak" in str(refused.value)


def test_a_rule_that_cannot_be_computed_gives_a_text_and_no_exception() -> None:
    [(_, result)] = compiled("1 / int(score) > 0").evaluate(ANSWERS)
    assert isinstance(result, str)
    assert "divi" in result


def test_a_rule_cannot_run_for_ever() -> None:
    many = "[" + ",".join("1" * 40) + "]"
    when = f"{many}.all(a, {many}.all(b, {many}.all(c, {many}.all(d, a + b + c + d > 0))))"
    [(_, result)] = compiled(when).evaluate(ANSWERS)
    assert isinstance(result, str)
    assert "budget" in result.lower()


def test_another_models_policy_is_refused() -> None:
    policy = pl.parse(TOML.format(when="score > 0.5").encode())
    with pytest.raises(PolicyError, match="is for model pressure_leak, not for other"):
        pl.CompiledPolicy(policy, manifest("other"))


def test_two_rules_of_one_name_are_refused() -> None:
    rule = TOML[TOML.index("[[rules]]") :]
    with pytest.raises(PolicyError, match="share a name"):
        pl.parse((TOML + rule).replace("{when}", "score > 0.5").encode())


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe", b"format = 2", b"rules = []", b"a" * (pl.MAX_POLICY + 1), b"[" * 5000],
)
def test_what_is_no_policy_is_one_policy_error(content: bytes) -> None:
    with pytest.raises(PolicyError):
        pl.parse(content)


@settings(max_examples=200)
@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_give_a_policy_or_a_policy_error(content: bytes) -> None:
    with contextlib.suppress(PolicyError):
        pl.parse(content)


@settings(max_examples=200)
@given(st.text(alphabet="abcelrso()[]{}<>=!&|?:.,'\"\\0123456789 +-*/%\n", min_size=1, max_size=60))
def test_any_expression_compiles_or_is_a_policy_error(when: str) -> None:
    rule = pl.Rule(name="r", when=when, outcome=pl.Outcome.EVENT)
    policy = pl.Policy(format=1, name="p", version="1", release=1, model="pressure_leak", rules=(rule,))
    with contextlib.suppress(PolicyError):
        pl.CompiledPolicy(policy, manifest()).evaluate(ANSWERS)


def several(*whens: str) -> pl.CompiledPolicy:
    rules = tuple(
        pl.Rule(name=f"r{place}", when=when, outcome=pl.Outcome.EVENT) for place, when in enumerate(whens)
    )
    policy = pl.Policy(format=1, name="p", version="1", release=1, model="pressure_leak", rules=rules)
    return pl.CompiledPolicy(policy, manifest())


def test_each_of_many_rules_keeps_its_own_result() -> None:
    whens = [f"score > {place}.0 / 100.0 // {place}" for place in range(100)]
    for count in (1, 3, 60, 61, 100):
        results = several(*whens[:count]).evaluate(ANSWERS | {"score": 0.415})
        assert [(rule.name, holds) for rule, holds in results] == [
            (f"r{place}", place <= 41) for place in range(count)
        ]


def test_a_rule_that_fails_leaves_the_others_their_results() -> None:
    results = several("score > 0.0", "1 / int(score) > 0", "score < 0.0").evaluate(ANSWERS | {"score": 0.5})
    (_, first), (_, failed), (_, last) = results
    assert (first, last) == (True, False)
    assert isinstance(failed, str)


def test_rules_as_deep_as_the_compiler_allows() -> None:
    for depth in range(1, 400):
        when = "(" * depth + "score > 0.0" + ")" * depth
        try:
            policy = several(when, when)
        except PolicyError:
            break
        assert [holds for _, holds in policy.evaluate(ANSWERS | {"score": 0.5})] == [True, True]
    assert depth > 10
