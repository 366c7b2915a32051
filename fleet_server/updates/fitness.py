"""Whether a device's board may run an artifact, by its firmware profile."""

from importlib import import_module

from fleet_protocol import manifest
from fleet_protocol.errors import ManifestError
from fleet_protocol.targets import Kind, Requirements, describe_model
from fleet_server.database.models import Artifact


def problems(artifact: Artifact, profile: str) -> list[str]:
    """Why a device of ``profile`` may not run ``artifact``; empty where nothing is known against it.

    The device judges for itself all the same.
    """
    try:
        compatibility = import_module("firmware_profiles.compatibility")
        schema = import_module("firmware_profiles.schema")
    except ModuleNotFoundError:
        return []
    if profile not in schema.names():
        return []
    found: list[str] = compatibility.problems(_requirements(artifact), schema.load(profile))
    return found


def _requirements(artifact: Artifact) -> Requirements:
    if artifact.kind != Kind.MODEL:
        return Requirements()
    try:
        return describe_model(manifest.parse(artifact.manifest.encode())).requires
    except ManifestError:
        return Requirements()
