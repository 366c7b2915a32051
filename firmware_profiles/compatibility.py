"""Whether an artifact may run on boards of a profile. Pure.

Asked by the server before a rollout goes to a device, and by the device before it installs anything.
Where a profile promises nothing (``generic`` names no machine), nothing is refused here; the
artifact's own golden inputs then decide on the device.
"""

from collections.abc import Sequence

from firmware_profiles.schema import Profile
from fleet_protocol.manifest import Runtime
from fleet_protocol.targets import ImageFormat, Requirements
from fleet_protocol.texts import _


def problems(requires: Requirements, profile: Profile) -> list[str]:
    """Why an artifact with these requirements must not run on ``profile``; empty: it may.

    Each is a sentence that says why not and what would fit. ``requires.model`` is not judged: that
    is a question of what is installed, not of the board.
    """
    found = [
        _profile_problem(requires.profiles, profile),
        _machine_problem(requires.machines, profile),
        _memory_problem(requires.min_memory_mib, profile),
        _runtime_problem(requires.runtimes, profile),
        _image_problem(requires.image, profile),
    ]
    return [problem for problem in found if problem]


def _profile_problem(wanted: Sequence[str], profile: Profile) -> str:
    if not wanted or profile.name in wanted:
        return ""
    return _("It is made for {wanted}, not for {profile}; one that names {profile} would fit.").format(
        wanted=_either(wanted), profile=profile.name
    )


def _machine_problem(wanted: Sequence[str], profile: Profile) -> str:
    has = profile.cpu.machines
    if not wanted or not has or set(wanted) & set(has):
        return ""
    return _("It runs on {wanted} machines, and {profile} is {has}; one built for {has} would fit.").format(
        wanted=_either(wanted), profile=profile.name, has=_either(has)
    )


def _memory_problem(wanted_mib: int, profile: Profile) -> str:
    has_mib = profile.memory.installed_mib.value
    if wanted_mib <= has_mib:
        return ""
    return _(
        "It needs {wanted} MiB of memory, and {profile} promises {has} MiB; one that asks for at most "
        "{has} MiB would fit."
    ).format(wanted=wanted_mib, profile=profile.name, has=has_mib)


def _runtime_problem(wanted: Sequence[Runtime], profile: Profile) -> str:
    has = profile.runtimes.allowed
    if not wanted or set(wanted) & set(has):
        return ""
    return _("It runs on {wanted}, and {profile} has {has}; one with a variant for {has} would fit.").format(
        wanted=_either(wanted), profile=profile.name, has=_either(has)
    )


def _image_problem(wanted: ImageFormat | None, profile: Profile) -> str:
    has = profile.os_updater
    if wanted is None or wanted.value == has.value:
        return ""
    if has.value in set(ImageFormat):
        return _("It is an image for {wanted}, and {profile} takes images for {has}.").format(
            wanted=wanted, profile=profile.name, has=has
        )
    return _(
        "It is an image for {wanted}, and {profile} takes none; a board whose profile says {wanted} would."
    ).format(wanted=wanted, profile=profile.name)


def _either(names: Sequence[str]) -> str:
    return _(" or ").join(names)
