"""Questions, answers, windows and what supersedes what, in real databases of both kinds."""

from collections.abc import Sequence

import pytest
from sqlalchemy import Engine, func, select

from fleet_protocol.central import CentralManifest, CentralMetric
from fleet_protocol.messages import (
    Answer,
    AnswerState,
    Inference,
    Metric,
    Quality,
    Reading,
    Telemetry,
    encode,
)
from fleet_server.database.models import RefusalCount, metadata
from fleet_server.database.schema import differences
from fleet_server.errors import StoreError
from fleet_server.escalation.admission import Question, Refusal, admit
from fleet_server.escalation.history import escalations
from fleet_server.escalation.ledger import KEPT_MS, Done, Ledger
from fleet_server.escalation.windows import Grid, stored
from fleet_server.telemetry import query
from fleet_server.telemetry.store import Store
from tests.support.batches import EPOCH, NOW_MS, arrival, base, register
from tests.support.escalating import question
from tests.unit.test_central_manifest import manifest
from tests.unit.test_escalation_center import arrival as asking

STEP_MS = 1000


def asked(device: str = "gw-1", **changes: object) -> Question:
    found = admit(asking(question(**changes), device))
    assert isinstance(found, Question)
    return found


def done(one: Question, label: str = "gw-2") -> Done:
    answer = Answer(
        id=one.request.id,
        state=AnswerState.ANSWERED,
        model="network",
        version="1",
        label=label,
        score=0.9,
        confidence=0.8,
    )
    return Done(one, "default", answer, "network 1 (openvino)")


def count(engine: Engine, table: str) -> int:
    with engine.connect() as connection:
        return connection.scalar(select(func.count()).select_from(metadata.tables[table])) or 0


def test_the_tables_are_as_the_models_say(engine: Engine) -> None:
    assert differences(engine) == []


def test_what_was_answered_is_known_by_device_and_id(engine: Engine) -> None:
    register(engine, "gw-1", "gw-2")
    ledger = Ledger(engine)
    first, second = asked(), asked("gw-2")
    same_id = asked("gw-2", id=first.request.id)
    ledger.write([done(first), done(second)], NOW_MS)
    known = ledger.known([first, second, same_id, asked("gw-9")], ["gw-1", "gw-2", "gw-9"])
    assert known.tenants == {"gw-1": "default", "gw-2": "default"}
    assert known.answers == {first.key: encode(done(first).answer), second.key: encode(done(second).answer)}
    ledger.write([done(same_id, "gw-1")], NOW_MS)
    assert ledger.known([same_id], ["gw-2"]).answers == {same_id.key: encode(done(same_id, "gw-1").answer)}
    assert ledger.known([], []).answers == {}


def test_a_refused_questions_windows_are_not_kept(engine: Engine) -> None:
    register(engine, "gw-1")
    ledger = Ledger(engine)
    one, other = asked(), asked()
    refused = Answer(id=one.request.id, state=AnswerState.REFUSED, reason="no")
    ledger.write([Done(one, "default", refused), done(other)], NOW_MS)
    table = metadata.tables["request"]
    with engine.connect() as connection:
        sizes = {row.id: len(row.payload) for row in connection.execute(select(table))}
    assert sizes == {one.request.id: 0, other.request.id: len(other.payload)}
    views = {view.id: view for view in escalations(engine, "default", None, 10)}
    assert (views[one.request.id].state, views[one.request.id].reason) == ("refused", "no")
    assert views[other.request.id].label == "gw-2"


def test_what_is_old_is_forgotten(engine: Engine) -> None:
    register(engine, "gw-1")
    ledger = Ledger(engine)
    old, new = asked(), asked()
    old.received_ms = NOW_MS - KEPT_MS - 1
    ledger.write([done(old), done(new)], NOW_MS)
    ledger.prune(NOW_MS)
    assert (count(engine, "request"), count(engine, "answer")) == (1, 1)
    assert ledger.known([old, new], ["gw-1"]).answers.keys() == {new.key}


def test_questions_are_read_back_page_by_page(engine: Engine) -> None:
    register(engine, "gw-1", "gw-2")
    questions = [asked(device) for _number in range(3) for device in ("gw-1", "gw-2")]
    for place, one in enumerate(questions):
        one.received_ms = NOW_MS + place // 3
    Ledger(engine).write([done(one) for one in questions], NOW_MS)
    found, before = [], None
    while page := escalations(engine, "default", before, 2):
        found += page
        before = (page[-1].received_ms, page[-1].device, page[-1].id)
    keys = [(one.received_ms, one.device, one.id) for one in found]
    assert len(keys) == 6
    assert keys == sorted(keys, reverse=True)
    assert escalations(engine, "another", None, 10) == []


def test_refusals_are_counted_for_a_known_device_and_for_strangers(engine: Engine) -> None:
    register(engine, "gw-1")
    ledger = Ledger(engine)
    refusals = [Refusal(asking(b"x"), name, "bad") for name in ("gw-1", "gw-1", "gw-9", "")]
    ledger.refuse(refusals, {"gw-1": "default"})
    with engine.connect() as connection:
        table = RefusalCount.__table__  # type: ignore[attr-defined]
        rows = {(row.tenant, row.device): row.count for row in connection.execute(select(table))}
    assert rows == {("default", "gw-1"): 2, ("", ""): 2}


