"""What a signed target says of an artifact, and whether a device may take it. Pure.

An artifact is one file: a model is an uncompressed tar of its folder, a policy is its TOML, the
agent's own software is a tar, an operating system is an image. Two repositories vouch for it. The
image repository, signed offline, says that the artifact exists; the director says that *this device*
shall have it. Both carry the same description under ``custom``, key ``argan``; the director's names
the device too. python-tuf has verified signatures, versions and expiry before anything here is
asked; what is judged here is that the two agree, and that the device does not go back.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec

from fleet_protocol.errors import TargetError
from fleet_protocol.manifest import Digest, Identifier, Manifest, Positive, Runtime
from fleet_protocol.messages import Name
from fleet_protocol.texts import _, mark

if TYPE_CHECKING:
    # CEL takes a dozen MiB; whoever only verifies or reports does not need it.
    from fleet_protocol.policy import Policy

MAX_ARTIFACT: Final = 256 * 1024 * 1024
"""Bytes of one artifact; a device's profile may ask for less."""

MAX_IMAGE: Final = 4 * 1024 * 1024 * 1024
"""Bytes of one image of an operating system; never held in memory, on no side."""

CUSTOM: Final = "argan"
"""The key of our description in a target's ``custom``."""


class Kind(StrEnum):
    """What an artifact is."""

    MODEL = "model"
    POLICY = "policy"
    AGENT = "agent"
    OS = "os"


class Mode(StrEnum):
    """How a device is to run an artifact: in its place, or beside what runs there, telling no one."""

    ACT = "act"
    SHADOW = "shadow"


ACTUATION: Final = "actuation"
"""The role that signs policies which act, with more keys than one."""

ROLES: Final[Mapping[str, Kind]] = {
    "models": Kind.MODEL,
    "policies": Kind.POLICY,
    ACTUATION: Kind.POLICY,
    "agent": Kind.AGENT,
    "os": Kind.OS,
}
"""The delegated roles of the image repository, and what each signs; its paths begin with its name."""

SUFFIXES: Final[Mapping[Kind, str]] = {
    Kind.MODEL: ".tar",
    Kind.POLICY: ".toml",
    Kind.AGENT: ".tar",
    Kind.OS: ".img",
}

_ROLE_OF: Final = {kind: role for role, kind in ROLES.items() if role != ACTUATION}


class ImageFormat(StrEnum):
    """What an image of an operating system is made for: the board's own tool that takes it."""

    RAUC = "rauc"
    SWUPDATE = "swupdate"


