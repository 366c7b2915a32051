"""Proposals in both databases: who may decide, what is made, exactly once, and what is not any more."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlmodel import Session, select

from fleet_protocol.messages import Severity
from fleet_server.access.roles import Caller, RoleName
from fleet_server.approvals.pages import list_proposals
from fleet_server.config import ServerConfig, Settings, resolve
from fleet_server.database.engine import writing
from fleet_server.database.models import (
    Approval,
    Assignment,
    Certificate,
    EscalationBudget,
    Person,
    Proposal,
    Role,
)
from fleet_server.devices.groups import set_group
from fleet_server.errors import BadChange, NotYours, ProposalConflict, RevocationConflict, RolloutConflict
from fleet_server.health import server_health
from fleet_server.identity import revoking
from fleet_server.updates.office import provide_keys
from fleet_server.updates.rollouts import Action as Act
from tests.support.actors import SOMEBODY
from tests.support.desk import BUDGET, START, Desk, furnished
from tests.support.rollouts import TENANT, act, add_fleet, begin, digest, give, move_on, tell, update


@pytest.fixture
def config(tmp_path: Any, database_url: str) -> ServerConfig:
    config = resolve(tmp_path, Settings(database_url=database_url, mqtt_port=8883))
    provide_keys(config)
    return config


@pytest.fixture
def desk(engine: Engine, config: ServerConfig) -> Desk:
    return furnished(engine, config)


def test_another_person_approves_and_it_happens_with_its_records(desk: Desk) -> None:
    identity = desk.propose()
    page = desk.page(identity)
    assert (page.proposal.state, page.proposal.needed, page.proposal.devices) == ("proposed", 1, 4)
    assert page.proposal.sites == ["north", "south"]
    assert [(one.id, one.has, one.runs) for one in page.reached][:2] == [
        ("gw-00", 1, 1),
        ("gw-01", None, None),
    ]
    (what,) = [line for line in page.diff if line.field == "model leak"]
    assert (what.before, what.after) == ({"release 1": 1, "none": 3}, {"release 2": 4})
    assert desk.rollouts() == []
    assert desk.approve(desk.anna, identity) == "executed"
    assert desk.rollouts() == [identity]
    assert desk.audited() == ["proposal.make", "proposal.approve", "rollout.start"]


def test_nobody_approves_what_they_proposed(desk: Desk) -> None:
    mine = desk.propose(who=desk.root)
    second_token = desk.person("root", RoleName.APPROVER)
    for who in (desk.root, second_token):
        with pytest.raises(NotYours, match="somebody else decides"):
            desk.approve(who, mine)
        with pytest.raises(NotYours):
            desk.proposals.reject(who, mine, "no")
    later = desk.propose()
    promoted = desk.person("olga", RoleName.APPROVER)
    with pytest.raises(NotYours):
        desk.approve(promoted, later)
    assert (desk.rollouts(), desk.state(mine), desk.state(later)) == ([], "proposed", "proposed")


def test_an_approval_that_was_written_for_the_proposer_does_not_count(desk: Desk) -> None:
    desk.rule(2)
    identity = desk.propose(who=desk.root)
    sha256 = desk.page(identity).proposal.sha256
    with writing(desk.engine) as session:
        session.add(
            Approval(tenant=TENANT, proposal=identity, person="root", agrees=True, sha256=sha256, given_ms=1)
        )
    assert desk.approve(desk.anna, identity) == "proposed"
    assert desk.page(identity).proposal.approvals == 1


def test_two_approvers_are_two_people(desk: Desk) -> None:
    desk.rule(2, site="south")
    identity = desk.propose()
    assert desk.approve(desk.anna, identity) == "proposed"
    with pytest.raises(ProposalConflict, match="already"):
        desk.approve(desk.person("anna"), identity)
    assert desk.approve(desk.ben, identity) == "executed"


def test_a_disabled_person_counts_no_more(desk: Desk) -> None:
    desk.rule(2)
    identity = desk.propose()
    desk.approve(desk.anna, identity)
    desk.change(Person, ("anna",), disabled_ms=1)
    assert desk.approve(desk.ben, identity) == "proposed"
    assert [(one.person, one.counts) for one in desk.page(identity).votes] == [("anna", False), ("ben", True)]
    assert desk.approve(desk.root, identity) == "executed"


def test_who_has_lost_the_right_counts_no_more(desk: Desk) -> None:
    desk.rule(2)
    identity = desk.propose()
    desk.approve(desk.anna, identity)
    with writing(desk.engine) as session:
        session.delete(session.get_one(Role, (TENANT, "anna", "approver", "", "")))
    assert desk.approve(desk.ben, identity) == "proposed"


def test_an_approver_of_one_site_approves_nothing_that_reaches_another(desk: Desk) -> None:
    north = desk.person("nora", site="north")
    everywhere = desk.propose()
    with pytest.raises(NotYours, match=r"change\.approve"):
        desk.approve(north, everywhere)
    desk.proposals.reject(north, everywhere, "not here")
    assert desk.state(everywhere) == "rejected"
    assert desk.approve(north, desk.propose(arguments=START | {"group": "north"})) == "executed"


def test_an_operator_of_one_site_proposes_nothing_for_another(desk: Desk) -> None:
    oscar = desk.person("oscar", RoleName.OPERATOR, site="north")
    with pytest.raises(NotYours):
        desk.propose(who=oscar)
    desk.propose(arguments=START | {"group": "north"}, who=oscar)


def test_no_approval_where_a_rule_wants_none(desk: Desk) -> None:
    desk.rule(0, site="north")
    assert desk.state(desk.propose(arguments=START | {"group": "north"})) == "executed"
    assert desk.audited() == ["proposal.make", "rollout.start"]
    with pytest.raises(RolloutConflict):
        desk.propose()


def test_a_rule_that_became_stricter_holds_for_what_waits(desk: Desk) -> None:
    identity = desk.propose()
    desk.rule(2)
    assert desk.approve(desk.anna, identity) == "proposed"
    assert desk.page(identity).proposal.needed == 2
    desk.rule(0)
    assert desk.approve(desk.ben, identity) == "executed"


MOVED: dict[str, Callable[[Desk], object]] = {
    "a device more": lambda desk: add_fleet(desk.engine, 1, site="north", prefix="new"),
    "another assignment": lambda desk: give(desk.engine, ["gw-01"], 1),
    "another group": lambda desk: set_group(desk.engine, TENANT, SOMEBODY, "all", "site=south"),
    "a rollout under way": lambda desk: begin(desk.engine, group="north", where="site=north"),
}


@pytest.mark.parametrize("name", list(MOVED))
def test_a_world_that_moved_makes_it_stale(desk: Desk, name: str) -> None:
    identity = desk.propose()
    MOVED[name](desk)
    before = desk.rollouts()
    assert desk.approve(desk.anna, identity) == "stale"
    assert desk.page(identity).proposal.outcome
    assert desk.rollouts() == before
    assert desk.audited()[-1] == "proposal.stale"


def test_a_device_that_catches_up_meanwhile_is_no_other_world(desk: Desk) -> None:
    identity = desk.propose()
    tell(desk.engine, "gw-01", update(1, "committed"))
    assert desk.approve(desk.anna, identity) == "executed"


def test_altered_words_are_never_carried_out(desk: Desk) -> None:
    identity = desk.propose()
    with Session(desk.engine) as session:
        row = session.get_one(Proposal, (TENANT, identity))
        altered = row.change.replace('"release":2', '"release":3')
    desk.change(Proposal, (identity,), change=altered)
    assert desk.approve(desk.anna, identity) == "failed"
    assert "altered" in desk.page(identity).proposal.outcome
    assert desk.rollouts() == []


def test_words_altered_with_their_digest_lose_their_approvals(desk: Desk) -> None:
    desk.rule(2)
    identity = desk.propose()
    desk.approve(desk.anna, identity)
    desk.change(Proposal, (identity,), sha256="0" * 64)
    assert desk.page(identity).proposal.approvals == 0
    assert desk.approve(desk.ben, identity) == "proposed"


def test_approving_takes_the_digest_that_was_seen(desk: Desk) -> None:
    identity = desk.propose()
    with pytest.raises(ProposalConflict, match="look at it again"):
        desk.proposals.approve(desk.anna, identity, "0" * 64, "")
    assert desk.state(identity) == "proposed"


def test_what_has_expired_is_not_approved(desk: Desk) -> None:
    identity = desk.propose()
    desk.change(Proposal, (identity,), expires_ms=1)
    assert desk.state(identity) == "expired"
    with pytest.raises(ProposalConflict, match="expired"):
        desk.approve(desk.anna, identity)
    with pytest.raises(ProposalConflict, match="expired"):
        desk.proposals.break_glass(desk.root, identity, "now")
    assert list_proposals(desk.engine, TENANT, "", 10, is_open=True) == []
    desk.propose()
    assert "proposal.expired" in desk.audited()


def test_only_the_proposer_withdraws(desk: Desk) -> None:
    identity = desk.propose()
    with pytest.raises(NotYours):
        desk.proposals.withdraw(desk.root, identity)
    desk.proposals.withdraw(desk.olga, identity)
    with pytest.raises(ProposalConflict, match="withdrawn"):
        desk.approve(desk.anna, identity)


def test_two_approvals_at_once_make_it_once(desk: Desk) -> None:
    for release in (2, 3):
        identity = desk.propose(arguments=START | {"release": release})
        sha256, gate = desk.page(identity).proposal.sha256, threading.Barrier(3)

        def approve(who: Caller, identity: str = identity, sha256: str = sha256, gate: Any = gate) -> str:
            gate.wait()
            try:
                desk.proposals.approve(who, identity, sha256, "")
            except ProposalConflict:
                return "late"
            return "done"

        with ThreadPoolExecutor(3) as pool:
            came = sorted(pool.map(approve, (desk.anna, desk.ben, desk.root)))
        assert came == ["done", "late", "late"]
        assert desk.state(identity) == "executed"
        act(desk.engine, identity, Act.ABORT)
    assert len(desk.rollouts()) == 2
    assert desk.audited().count("rollout.start") == 2


def test_two_who_are_both_needed_at_once_make_it_once(desk: Desk) -> None:
    desk.rule(2)
    identity = desk.propose()
    gate = threading.Barrier(2)

    def approve(who: Caller) -> None:
        gate.wait()
        desk.approve(who, identity)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(approve, (desk.anna, desk.ben)))
    assert desk.state(identity) == "executed"
    assert desk.audited().count("rollout.start") == 1


def test_a_failure_half_way_leaves_nothing(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    identity = desk.propose()
    monkeypatch.setattr("fleet_server.updates.rollouts._add_members", _die)
    with pytest.raises(RuntimeError):
        desk.approve(desk.anna, identity)
    monkeypatch.undo()
    assert (desk.state(identity), desk.rollouts(), desk.page(identity).votes) == ("proposed", [], [])
    assert desk.approve(desk.anna, identity) == "executed"


def _die(*_given: object) -> None:
    raise RuntimeError


def test_broken_glass_is_loud_until_somebody_else_has_seen_it(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    identity = desk.propose(who=desk.root)
    desk.proposals.break_glass(desk.root, identity, "a pipe has burst")
    assert desk.state(identity) == "executed"
    assert "root broke the glass" in caplog.text
    (raised,) = [item for item in server_health(desk.engine) if item.code == "access.break_glass"]
    assert raised.severity == Severity.CRITICAL.name.lower()
    assert "a pipe has burst" in raised.detail
    with pytest.raises(NotYours):
        desk.proposals.acknowledge(desk.root, identity)
    desk.proposals.acknowledge(desk.anna, identity)
    with pytest.raises(ProposalConflict):
        desk.proposals.acknowledge(desk.ben, identity)
    assert "access.break_glass" not in {item.code for item in server_health(desk.engine)}
    assert desk.audited()[-3:] == ["proposal.break_glass", "rollout.start", "proposal.acknowledge"]
    glass = desk.page(identity).break_glass
    assert glass is not None
    assert (glass.person, glass.acknowledged_by) == ("root", "anna")


def test_broken_glass_is_held_against_the_world_too(desk: Desk) -> None:
    identity = desk.propose()
    add_fleet(desk.engine, 1, site="north", prefix="new")
    desk.proposals.break_glass(desk.root, identity, "now")
    assert (desk.state(identity), desk.rollouts()) == ("stale", [])


def test_a_rollout_that_is_held_up_goes_on_by_approval(desk: Desk) -> None:
    identity = begin(desk.engine, "1", "100%")
    move_on(desk.engine)
    act(desk.engine, identity, Act.PAUSE)
    asked = desk.propose("rollout.resume", {"rollout": identity})
    assert desk.page(asked).proposal.devices == 4
    with pytest.raises(NotYours):
        desk.approve(desk.person("nora", site="north"), asked)
    other = desk.propose("rollout.resume", {"rollout": identity})
    assert desk.approve(desk.anna, asked) == "executed"
    assert desk.approve(desk.anna, other) == "stale"
    with pytest.raises(RolloutConflict):
        desk.propose("rollout.resume", {"rollout": identity})


def test_one_device_is_given_something_by_approval(desk: Desk) -> None:
    one = {"device": "gw-00", "kind": "model", "name": "leak"}
    identity = desk.propose("device.assign", one | {"release": 2})
    assert [(line.before, line.after) for line in desk.page(identity).diff] == [
        (1, 2),
        (None, digest("leak", 2)),
    ]
    assert desk.approve(desk.anna, identity) == "executed"
    stale = desk.propose("device.withdraw", one)
    give(desk.engine, ["gw-00"], 3)
    assert desk.approve(desk.anna, stale) == "stale"
    assert desk.approve(desk.anna, desk.propose("device.withdraw", one)) == "executed"
    with Session(desk.engine) as session:
        assert session.exec(select(Assignment)).all() == []
    with pytest.raises(BadChange, match="already"):
        desk.propose("device.withdraw", one)


def test_many_devices_are_revoked_by_approval_and_none_escapes(desk: Desk) -> None:
    """Neither by renewing while the proposal waits, nor by being on hold and released afterwards."""
    names = ("gw-00", "gw-01", "pump-00", "pump-01")
    for name in names:
        _certify(desk.engine, name)
    with writing(desk.engine) as session:
        revoking.hold(session, TENANT, "pump-01", reason="flood", actor=SOMEBODY, now_ms=1)
    identity = desk.propose("device.revoke", {"devices": list(names), "reason": "keyCompromise"})
    _certify(desk.engine, "gw-01", "renewed")
    assert desk.page(identity).proposal.sites == ["north", "south"]
    assert desk.approve(desk.anna, identity) == "executed"
    with Session(desk.engine) as session:
        rows = session.exec(select(Certificate)).all()
    assert len(rows) == 5
    assert {row.revoked_reason for row in rows} == {"keyCompromise"}
    assert desk.audited().count("device.revoke") == 4
    with writing(desk.engine) as session, pytest.raises(RevocationConflict, match="not on hold"):
        revoking.release(session, TENANT, "pump-01", reason="x", actor=SOMEBODY, now_ms=2)


def test_devices_that_are_only_on_hold_can_be_revoked(desk: Desk) -> None:
    _certify(desk.engine, "gw-00")
    with writing(desk.engine) as session:
        revoking.hold(session, TENANT, "gw-00", reason="flood", actor=SOMEBODY, now_ms=1)
    assert desk.approve(desk.anna, desk.propose("device.revoke", {"devices": ["gw-00"]})) == "executed"


@pytest.mark.parametrize("site", ["", "north"])
def test_a_rule_for_all_actions_is_not_made_by_fewer_than_one_of_them_takes(desk: Desk, site: str) -> None:
    desk.rule(2, action="rollout.start")
    lax = desk.propose("approval_rule.set", {"site": site, "action": "", "approvals": 0}, desk.root)
    assert desk.approve(desk.anna, lax) == "proposed"
    assert desk.approve(desk.ben, lax) == "executed"


def test_a_rule_for_two_is_not_undone_by_one(desk: Desk) -> None:
    desk.rule(2, action="device.revoke")
    undo = desk.propose(
        "approval_rule.set", {"site": "", "action": "device.revoke", "approvals": 0}, desk.root
    )
    assert desk.approve(desk.anna, undo) == "proposed"
    assert desk.approve(desk.ben, undo) == "executed"


def _certify(engine: Engine, device: str, serial: str = "") -> None:
    with writing(engine) as session:
        session.add(
            Certificate(
                tenant=TENANT, serial=serial or device, device=device, sha256="", key_sha256=device,
                issuer="", trust_sha256="", pem="", not_before_ms=1, not_after_ms=2,
            )
        )  # fmt: skip


def test_budgets_change_by_approval(desk: Desk) -> None:
    stale, identity = desk.propose("escalation.budget", BUDGET), desk.propose("escalation.budget", BUDGET)
    assert desk.page(identity).proposal.everywhere
    with pytest.raises(NotYours):
        desk.approve(desk.person("nora", site="north"), identity)
    assert desk.approve(desk.anna, identity) == "executed"
    with Session(desk.engine) as session:
        row = session.get_one(EscalationBudget, TENANT)
        assert (row.device_per_hour, row.tenant_per_hour) == (10.0, 100.0)
    assert desk.approve(desk.anna, stale) == "stale"


def test_a_rule_changes_by_the_rules_of_before(desk: Desk) -> None:
    desk.rule(2)
    lower = {"site": "", "action": "", "approvals": 0}
    identity = desk.propose("approval_rule.set", lower, desk.root)
    assert desk.approve(desk.anna, identity) == "proposed"
    stale = desk.propose("approval_rule.set", {"site": "", "action": "", "approvals": 3}, desk.root)
    assert desk.approve(desk.ben, identity) == "executed"
    assert desk.approve(desk.ben, stale) == "proposed"
    assert desk.approve(desk.anna, stale) == "stale"
    with pytest.raises(NotYours):
        desk.propose("approval_rule.set", lower | {"approvals": 1})
    assert desk.state(desk.propose("approval_rule.set", lower | {"approvals": None}, desk.root)) == "executed"


NONSENSE: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("rollout.stop", {}, "there is no action"),
    ("rollout.start", {"group": "all"}, "missing required field"),
    ("rollout.start", START | {"colour": 1}, "unknown field"),
    ("device.assign", {"device": "gw-00", "kind": "model", "name": "leak"}, "say which release"),
    ("device.revoke", {"devices": ["gw-00"]}, "still holds"),
    ("device.revoke", {"devices": ["no"]}, "there is no device"),
    ("device.revoke", {"devices": [], "reason": "dislike"}, "reason"),
    ("escalation.budget", {"device_per_hour": 0, "tenant_per_hour": 1}, "above 0"),
    ("escalation.budget", {"device_per_hour": 3600, "tenant_per_hour": 36000}, "already"),
    ("approval_rule.set", {"site": "", "action": "", "approvals": 9}, "0 to 5"),
    ("approval_rule.set", {"site": "no", "action": "", "approvals": 1}, "there is no site"),
    ("approval_rule.set", {"site": "", "action": "no", "approvals": 1}, "there is no action"),
    ("approval_rule.set", {"site": "", "action": "", "approvals": None}, "already"),
)


def test_a_change_that_makes_no_sense_is_not_proposed(desk: Desk) -> None:
    for action, arguments, said in NONSENSE:
        with pytest.raises(BadChange, match=said):
            desk.propose(action, arguments, desk.root)
    assert list_proposals(desk.engine, TENANT, "", 10, is_open=False) == []