def test_a_database_that_is_away_is_one_error(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE answer RENAME TO answer_away")
    with pytest.raises(StoreError):
        Ledger(engine).known([asked()], ["gw-1"])


def deliver(engine: Engine, device: str, metrics: Sequence[Metric], readings: Sequence[Reading]) -> None:
    store = Store(engine, clock=lambda: NOW_MS / 1000)
    batch = Telemetry(EPOCH, 1, base(), list(metrics), list(readings), [])
    assert store.commit([arrival(batch, device)]).stored == 1
    store.close()


def model(steps: int = 4) -> CentralManifest:
    return manifest(metrics=(CentralMetric("flow", "l/s"), CentralMetric("pressure", "m")), steps=steps)


def means(engine: Engine, grid: Grid) -> dict[tuple[str, str], dict[int, float]]:
    found = stored(engine, "default", model(), grid)
    return {(one.gateway, one.metric): dict(zip(one.steps, one.means, strict=True)) for one in found}


def test_each_step_is_the_mean_of_its_good_readings(engine: Engine) -> None:
    register(engine, "gw-1", "gw-2", "gw-3")
    flow, pressure, foreign = Metric(0, "flow", "l/s"), Metric(1, "pressure", "m"), Metric(2, "level", "m")
    readings = [
        Reading(0, -4001, 100.0),
        Reading(0, -4000, 1.0),
        Reading(0, -3500, 3.0),
        Reading(0, -2001, 7.0),
        Reading(0, -1500, None, Quality.BAD),
        Reading(0, -1400, 50.0, Quality.SUSPECT),
        Reading(0, -1, 9.0),
        Reading(0, 0, 100.0),
        Reading(1, -500, 2.5),
        Reading(2, -500, 4.0),
    ]
    deliver(engine, "gw-1", [flow, pressure, foreign], readings)
    deliver(engine, "gw-2", [Metric(0, "flow", "m3/h")], [Reading(0, -500, 8.0)])
    deliver(engine, "gw-3", [flow], [Reading(0, -500, 8.0)])
    assert means(engine, Grid(NOW_MS, STEP_MS * 1000, 4)) == {
        ("gw-1", "flow"): {0: 2.0, 1: 7.0, 3: 9.0},
        ("gw-1", "pressure"): {3: 2.5},
    }
    assert stored(engine, "another", model(), Grid(NOW_MS, STEP_MS * 1000, 4)) == []


def test_a_step_may_be_any_part_of_a_millisecond(engine: Engine) -> None:
    register(engine, "gw-1", "gw-2")
    deliver(engine, "gw-1", [Metric(0, "flow", "l/s")], [Reading(0, -place, 1.0) for place in range(1, 11)])
    # Ten ms in four steps of 2.5 ms.
    assert means(engine, Grid(NOW_MS, 2500, 4)) == {("gw-1", "flow"): dict.fromkeys(range(4), 1.0)}


def test_what_no_float32_can_hold_is_not_measured(engine: Engine) -> None:
    register(engine, "gw-1")
    readings = [Reading(0, -3500, 1e300), Reading(0, -2500, -1e300), Reading(0, -500, 3.4e38)]
    deliver(engine, "gw-1", [Metric(0, "flow", "l/s")], readings)
    found = means(engine, Grid(NOW_MS, STEP_MS * 1000, 4))
    assert found == {("gw-1", "flow"): {3: pytest.approx(3.4e38)}}


def test_an_inference_names_its_question_and_what_supersedes_it(engine: Engine) -> None:
    register(engine, "gw-01")
    number = "ab" * 16
    inferences = [
        Inference(-2, "leak", "1", "normal", 0.4, 0.6, 100, uncertain=True, request=number),
        Inference(-2, "network", "7", "gw-2", 0.9, 0.9, 9000, request=number, supersedes=True),
        Inference(-1, "leak", "1", "normal", 0.1, 0.9, 100),
    ]
    store = Store(engine, clock=lambda: NOW_MS / 1000)
    store.commit([arrival(Telemetry(EPOCH, 1, base(), [], [], inferences))])
    store.close()
    found = query.inferences(engine, "gw-01", 0, 2**53, 10)
    told = {(view.model, view.uncertain, view.request, view.supersedes) for view in found}
    assert told == {
        ("leak", True, number, False),
        ("network", False, number, True),
        ("leak", False, "", False),
    }


def test_a_lookup_of_answers_uses_the_key(engine: Engine) -> None:
    """A thousand questions a second must not read the whole table."""
    if engine.dialect.name != "sqlite":
        pytest.skip("PostgreSQL plans by its statistics; an empty table is read whole")
    statements: list[str] = []
    from sqlalchemy import event

    register(engine, "gw-1")
    event.listen(
        engine, "before_cursor_execute", lambda _c, _u, text, values, *_r: statements.append((text, values))
    )
    Ledger(engine).known([asked(), asked()], ["gw-1"])
    text, values = next(one for one in statements if "FROM answer" in one[0])
    with engine.connect() as connection:
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", values).all()
    assert "USING INDEX" in str(plan), plan
