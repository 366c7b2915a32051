"""What access rests on, without a database: rights that only narrow, waits, nonces, budgets."""

import time
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_protocol.buckets import TokenBucket
from fleet_server.access import lockout, passwords
from fleet_server.access.door import MOST_SOURCES, SUM_S, Strangers
from fleet_server.access.issuing import Wish, narrower
from fleet_server.access.roles import (
    EVERYWHERE,
    RIGHTS,
    Caller,
    Grant,
    Permission,
    RoleName,
    Scope,
    narrowed,
)
from fleet_server.callers import Paces, Rate, network_of
from fleet_server.database.models import Token
from fleet_server.errors import TooBroad

WORDS = st.sampled_from(["", "north", "south"])
SCOPES = st.builds(Scope, WORDS, st.sampled_from(["", "pumps", "valves"]))
ROLES = st.none() | st.sampled_from(RoleName)
GRANTS = st.lists(st.builds(Grant.of, st.sampled_from(RoleName), SCOPES), max_size=4).map(tuple)
DEVICES = st.tuples(
    st.sampled_from([None, "north", "south"]), st.frozensets(st.sampled_from(["pumps", "valves"]))
)


def may(grants: tuple[Grant, ...], permission: Permission, device: tuple[str | None, frozenset[str]]) -> bool:
    return Caller("default", "ann", grants, "", "").may_on(permission, *device)


@given(GRANTS, ROLES, SCOPES, st.sampled_from(Permission), DEVICES)
def test_a_token_gives_what_the_person_has_and_the_token_allows_and_nothing_else(
    grants: tuple[Grant, ...],
    role: RoleName | None,
    scope: Scope,
    permission: Permission,
    device: tuple[str | None, frozenset[str]],
) -> None:
    left = may(narrowed(grants, role, scope), permission, device)
    allowed = (role is None or permission in RIGHTS[role]) and scope.holds(*device)
    if left:
        assert may(grants, permission, device)
        assert allowed
    # Two tags in one scope cannot be said: what is left may be less there, and never more.
    elif may(grants, permission, device) and allowed:
        assert scope.tag


@pytest.mark.attack
@given(GRANTS, ROLES, SCOPES, ROLES, SCOPES, st.sampled_from(Permission), DEVICES)
def test_a_token_that_a_token_makes_is_never_broader(
    grants: tuple[Grant, ...],
    cap: RoleName | None,
    place: Scope,
    role: RoleName | None,
    scope: Scope,
    permission: Permission,
    device: tuple[str | None, frozenset[str]],
) -> None:
    own = Token(
        tenant="default", sha256="", person="ann", name="own", role=cap or "", site=place.site,
        tag=place.tag, created_ms=1,
    )  # fmt: skip
    try:
        made = narrower(own, Wish("new", role, scope, 1))
    except TooBroad:
        return
    before, after = narrowed(grants, cap, place), narrowed(grants, *made)
    assert not may(after, permission, device) or may(before, permission, device)
    assert narrowed(before, *made) == after


@pytest.mark.attack
@pytest.mark.parametrize(
    ("cap", "role"),
    [("viewer", "admin"), ("operator", "approver"), ("approver", "operator"), ("technician", "operator")],
)
def test_a_token_cannot_make_one_for_another_role(cap: str, role: str) -> None:
    own = Token(tenant="default", sha256="", person="ann", name="own", role=cap, created_ms=1)
    with pytest.raises(TooBroad, match=f"for {cap} at most"):
        narrower(own, Wish("new", RoleName(role), EVERYWHERE, 1))
    assert narrower(own, Wish("new", None, EVERYWHERE, 1)) == (cap, EVERYWHERE)


def test_every_role_sees_and_an_administrator_may_everything() -> None:
    assert RIGHTS[RoleName.ADMIN] == frozenset(Permission)
    assert all({Permission.SELF, Permission.FLEET_READ} <= rights for rights in RIGHTS.values())
    assert not {Permission.CHANGE_PROPOSE, Permission.CHANGE_APPROVE} <= RIGHTS[RoleName.OPERATOR]
    assert Permission.CHANGE_PROPOSE not in RIGHTS[RoleName.APPROVER]


def test_waits_double_up_to_a_quarter_of_an_hour() -> None:
    waits = [lockout.wait_ms(failures) for failures in range(20)]
    assert waits[:9] == [0, 0, 0, 0, 0, 1_000, 2_000, 4_000, 8_000]
    assert waits == sorted(waits)
    assert waits[-1] == lockout.wait_ms(10**9) == 900_000


def test_what_strangers_try_is_summed_up_and_bounded() -> None:
    strangers = Strangers()
    assert strangers.add("10.0.0.1", 0.0) == {"10.0.0.1": 1}
    sums = [strangers.add(f"10.0.{number // 250}.{number % 250}", 1.0) for number in range(1000)]
    assert not any(sums)
    due = strangers.add("10.9.9.9", SUM_S)
    assert sum(due.values()) == 1001
    assert len(due) <= MOST_SOURCES + 1


def test_a_bucket_says_when_to_come_again() -> None:
    bucket = TokenBucket(per_hour=3600, burst=2, now_s=0.0)
    assert bucket.take(0.0)
    assert bucket.take(0.0)
    assert bucket.wait_s(0.0) == pytest.approx(1.0)
    assert bucket.wait_s(0.75) == pytest.approx(0.25)
    assert bucket.wait_s(5.0) == 0.0


def test_budgets_are_for_each_caller_and_remember_so_many() -> None:
    budgets = Paces(Rate(per_s=1, burst=2), most=3)
    assert [budgets.wait_s("a", 0.0) for _ in range(3)] == [0.0, 0.0, 1.0]
    assert budgets.wait_s("b", 0.0) == 0.0
    for caller in "cdef":
        budgets.wait_s(caller, 0.0)
        assert len(budgets._buckets) <= 3
    assert budgets.wait_s("f", 0.0) == 0.0
    assert budgets.wait_s("f", 0.0) == 1.0


@pytest.mark.parametrize(
    ("address", "network"),
    [("192.0.2.7", "192.0.2.7"), ("2001:db8::1", "2001:db8::/64"), ("2001:db8::ffff:1", "2001:db8::/64"),
     ("2001:db8:0:1::1", "2001:db8:0:1::/64"), ("fe80::1%eth0", "fe80::/64"), ("", ""),
     ("::ffff:192.0.2.7", "192.0.2.7")],
)  # fmt: skip
def test_an_ipv6_network_is_one_caller(address: str, network: str) -> None:
    assert network_of(address) == network


@pytest.mark.attack
def test_a_password_of_nobody_takes_as_much_work_as_one_of_somebody() -> None:
    def work_s(kept: str) -> float:
        began_s = time.process_time()
        assert not passwords.is_right(kept, "wrong password")
        return time.process_time() - began_s

    kept = passwords.hashed("a right password", "ann")
    work_s("")
    somebodys, nobodys = (median(work_s(one) for _ in range(3)) for one in (kept, ""))
    assert 0.6 < somebodys / nobodys < 1.6
    assert passwords.is_right(kept, "a right password")
    assert "$argon2id$v=19$m=65536,t=3,p=1$" in kept
