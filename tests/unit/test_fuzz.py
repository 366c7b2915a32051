"""A short fuzz run, so that the long one keeps working."""

from tests.fuzz import run


def test_a_second_of_damage_raises_nothing_but_the_typed_error() -> None:
    seen = run(1.0, seed=7)
    assert all(counts["refused"] for counts in seen.values())
