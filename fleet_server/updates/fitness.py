"""Whether a device's board may run an artifact, by its firmware profile."""

import msgspec

from firmware_profiles import compatibility, schema
from fleet_protocol.targets import Description
from fleet_server.database.models import Artifact


def problems(artifact: Artifact, profile: str) -> list[str]:
    """Why a device of ``profile`` may not run ``artifact``; empty where nothing is known against it.

    The device judges for itself all the same.
    """
    if profile not in schema.names():
        return []
    described = msgspec.json.decode(artifact.manifest, type=Description)
    return compatibility.problems(described.requires, schema.load(profile))
