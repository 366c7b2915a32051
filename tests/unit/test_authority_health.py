"""When the end of an authority is worth a warning."""

from datetime import timedelta
from pathlib import Path

import pytest

from fleet_protocol.health import CATALOG
from fleet_server.authority import rollover
from fleet_server.authority.authority import Authority, open_authority
from fleet_server.authority.health import CODES, ISSUING_ENDS, ROOT_ENDS, judge
from fleet_server.authority.issuing import ISSUING_DAYS, ROOT_DAYS
from fleet_server.clock import now


@pytest.fixture
def fleet(tmp_path: Path) -> Authority:
    return open_authority(tmp_path / "authority", may_make=True)


@pytest.mark.parametrize(
    ("days", "raised"),
    [
        (0, set()),
        (ISSUING_DAYS - 181, set()),
        (ISSUING_DAYS - 179, {ISSUING_ENDS}),
        (ISSUING_DAYS + 1, {ISSUING_ENDS}),
        (ROOT_DAYS - 729, {ISSUING_ENDS, ROOT_ENDS}),
    ],
)
def test_half_a_year_for_an_issuing_authority_and_two_years_for_a_root(
    fleet: Authority, days: int, raised: set[str]
) -> None:
    codes = judge(fleet, now() + timedelta(days=days))
    assert set(codes) == raised
    for code, detail in codes.items():
        assert code in CATALOG
        assert detail.startswith("until 20")


def test_one_that_has_expired_is_told_too(fleet: Authority) -> None:
    assert judge(Authority(fleet.roots, []), now()) == {ISSUING_ENDS: "one has expired"}
    assert set(CODES) <= set(CATALOG)


def test_while_there_are_two_roots_the_newer_one_counts(fleet: Authority, tmp_path: Path) -> None:
    rollover.begin(tmp_path / "authority", None)
    both = open_authority(tmp_path / "authority", may_make=False)
    assert judge(both, now()) == {}
    without_new = Authority(both.roots, fleet.issuers)
    assert judge(without_new, now()) == {ISSUING_ENDS: "one has expired"}
