"""The health catalog: every code says what it means and what to do, and explains itself by others."""

import pytest

from fleet_protocol.health import CATALOG, HealthCode


@pytest.mark.parametrize("entry", CATALOG.values(), ids=lambda entry: entry.code)
def test_every_code_has_its_words_and_known_causes(entry: HealthCode) -> None:
    assert entry.title
    assert entry.meaning.endswith(".")
    assert entry.next_step.endswith(".")
    assert set(entry.depends_on) <= set(CATALOG) - {entry.code}
