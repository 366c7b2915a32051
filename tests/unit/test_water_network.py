"""The water network pack: simulation, split, record, alarm logic, and the committed models and policies."""

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fleet_protocol.errors import ManifestError
from fleet_protocol.manifest import CelType, Manifest, OutputKind, Runtime, verify_file
from fleet_protocol.policy import CompiledPolicy, Outcome, parse
from use_cases.water_network import flow_report, models_folder, record
from use_cases.water_network.alarms import (
    AlarmRule,
    alarms_per_week,
    count_alarms,
    first_alarm,
    persistent,
    tune_threshold,
)
from use_cases.water_network.detectors import (
    BASELINES,
    MODEL_ALARM,
    STEPS_A_WEEK,
    model_score,
    series_of,
)
from use_cases.water_network.network import STEP_S, STEPS_A_DAY, Leak, Scenario, junction_names
from use_cases.water_network.runtimes import load_manifest, open_model
from use_cases.water_network.scenarios import Case, Split, leak_cases, quiet_cases, tuning_cases
from use_cases.water_network.sensors import simulate
from use_cases.water_network.sites import GATEWAYS
from use_cases.water_network.windows import LEAK_FEATURES, WINDOW

MODELS = ("pressure_leak", "flow_day")
POLICIES = {"pressure_leak": "leak.toml", "flow_day": "flow.toml"}
LARGEST_ARTIFACT = 100_000
"""Bytes; what a gateway on a narrow link takes in seconds."""


def folder(model: str) -> Path:
    """Where the model lies."""
    return models_folder() / model


