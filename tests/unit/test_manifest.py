"""Model manifests: what fits together passes, every contradiction is named, any bytes are survived."""

import contextlib
import hashlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet_protocol import manifest as mf
from fleet_protocol.errors import ManifestError
from tests.support.manifests import small_manifest as manifest


def document(**changes: Any) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(mf.encode(manifest()))
    return fields | changes


def parse(fields: dict[str, Any]) -> mf.Manifest:
    return mf.parse(json.dumps(fields).encode())


def test_a_manifest_survives_its_encoding() -> None:
    assert mf.parse(mf.encode(manifest())) == manifest()


def test_a_variant_is_found_by_runtime() -> None:
    found = manifest().variant(mf.Runtime.LITERT)
    assert found is not None
    assert found.file == "m.tflite"
    assert manifest().variant(mf.Runtime.OPENVINO) is None


def changed(path: str, value: Any) -> dict[str, Any]:
    fields = document()
    target: Any = fields
    *way, last = path.split(".")
    for step in way:
        target = target[int(step)] if step.isdigit() else target[step]
    target[last] = value
    return fields


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        ("format", 2, "format"),
        ("name", "No Name", "name"),
        ("release", 0, "release"),
        ("golden.file", "absent.npz", "'absent.npz' is named but not listed"),
        ("variants.0.input.shape", [1, 5], "takes 5 numbers, the features give 4"),
        ("variants.0.input.shape", [2, 2], "batch is fixed at 1"),
        ("variants.0.input.scale", 0.0, "scale must be above 0"),
        ("features.0.scale", -1.0, "scale must be above 0"),
        ("output.alarm_label", "burst", "'burst' is not among the labels"),
        ("variants.0.file", "../../etc/passwd", "file"),
        ("unheard", 1, "unheard"),
    ],
)
def test_a_contradiction_is_named(path: str, value: Any, reason: str) -> None:
    with pytest.raises(ManifestError, match=reason):
        parse(changed(path, value))


def test_a_file_is_what_its_digest_says() -> None:
    content = b"weights"
    entry = mf.File("m.tflite", hashlib.sha256(content).hexdigest(), len(content))
    mf.verify_file(entry, content)
    with pytest.raises(ManifestError, match="fetch the model again"):
        mf.verify_file(entry, content + b"!")


def test_an_unlisted_file_is_an_error() -> None:
    with pytest.raises(ManifestError, match="no file 'other'"):
        manifest().file("other")


def test_a_manifest_is_a_page_not_a_data_set() -> None:
    with pytest.raises(ManifestError, match="at most"):
        mf.parse(b" " * (mf.MAX_MANIFEST + 1))


@settings(max_examples=200)
@given(st.binary(max_size=300))
def test_any_bytes_give_a_manifest_or_a_manifest_error(content: bytes) -> None:
    with contextlib.suppress(ManifestError):
        mf.parse(content)


@settings(max_examples=200)
@given(
    st.sampled_from(sorted(document())),
    st.recursive(st.none() | st.integers() | st.floats() | st.text(), st.lists),
)
def test_any_field_of_another_shape_gives_a_manifest_error_or_a_manifest(name: str, value: Any) -> None:
    with contextlib.suppress(ManifestError):
        parse(document(**{name: value}))