class Requirements(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a device must have. An empty tuple asks for nothing.

    ``profiles``: names of firmware profiles. ``machines``: as ``uname -m`` says. ``runtimes``: one
    of them must be there. ``model``: the model whose answers a policy reads. ``python``: the version
    that software of the agent is for, as ``3.11``. ``image``: the tool that takes an operating system, and
    with it the image's format.
    """

    profiles: tuple[Name, ...] = ()
    machines: tuple[Name, ...] = ()
    min_memory_mib: Annotated[int, msgspec.Meta(ge=0)] = 0
    runtimes: tuple[Runtime, ...] = ()
    model: str = ""
    python: str = ""
    image: ImageFormat | None = None


class Description(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a target's ``custom`` says of it; ``device`` and ``mode`` are the director's to say.

    ``actuates``: a policy that does more than tell.
    """

    kind: Kind
    name: Identifier
    version: Name
    release: Positive
    requires: Requirements = Requirements()
    actuates: bool = False
    device: str = ""
    mode: Mode = Mode.ACT


@dataclass(frozen=True, slots=True)
class Target:
    """One target of a repository: where, how long, which bytes, and its description."""

    path: str
    length: int
    sha256: Digest
    description: Description

    @property
    def key(self) -> tuple[Kind, str]:
        """What it replaces: kind and name."""
        return self.description.kind, self.description.name


class Refusal(StrEnum):
    """Why an artifact or a whole update is refused, as a class of attack or accident."""

    FORGED = "forged"
    REPLAYED = "replayed"
    EXPIRED = "expired"
    TAMPERED = "tampered"
    ENDLESS = "endless"
    MALFORMED = "malformed"
    NOT_PUBLISHED = "not_published"
    DISAGREEMENT = "disagreement"
    WRONG_DEVICE = "wrong_device"
    WRONG_HARDWARE = "wrong_hardware"
    ROLLBACK = "rollback"
    FAILED_HERE = "failed_here"


@dataclass(frozen=True, slots=True)
class Words:
    """What a refusal means, and what to do next; English, looked up when read."""

    _meaning: str
    _next_step: str

    @property
    def meaning(self) -> str:
        """What it means."""
        return _(self._meaning)

    @property
    def next_step(self) -> str:
        """What to do."""
        return _(self._next_step)


WORDS: Final[Mapping[Refusal, Words]] = {
    Refusal.FORGED: Words(
        mark("Metadata is not signed by enough of the keys that this device trusts."),
        mark("Publish again with the right keys; if nobody did, treat the server as stolen."),
    ),
    Refusal.REPLAYED: Words(
        mark("Older metadata was offered than this device has already seen."),
        mark("Look whether the server was restored from a backup; publish anew so that versions grow."),
    ),
    Refusal.EXPIRED: Words(
        mark("The metadata has expired: it may hold back newer versions."),
        mark("Have the server sign anew, or check this device's clock. What runs goes on running."),
    ),
    Refusal.TAMPERED: Words(
        mark("The bytes are not those that were signed."),
        mark("Fetch again; if it repeats, look at what stands between the device and the server."),
    ),
    Refusal.ENDLESS: Words(
        mark("More bytes were sent than were signed for."),
        mark("Look at what stands between the device and the server."),
    ),
    Refusal.MALFORMED: Words(
        mark("It does not follow the format."),
        mark("Publish it again with a version of the tools that fits the device's agent."),
    ),
    Refusal.NOT_PUBLISHED: Words(
        mark("The director names an artifact that the image repository does not vouch for."),
        mark("Publish the artifact with the offline keys; if nobody meant to, treat the server as stolen."),
    ),
    Refusal.DISAGREEMENT: Words(
        mark("The two repositories say different things of the artifact."),
        mark("Assign the artifact again; if it repeats, treat the server as stolen."),
    ),
    Refusal.WRONG_DEVICE: Words(
        mark("The director's word is meant for another device."),
        mark("Look whether two devices share an address or an identity."),
    ),
    Refusal.WRONG_HARDWARE: Words(
        mark("The artifact does not fit this device."),
        mark("Give this device an artifact made for its profile."),
    ),
    Refusal.ROLLBACK: Words(
        mark("A lower release than this device has accepted before."),
        mark("To go back on purpose, publish the older content under a higher release."),
    ),
    Refusal.FAILED_HERE: Words(
        mark("This very artifact has failed on this device before."),
        mark("Publish a mended one under a higher release."),
    ),
}
"""The words for every refusal."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What a device remembers of one artifact name.

    ``highest`` is the highest release ever accepted, 0 for none. ``failed`` holds the digests that
    failed here since; a higher release than theirs has another digest.
    """

    highest: int = 0
    failed: frozenset[str] = frozenset()


def max_bytes(kind: Kind) -> int:
    """How many bytes an artifact of this kind has at most."""
    return MAX_IMAGE if kind is Kind.OS else MAX_ARTIFACT


def role_of(description: Description) -> str:
    """The delegated role that signs what is so described."""
    if description.actuates and description.kind is Kind.POLICY:
        return ACTUATION
    return _ROLE_OF[description.kind]


def path_of(description: Description) -> str:
    """The path of an artifact in both repositories: ``models/pressure_leak/2.tar``."""
    suffix = SUFFIXES[description.kind]
    return f"{role_of(description)}/{description.name}/{description.release}{suffix}"


def describe_model(manifest: Manifest) -> Description:
    """The description of a model."""
    runtimes = tuple(each for each in Runtime if manifest.variant(each))
    return Description(
        kind=Kind.MODEL,
        name=manifest.name,
        version=manifest.version,
        release=manifest.release,
        requires=Requirements(
            machines=manifest.hardware.machines,
            min_memory_mib=manifest.hardware.min_memory_mib,
            runtimes=runtimes,
        ),
    )


def describe_policy(policy: "Policy") -> Description:
    """The description of a policy."""
    return Description(
        kind=Kind.POLICY,
        name=policy.name,
        version=policy.version,
        release=policy.release,
        requires=Requirements(model=policy.model),
        actuates=policy.actuates,
    )


def custom_of(description: Description) -> dict[str, Any]:
    """``description`` as a target's ``custom``."""
    built: dict[str, Any] = {CUSTOM: msgspec.to_builtins(description)}
    return built


def parse(path: str, length: int, hashes: Mapping[str, str], custom: Any) -> Target:
    """The target that verified metadata holds under ``path``.

    Raises:
        TargetError: no SHA-256, a description that does not parse, or a path that is not its own.
    """
    try:
        described = msgspec.convert(custom[CUSTOM], Description)
        sha256 = msgspec.convert(hashes["sha256"], Digest)
    except (KeyError, TypeError, msgspec.ValidationError) as error:
        raise TargetError(
            _("target {path!r} has no description of ours: {reason}").format(path=path[:120], reason=error)
        ) from None
    role = role_of(described)
    if not path.startswith(f"{role}/"):
        raise TargetError(
            _("target {path!r} describes what the role {role!r} has to sign").format(
                path=path[:120], role=role
            )
        )
    if path != path_of(described):
        raise TargetError(_("target {path!r} describes another artifact").format(path=path[:120]))
    if (described.kind is Kind.OS) != (described.requires.image is not None):
        raise TargetError(
            _("target {path!r} does not say which updater takes it, or is none for an updater").format(
                path=path[:120]
            )
        )
    most = max_bytes(described.kind)
    if not 0 < length <= most:
        raise TargetError(
            _("target {path!r} has {length} bytes; at most {limit}").format(
                path=path[:120], length=length, limit=most
            )
        )
    return Target(path, length, sha256, described)


def judge(ordered: Target, image: Target | None, device: str, standing: Standing) -> Refusal | None:
    """Whether ``device`` may newly accept what the director ``ordered``; None is yes.

    ``image`` is what the image repository says under the same path, None where it says nothing.
    That the hardware fits is judged by the firmware profile, not here.
    """
    if ordered.description.device != device:
        return Refusal.WRONG_DEVICE
    if image is None:
        return Refusal.NOT_PUBLISHED
    if image != _as_published(ordered):
        return Refusal.DISAGREEMENT
    if ordered.description.release < standing.highest:
        return Refusal.ROLLBACK
    if ordered.sha256 in standing.failed:
        return Refusal.FAILED_HERE
    return None


def _as_published(ordered: Target) -> Target:
    """``ordered`` without the device and the mode, which only the director names."""
    description = msgspec.structs.replace(ordered.description, device="", mode=Mode.ACT)
    return Target(ordered.path, ordered.length, ordered.sha256, description)