def labels(manifest: Manifest, inputs: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """Which rows are alarms, as the manifest's output kind says."""
    if manifest.output.kind is OutputKind.CLASSIFICATION:
        return np.asarray(outputs.argmax(axis=1) == manifest.output.labels.index(manifest.output.alarm_label))
    return np.asarray(np.square(outputs - inputs).mean(axis=1) >= manifest.output.threshold)


class TestSimulation:
    """EPANET under stochastic demand."""

    LEAK = Leak("166", 20.0, STEPS_A_DAY)

    def test_equal_scenarios_give_equal_readings(self) -> None:
        first, second = (simulate(Scenario(5, 2, self.LEAK)) for _ in range(2))
        np.testing.assert_array_equal(first.pressure, second.pressure)
        np.testing.assert_array_equal(first.flow, second.flow)
        assert not np.array_equal(first.pressure, simulate(Scenario(6, 2, self.LEAK)).pressure)

    def test_a_leak_changes_nothing_before_it_and_its_district_after_it(self) -> None:
        dry, wet = simulate(Scenario(5, 2)), simulate(Scenario(5, 2, self.LEAK))
        guard = [each.name for each in GATEWAYS].index("gw-164")
        assert dry.flow.shape == (2 * STEPS_A_DAY, len(GATEWAYS))
        np.testing.assert_array_equal(dry.flow[:STEPS_A_DAY], wet.flow[:STEPS_A_DAY])
        np.testing.assert_array_equal(dry.pressure[:STEPS_A_DAY], wet.pressure[:STEPS_A_DAY])
        gained = (wet.flow - dry.flow)[STEPS_A_DAY:, guard]
        # An emitter of 20 L/s at 40 m, all of it through the chamber of a dead end, at some 45 m.
        assert gained.min() > 18.0
        assert gained.max() < 25.0
        assert (wet.pressure - dry.pressure)[STEPS_A_DAY:].mean() < -0.1

    def test_readings_are_plausible(self) -> None:
        frame = simulate(Scenario(8, 7))
        assert np.isfinite(frame.pressure).all()
        assert frame.pressure.min() > 15.0
        assert frame.pressure.max() < 80.0
        assert frame.flow.min() >= 0.0


class TestScenarios:
    """The split between training and report."""

    def test_no_seed_and_no_leaking_junction_is_on_both_sides(self) -> None:
        sides = []
        for split in Split:
            cases = [*leak_cases(split), *quiet_cases(split)]
            seeds = [case.scenario.seed for case in cases]
            assert len(set(seeds)) == len(seeds)
            sides.append((set(seeds), {case.scenario.leak.node for case in cases if case.scenario.leak}))
        (training, training_nodes), (held_out, held_out_nodes) = sides
        assert not training & held_out
        assert not training_nodes & held_out_nodes
        assert len(held_out_nodes) > 10

    def test_thresholds_are_placed_on_training_scenarios(self) -> None:
        held_out = {case.scenario.seed for case in quiet_cases(Split.HELD_OUT)}
        assert not held_out & {case.scenario.seed for case in tuning_cases()}

    def test_every_leak_has_its_history_and_its_search_time(self) -> None:
        for split in Split:
            for case in leak_cases(split):
                _, leak = case.guarded()
                assert WINDOW <= leak.start_step <= case.scenario.steps - 3 * STEPS_A_DAY

    def test_gateways_stand_in_the_network(self) -> None:
        junctions = set(junction_names())
        assert len({each.name for each in GATEWAYS}) == len(GATEWAYS) >= 12
        for gateway in GATEWAYS:
            assert {gateway.node, *gateway.training, *gateway.held_out} <= junctions


class TestRecord:
    """The real flow record and our labels."""

    def test_the_four_segments_and_the_prefix(self) -> None:
        assert [segment.kind for segment in record.segments()] == ["low", "low", "peak", "low"]
        assert len(record.clean_prefix()) == 93
        assert record.clean_prefix().min() > 99.0

    def test_runs_hold_short_gaps_and_break_at_long_ones(self) -> None:
        runs = record.runs()
        assert sum(len(run.flow) for run in runs) == 1268 + 6  # rows, and three lone hours and a gap of three
        for before, after in pairwise(runs):
            assert after.start_s - before.times()[-1] > (record.HOLD_STEPS + 1) * record.STEP_S

    def test_the_model_finds_every_segment_on_both_runtimes(self) -> None:
        text = flow_report.text()
        rows = [line for line in text.splitlines() if line.startswith("| model")]
        assert len(rows) == 3
        for row in rows:
            assert "not found" not in row
            assert int(row.split("|")[-3]) <= 2


class TestAlarms:
    """Persistence, cooldown, thresholds."""

    def test_an_alarm_needs_windows_in_a_row_and_then_rests(self) -> None:
        scores = np.array([0, 9, 9, 0, 9, 9, 9, 9, 9, 9, 0], dtype=np.float32)
        rule = AlarmRule(for_windows=3, cooldown=3)
        assert first_alarm(scores, 1.0, rule) == 6
        assert count_alarms(np.array([False, True, True, True, True, False]), rule) == 2
        assert first_alarm(scores, 9.0, rule) == math.inf

    @given(arrays(np.float32, 500, elements=st.floats(0, 1, width=32)), st.integers(1, 5), st.integers(1, 50))
    def test_the_tuned_threshold_is_quiet_enough(
        self, scores: np.ndarray, for_windows: int, cooldown: int
    ) -> None:
        rule = AlarmRule(for_windows, cooldown)
        assert alarms_per_week([scores], tune_threshold([scores], rule, 100, 1.0), rule, 100) <= 1.0

    def test_the_tuned_threshold_is_no_higher_than_needed(self) -> None:
        scores = np.zeros(100, dtype=np.float32)
        scores[[10, 50, 90]] = [0.7, 0.9, 0.8]
        threshold = tune_threshold([scores], AlarmRule(1, 10), 100, 2.0)
        assert threshold == pytest.approx(0.7)


@pytest.mark.parametrize("model", MODELS)
class TestArtifacts:
    """The committed models, as an agent will get them."""

    def test_the_manifest_names_its_files_truly(self, model: str) -> None:
        manifest = load_manifest(folder(model))
        assert manifest.name == model
        for entry in manifest.files:
            content = (folder(model) / entry.name).read_bytes()
            verify_file(entry, content)
            assert len(content) < LARGEST_ARTIFACT
            with pytest.raises(ManifestError):
                verify_file(entry, content[:-1] + bytes([content[-1] ^ 1]))

    @pytest.mark.parametrize("runtime", [Runtime.LITERT, Runtime.OPENVINO])
    def test_golden_inputs_give_the_golden_answers(self, model: str, runtime: Runtime) -> None:
        manifest = load_manifest(folder(model))
        with np.load(folder(model) / manifest.golden.file) as golden:
            inputs, expected = golden["inputs"], golden["outputs"]
        outputs = open_model(folder(model), runtime)(inputs)
        assert np.abs(outputs - expected).max() <= manifest.golden.tolerance
        wanted = labels(manifest, inputs, expected)
        assert np.mean(labels(manifest, inputs, outputs) == wanted) >= manifest.golden.agreement
        assert 0 < wanted.sum() < len(wanted)
        # A tolerance that any answer meets would prove nothing.
        assert manifest.golden.tolerance < 0.25 * np.ptp(expected)

    def test_the_policy_type_checks(self, model: str) -> None:
        manifest = load_manifest(folder(model))
        policy = parse((folder(model).parents[1] / "policies" / POLICIES[model]).read_bytes())
        answers = {
            name: {CelType.DOUBLE: 0.999, CelType.STRING: manifest.output.alarm_label}[kind]
            for name, kind in manifest.answers.items()
        }
        readings = {f"reading.{feature.metric}": 5.0 for feature in manifest.features}
        held = CompiledPolicy(policy, manifest).evaluate(answers | {"score": 99.0} | readings)
        assert all(isinstance(result, bool) for _, result in held)
        assert any(result and rule.outcome is Outcome.EVENT for rule, result in held)


def _is_burst_at(case: Case, node: str) -> bool:
    return case.size is not None and case.size.name == "burst" and case.guarded()[1].node == node


class TestLeakModel:
    """The leak model where it will stand."""

    def test_manifest_policy_and_report_tell_the_same(self) -> None:
        manifest = load_manifest(folder("pressure_leak"))
        assert manifest.features == LEAK_FEATURES
        assert manifest.step_s == STEP_S
        rule = parse((models_folder().parent / "policies/leak.toml").read_bytes()).rules[0]
        assert (rule.for_windows, rule.cooldown_s) == (MODEL_ALARM.for_windows, MODEL_ALARM.cooldown * STEP_S)

    def test_a_held_out_burst_is_found_on_both_runtimes(self) -> None:
        case = next(case for case in leak_cases(Split.HELD_OUT) if _is_burst_at(case, "166"))
        guard, leak = case.guarded()
        series = series_of(simulate(case.scenario), guard)
        start = leak.start_step - WINDOW + 1
        found = []
        for runtime in (Runtime.LITERT, Runtime.OPENVINO):
            scores = model_score(open_model(folder("pressure_leak"), runtime))(series)
            assert count_alarms(persistent(scores[:start], MODEL_ALARM) > 0.5, MODEL_ALARM) == 0
            found.append(first_alarm(scores[start:], 0.5, MODEL_ALARM))
        assert max(found) <= STEPS_A_DAY / 2

    def test_every_detector_scores_every_step(self) -> None:
        series = series_of(simulate(Scenario(77, 10)), 0)
        for detector in BASELINES:
            scores = detector.score(series)
            assert scores.shape == (10 * STEPS_A_DAY - WINDOW + 1,)
            assert np.isfinite(scores).all()
        assert STEPS_A_WEEK == 672
