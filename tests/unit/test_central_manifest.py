"""The manifest of a central model: contradictions are named, any bytes survived, outputs read."""

import contextlib
import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet_protocol import central
from fleet_protocol.errors import CentralError
from fleet_protocol.manifest import File


def manifest(**changes: Any) -> central.CentralManifest:
    fields: dict[str, Any] = {
        "format": 1,
        "name": "network",
        "version": "1",
        "licence": "Apache-2.0",
        "description": "",
        "file": "network.xml",
        "files": (File("network.xml", "0" * 64, 1), File("network.bin", "0" * 64, 1)),
        "serves": ("pressure_leak",),
        "gateways": ("gw-1", "gw-2"),
        "metrics": (central.CentralMetric("flow", "l/s"), central.CentralMetric("pressure", "m")),
        "step_s": 900.0,
        "steps": 96,
        "labels": ("none", "gw-1", "gw-2"),
        "none": "none",
    }
    return central.CentralManifest(**(fields | changes))


def parse(fields: dict[str, Any]) -> central.CentralManifest:
    return central.parse(json.dumps(fields).encode())


def document(**changes: Any) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(central.encode(manifest()))
    return fields | changes


def test_a_manifest_survives_its_encoding() -> None:
    content = central.encode(manifest())
    assert central.parse(content) == manifest()
    assert manifest().shape == (1, 2, 2, 96)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"format": 2}, "format"),
        ({"name": "No Name"}, "name"),
        ({"gateways": ["gw-1", "gw-1"]}, "'gw-1' stands in one list twice"),
        ({"gateways": []}, "gateways"),
        ({"gateways": ["Gw/1"]}, "gateways"),
        ({"labels": ["none", "a", "a"]}, "'a' stands in one list twice"),
        ({"labels": ["none"]}, "labels"),
        ({"none": "other"}, "label 'other' is not among the labels"),
        ({"file": "other.xml"}, "file 'other.xml' is named but not listed"),
        ({"file": "../x"}, "file"),
        ({"step_s": 0.0}, "step_s"),
        ({"steps": 0}, "steps"),
        ({"steps": 2**24}, "numbers; at most"),
        ({"unheard": 1}, "unheard"),
    ],
)
def test_a_contradiction_is_named(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(CentralError, match=reason):
        parse(document(**changes))


@pytest.mark.parametrize("content", [b"", b"\xff", b"[" * 10_000, b"a" * (central.MAX_MANIFEST + 1)])
def test_what_is_no_manifest_is_one_error(content: bytes) -> None:
    with pytest.raises(CentralError):
        central.parse(content)


@settings(max_examples=200)
@given(st.binary(max_size=200))
def test_any_bytes_give_a_manifest_or_an_error(content: bytes) -> None:
    with contextlib.suppress(CentralError):
        central.parse(content)


def test_the_likeliest_label_and_how_likely_something_is_wrong() -> None:
    assert central.read_verdict(manifest(), [0.1, 0.2, 0.7]) == ("gw-2", 0.9, 0.7)
    assert central.read_verdict(manifest(), [1.0, 0.0, 0.0]) == ("none", 0.0, 1.0)
    assert central.read_verdict(manifest(), [0.0, 1.001, 0.0]) == ("gw-1", 1.0, 1.0)


@pytest.mark.parametrize(
    "output",
    [
        [],
        [1.0],
        [0.5, 0.5],
        [0.2, 0.2, 0.2],
        [0.9, 0.9, 0.9],
        [1.2, -0.1, -0.1],
        [math.nan, 0.5, 0.5],
        [math.inf, 0.0, 0.0],
        [-math.inf, math.inf, 1.0],
        [0.1, 0.2, 0.3, 0.4],
    ],
)
def test_what_is_no_distribution_is_no_verdict(output: list[float]) -> None:
    with pytest.raises(CentralError, match="no probabilities over its 3 labels"):
        central.read_verdict(manifest(), output)


@given(st.lists(st.floats(width=32), min_size=3, max_size=3))
def test_any_output_gives_a_verdict_or_an_error(output: list[float]) -> None:
    with contextlib.suppress(CentralError):
        verdict = central.read_verdict(manifest(), output)
        assert 0.0 <= verdict.score <= 1.0
        assert 0.0 <= verdict.confidence <= 1.0
        assert verdict.label in manifest().labels
