"""The central model, the second edge release, the faulty ones, and the records of the escalation table."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from edge_agent.errors import ModelRefused
from edge_agent.inference.session import open_session
from fleet_console.commands.calibrating import KEEP_NOTHING
from fleet_protocol.central import FILE_NAME, read_verdict
from fleet_protocol.manifest import Runtime, verify_file
from fleet_protocol.policy import parse as parse_policy
from use_cases.water_network import faulty_models, models_folder
from use_cases.water_network.central_model import METRICS, NONE, central_folder, open_central, window_of
from use_cases.water_network.central_model import load_manifest as load_central
from use_cases.water_network.decisions import Purpose, decision_cases, open_zone, questions
from use_cases.water_network.detectors import model_score, series_of
from use_cases.water_network.escalation_records import EDGE_MODELS, read, records_file
from use_cases.water_network.escalation_report import learned, report
from use_cases.water_network.network import STEPS_A_DAY, Leak, Scenario
from use_cases.water_network.runtimes import load_manifest, open_model
from use_cases.water_network.scenarios import Case, Split, leak_cases, quiet_cases, short_quiet_cases
from use_cases.water_network.sensors import Frame, simulate
from use_cases.water_network.sites import GATEWAYS
from use_cases.water_network.windows import WINDOW

PLACES = {gateway.name: place for place, gateway in enumerate(GATEWAYS)}
POLICIES = {"pressure_leak": "leak.toml", "pressure_leak_2": "leak_2.toml"}


@pytest.fixture(scope="module")
def quiet() -> Frame:
    """Eleven days without a leak that no model was made with."""
    return simulate(Scenario(4_001, 11))


@pytest.fixture(scope="module")
def burst() -> Frame:
    """A leak of 20 L/s on the tenth day at a junction where training saw none, in the district of gw-149."""
    return simulate(Scenario(4_002, 11, Leak("143", 20.0, 9 * STEPS_A_DAY)))


class TestDecisions:
    def test_no_seed_serves_two_purposes(self) -> None:
        groups = [decision_cases(purpose) for purpose in Purpose]
        groups += [[*leak_cases(split), *quiet_cases(split)] for split in Split]
        groups.append(short_quiet_cases())
        seeds = [case.scenario.seed for group in groups for case in group]
        assert len(set(seeds)) == len(seeds)

    def test_leaks_are_where_training_saw_none_and_in_their_guards_district(self) -> None:
        for case in [
            case for purpose in Purpose for case in decision_cases(purpose) if case.guard is not None
        ]:
            guard, leak = case.guarded()
            assert leak.node in GATEWAYS[guard].held_out

    def test_one_gateway_is_asked_a_day_and_its_window_is_full(self) -> None:
        for case in decision_cases(Purpose.CALIBRATION):
            asked = list(questions(case))
            assert [question.day for question in asked] == [8, 9, 10]
            assert all(question.step // STEPS_A_DAY == question.day for question in asked)
            assert all(WINDOW <= question.step + 1 <= case.scenario.steps for question in asked)

    def test_a_leak_is_open_from_its_first_step_on(self) -> None:
        case = Case(Scenario(1, 11, Leak("143", 5.0, 900)), guard=PLACES["gw-149"])
        assert open_zone(case, 899) is None
        assert open_zone(case, 900) == PLACES["gw-149"]
        assert open_zone(Case(Scenario(1, 11)), 900) is None


class TestCentralModel:
    def test_the_manifest_names_the_gateways_and_every_file(self) -> None:
        manifest = load_central(central_folder())
        assert manifest.gateways == tuple(gateway.name for gateway in GATEWAYS)
        assert [metric.name for metric in manifest.metrics] == list(METRICS)
        assert (manifest.steps, manifest.labels) == (WINDOW, (*manifest.gateways, NONE))
        for entry in manifest.files:
            verify_file(entry, (central_folder() / entry.name).read_bytes())
        assert sum(entry.size for entry in manifest.files) < 4_000_000

    def test_it_names_the_zone_of_a_burst_and_none_without_one(self, quiet: Frame, burst: Frame) -> None:
        run, manifest = open_central(central_folder()), load_central(central_folder())
        ends = [10 * STEPS_A_DAY + hour * STEPS_A_DAY // 24 for hour in (0, 8, 16)]
        for frame, label in ((burst, "gw-149"), (quiet, "none")):
            windows = [window_of(frame, end, WINDOW) for end in ends]
            verdicts = [read_verdict(manifest, run(w, np.ones_like(w)).tolist()) for w in windows]
            assert [verdict.label for verdict in verdicts] == [label] * len(ends)

    def test_what_was_not_measured_changes_nothing(self, burst: Frame) -> None:
        run = open_central(central_folder())
        readings = window_of(burst, 1000, WINDOW)
        mask = np.ones_like(readings)
        mask[PLACES["gw-207"]] = 0.0
        mask[:, :, :50] = 0.0
        held = run(readings * mask, mask)
        for strange in (np.nan, np.inf, -1e30):
            np.testing.assert_array_equal(run(np.where(mask > 0, readings, strange), mask), held)

    def test_nothing_measured_at_all_is_still_a_distribution(self) -> None:
        empty = np.zeros((len(GATEWAYS), len(METRICS), WINDOW), dtype=np.float32)
        read_verdict(load_central(central_folder()), open_central(central_folder())(empty, empty).tolist())

    def test_it_answers_while_a_third_of_the_gateways_is_missing(self, burst: Frame) -> None:
        readings = window_of(burst, 10 * STEPS_A_DAY + 40, WINDOW)
        mask = np.ones_like(readings)
        mask[[PLACES[name] for name in ("gw-229", "gw-191", "gw-167", "gw-195", "gw-241")]] = 0.0
        answer = open_central(central_folder())(readings * mask, mask)
        assert read_verdict(load_central(central_folder()), answer.tolist()).label == "gw-149"


class TestEdgeModels:
    @pytest.mark.parametrize("model", EDGE_MODELS)
    def test_without_a_leak_most_windows_are_normal_at_every_quarter_of_an_hour(
        self, quiet: Frame, model: str
    ) -> None:
        """Trained on quiet windows of some quarters of an hour only, a model once learned those."""
        score = model_score(open_model(models_folder() / model, Runtime.LITERT))
        alarms = np.stack([score(series_of(quiet, place)) > 0.5 for place in range(1, len(GATEWAYS))])
        by_phase = [alarms[:, phase::6].mean() for phase in range(6)]
        assert max(by_phase) < 0.3
        assert max(by_phase) - min(by_phase) < 0.05

    def test_the_second_release_is_the_next_of_the_same_model(self) -> None:
        first, second = (load_manifest(models_folder() / model) for model in EDGE_MODELS)
        assert (first.name, first.version, first.release) == ("pressure_leak", "1.0.0", 1)
        assert (second.name, second.version, second.release) == ("pressure_leak", "1.1.0", 2)
        assert second.answers == first.answers
        for entry in second.files:
            verify_file(entry, (models_folder() / "pressure_leak_2" / entry.name).read_bytes())


class TestFaultyModels:
    @pytest.mark.parametrize("runtime", [Runtime.LITERT, Runtime.OPENVINO])
    def test_the_bad_one_fails_its_golden_inputs(self, tmp_path: Path, runtime: Runtime) -> None:
        faulty_models.make_bad(tmp_path / "bad")
        with pytest.raises(ModelRefused, match="golden"):
            open_session(tmp_path / "bad", isolation="none", runtime=runtime)

    @pytest.mark.parametrize("runtime", [Runtime.LITERT, Runtime.OPENVINO])
    def test_the_worse_one_passes_them_and_sees_leaks_everywhere(
        self, tmp_path: Path, quiet: Frame, runtime: Runtime
    ) -> None:
        faulty_models.make_worse(tmp_path / "worse")
        session = open_session(tmp_path / "worse", isolation="none", runtime=runtime)
        try:
            labels = []
            for place in range(len(GATEWAYS)):
                metrics = quiet.metrics(place)
                for end in range(WINDOW, quiet.flow.shape[0], 37):
                    windows = [
                        memoryview(np.ascontiguousarray(metrics[f.metric][end - f.window : end]))
                        for f in session.manifest.features
                    ]
                    labels.append(session.infer(windows).label)
        finally:
            session.close()
        assert labels.count("leak") / len(labels) > 0.95

    def test_they_follow_the_second_release(self, tmp_path: Path) -> None:
        faulty_models.make_bad(tmp_path / "bad")
        faulty_models.make_worse(tmp_path / "worse")
        releases = [load_manifest(tmp_path / name).release for name in ("bad", "worse")]
        assert releases == [3, 4]
        for name in ("bad", "worse"):
            for entry in load_manifest(tmp_path / name).files:
                verify_file(entry, (tmp_path / name / entry.name).read_bytes())


class TestEscalation:
    @pytest.mark.parametrize("model", EDGE_MODELS)
    def test_the_records_are_those_of_the_scenarios(self, model: str) -> None:
        for purpose in Purpose:
            expected = [
                (str(case.scenario.seed), question.day, GATEWAYS[question.place].name)
                for case in decision_cases(purpose)
                for question in questions(case)
            ]
            made = [(each.scenario, each.day, each.gateway) for each in read(records_file(model, purpose))]
            assert made == expected

    @pytest.mark.parametrize("model", EDGE_MODELS)
    def test_a_policy_holds_what_its_records_teach(self, model: str) -> None:
        policy = parse_policy((models_folder().parent / "policies" / POLICIES[model]).read_bytes())
        table = policy.escalation
        assert table is not None
        manifest = (models_folder() / model / "manifest.json").read_bytes()
        assert table.model_sha256 == hashlib.sha256(manifest).hexdigest()
        result = learned(read(records_file(model, Purpose.CALIBRATION)), table.alpha)
        threshold = KEEP_NOTHING if result.threshold is None else result.threshold
        assert (table.temperature, table.threshold) == (result.temperature, threshold)
        assert (table.delta, table.n_cal) == (result.delta, result.n_cal)

    def test_the_report_is_that_of_the_records(self) -> None:
        written = (models_folder().parent / "ESCALATION.md").read_text(encoding="utf-8")
        assert report() == written

    def test_the_models_still_give_the_recorded_answers(self) -> None:
        """For a few scenarios, simulated afresh; a hair's breadth may turn on another processor."""
        records = {
            (each.scenario, each.day): each for each in read(records_file("pressure_leak_2", Purpose.REPORT))
        }
        edge = model_score(open_model(models_folder() / "pressure_leak_2", Runtime.LITERT))
        equal = []
        for case in decision_cases(Purpose.REPORT)[:8]:
            frame = simulate(case.scenario)
            for question in questions(case):
                record = records[(str(case.scenario.seed), question.day)]
                score = float(edge(series_of(frame, question.place))[question.step + 1 - WINDOW])
                equal.append(abs(max(score, 1 - score) - record.confidence) < 0.05)
        assert sum(equal) >= len(equal) - 2


def test_the_central_folder_holds_nothing_unlisted() -> None:
    listed = {entry.name for entry in load_central(central_folder()).files}
    assert {path.name for path in central_folder().iterdir()} == listed | {FILE_NAME, "MODEL_CARD.md"}
