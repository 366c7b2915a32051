"""Which tool a board has, by its firmware profile."""

from typing import Final

from edge_agent.config import Config
from edge_agent.updates.osimage.rauc import Rauc
from edge_agent.updates.osimage.swupdate import Swupdate
from edge_agent.updates.osimage.updater import Updater
from edge_agent.updates.updates import folder_of
from firmware_profiles.schema import Profile
from firmware_profiles.schema import Updater as Named

LOCK: Final = "os.lock"


def updater_of(config: Config, profile: Profile) -> Updater | None:
    """The tool that takes images on this board; None where its profile names none."""
    lock, limit_s = folder_of(config) / LOCK, config.os.install_limit_s
    match profile.os_updater:
        case Named.RAUC:
            return Rauc(lock, limit_s)
        case Named.SWUPDATE:
            return Swupdate(lock, limit_s, config.os.copies)
        case _:
            return None
