"""The agent's features against a slow computation in plain Python, straight from the manifest's words."""

import math
from collections.abc import Sequence

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edge_agent.pipeline.features import FeatureMap
from fleet_protocol.errors import ManifestError
from fleet_protocol.manifest import Feature, FeatureKind, encode, parse
from tests.support.manifests import small_manifest

LEVELS = st.floats(-500.0, 500.0, width=32)
WAVES = st.floats(0.0, 20.0)
Floats = NDArray[np.float32]


@st.composite
def features(draw: st.DrawFn) -> Feature:
    """A feature of any kind."""
    kind = draw(st.sampled_from(FeatureKind))
    return Feature(
        metric="flow",
        kind=kind,
        length=draw(st.integers(1, 24)),
        center=draw(LEVELS),
        scale=draw(st.floats(0.1, 10.0)),
        cycles=0 if kind is FeatureKind.STANDARD else draw(st.integers(1, 8)),
    )


@st.composite
def features_and_windows(draw: st.DrawFn) -> tuple[tuple[Feature, ...], list[Floats]]:
    """Some features, each with a window of plausible readings."""
    chosen = tuple(draw(st.lists(features(), min_size=1, max_size=4)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    return chosen, [
        np.asarray(draw(LEVELS) + draw(WAVES) * rng.standard_normal(each.window), dtype=np.float32)
        for each in chosen
    ]


def slowly(feature: Feature, window: Sequence[float]) -> list[float]:
    """What the manifest says of ``feature``, in float64 and loops."""
    length = feature.length
    if feature.kind is FeatureKind.STANDARD:
        return [(value - feature.center) / feature.scale for value in window]
    *periods, last = [window[start : start + length] for start in range(0, len(window), length)]
    mean = [math.fsum(values) / len(periods) for values in zip(*periods, strict=True)]
    if feature.kind is FeatureKind.PROFILE:
        last, mean = mean, [math.fsum(mean) / length] * length
        periods = [last]
    squares = [(value - usual) ** 2 for period in periods for value, usual in zip(period, mean, strict=True)]
    spread = max(math.sqrt(math.fsum(squares) / len(squares)), feature.scale)
    return [(value - usual) / spread for value, usual in zip(last, mean, strict=True)]


@given(features_and_windows())
def test_features_are_what_the_manifest_says(case: tuple[tuple[Feature, ...], list[Floats]]) -> None:
    chosen, windows = case
    compute = FeatureMap(chosen)
    out = np.full(compute.elements, np.nan, dtype=np.float32)
    compute(windows, out)
    wanted = [
        number
        for each, window in zip(chosen, windows, strict=True)
        for number in slowly(each, window.tolist())
    ]
    # float32 keeps 24 bits of readings up to some hundreds, and the least scale here is a tenth.
    np.testing.assert_allclose(out, wanted, rtol=1e-3, atol=1e-2)


@given(features_and_windows(), st.floats(0.01, 10.0))
def test_a_unit_only_divides(case: tuple[tuple[Feature, ...], list[Floats]], unit: float) -> None:
    chosen, windows = case
    plain, counted = (np.empty(FeatureMap(chosen).elements, dtype=np.float32) for _ in range(2))
    FeatureMap(chosen)(windows, plain)
    FeatureMap(chosen, unit)(windows, counted)
    np.testing.assert_allclose(counted * np.float32(unit), plain, rtol=1e-4, atol=1e-5)


def test_calls_do_not_touch_the_windows_or_each_other() -> None:
    feature = Feature(metric="flow", kind=FeatureKind.SEASONAL, length=4, cycles=3, scale=0.1)
    compute = FeatureMap((feature, feature))
    rng = np.random.default_rng(3)
    windows = [rng.standard_normal(feature.window).astype(np.float32) for _ in range(2)]
    kept = [window.copy() for window in windows]
    first, second = np.empty(8, np.float32), np.empty(8, np.float32)
    compute(windows, first)
    compute([windows[1], windows[0]], second)
    np.testing.assert_array_equal(first, np.roll(second, 4))
    for window, before in zip(windows, kept, strict=True):
        np.testing.assert_array_equal(window, before)


def test_a_seasonal_feature_of_a_perfect_repetition_is_zero() -> None:
    feature = Feature(metric="flow", kind=FeatureKind.SEASONAL, length=4, cycles=7, scale=0.1)
    out = np.empty(4, np.float32)
    FeatureMap((feature,))([np.tile(np.array([1, 5, 9, 2], np.float32), 8)], out)
    np.testing.assert_allclose(out, 0.0, atol=1e-4)


def test_a_missing_window_is_refused() -> None:
    feature = Feature(metric="flow", kind=FeatureKind.STANDARD, length=4)
    with pytest.raises(ValueError, match="zip"):
        FeatureMap((feature, feature))([np.zeros(4, np.float32)], np.zeros(8, np.float32))


@pytest.mark.parametrize("kind", [FeatureKind.SEASONAL, FeatureKind.PROFILE])
def test_a_manifest_with_periods_but_no_cycle_is_refused(kind: FeatureKind) -> None:
    manifest = small_manifest()
    feature = msgspec.structs.replace(manifest.features[0], kind=kind, cycles=0)
    with pytest.raises(ManifestError, match="at least one cycle"):
        parse(encode(msgspec.structs.replace(manifest, features=(feature,))))
