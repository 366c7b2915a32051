"""What the agent may use on this board: its configuration within the limits of its firmware profile.

Decides; looks at nothing. What a person wrote into the configuration is obeyed even beyond the
profile, and told: somebody who knows the board better must not be fought with.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from edge_agent.config import Config, Model
from firmware_profiles.errors import ProfileUnknown
from firmware_profiles.schema import GENERIC, Profile, load
from fleet_protocol.texts import _

MIB: Final = 2**20

FLUSH_INTERVAL_S: Final = 1.0
"""How often readings are committed unless configured; longer where the profile spares the storage."""

UNKNOWN: Final = "profile.unknown"
EXCEEDED: Final = "profile.exceeded"


class Excess(NamedTuple):
    """One way in which agent or board are outside the profile, and what to do.

    ``subject`` tells it from others and stands before ``text`` wherever a person reads it.
    """

    subject: str
    text: str
    next_step: str


@dataclass(frozen=True, slots=True)
class Allowance:
    """The profile in force, and what the agent goes by. ``unknown`` says that the wanted one is not there."""

    profile: Profile
    spool_bytes: int
    flush_interval_s: float
    excesses: tuple[Excess, ...] = ()
    unknown: str = ""


def allowance(config: Config) -> Allowance:
    """What the agent of ``config`` may use; by the profile ``generic`` where its own is not known."""
    unknown = ""
    try:
        profile = load(config.profile)
    except ProfileUnknown as error:
        profile, unknown = load(GENERIC), str(error)
    limits, spool = profile.limits, config.spool
    return Allowance(
        profile=profile,
        spool_bytes=spool.max_bytes or limits.spool_mib.value * MIB,
        flush_interval_s=spool.flush_interval_s or max(FLUSH_INTERVAL_S, limits.least_flush_interval_s.value),
        excesses=(*_spool_excesses(config, profile), *_runtime_excesses(config.models, profile)),
        unknown=unknown,
    )


def _spool_excesses(config: Config, profile: Profile) -> list[Excess]:
    found = []
    max_bytes, most_mib = config.spool.max_bytes or 0, profile.limits.spool_mib.value
    if max_bytes > most_mib * MIB:
        text = _("the store may take {bytes} bytes, the profile allows {most} MiB").format(
            bytes=max_bytes, most=most_mib
        )
        found.append(Excess("spool", text, _("Lower or remove 'max_bytes' of [spool].")))
    interval_s, least_s = config.spool.flush_interval_s, profile.limits.least_flush_interval_s.value
    if interval_s is not None and interval_s < least_s:
        text = _("commits every {interval:g} s, the profile spares the storage with {least:g} s").format(
            interval=interval_s, least=least_s
        )
        found.append(Excess("flush", text, _("Raise or remove 'flush_interval_s' of [spool].")))
    return found


def _runtime_excesses(models: Sequence[Model], profile: Profile) -> list[Excess]:
    allowed = profile.runtimes.allowed
    return [
        Excess(
            model.folder.name,
            _("runs on {runtime}, the profile allows {allowed}").format(
                runtime=model.runtime, allowed=_(" or ").join(allowed)
            ),
            _("Remove 'runtime' of this model, or choose one that the profile allows."),
        )
        for model in models
        if model.runtime is not None and model.runtime not in allowed
    ]
