"""``fleet publish`` and what follows it: artifacts, who gets them, and the bundle on a stick.

Publishing checks the artifact, uploads its bytes, signs with the key of its kind that never leaves
this machine, and hands the signed metadata to the server last.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn
from securesystemslib.signer import Signer
from tuf.api.metadata import Metadata, Targets

from fleet_console import tables
from fleet_console.commands import key_drafts, passphrases
from fleet_console.commands.delivering import MaxKib, Window, terms
from fleet_console.commands.options import AsJson, placed, show, tell
from fleet_console.commands.proposing import Reason, Wait, say
from fleet_console.errors import ConsoleError, UsageError
from fleet_console.sources.http import Answer, Place, Server
from fleet_protocol.manifest import Manifest
from fleet_protocol.targets import Kind, Mode, role_of
from fleet_protocol.texts import _
from fleet_signing import artifacts, ceremony, image, lists, os_images
from fleet_signing.artifacts import Artifact
from fleet_signing.ceremony import Bundle
from fleet_signing.drafts import Draft
from fleet_signing.files import write_durably
from fleet_signing.keys import SUFFIX
from fleet_signing.metadata import decode, encode, now
from fleet_signing.os_images import OsImage
from fleet_signing.roles import HOLDERS

publish_app: Final = typer.Typer(help=_("Sign an artifact, and publish it."), no_args_is_help=True)
artifact_app: Final = typer.Typer(help=_("What is published."), no_args_is_help=True)
bundle_app: Final = typer.Typer(help=_("Updates on a stick."), no_args_is_help=True)

Keys = Annotated[Path, typer.Option("--keys", metavar="DIR", help=_("Where the key of this kind is."))]
Device = Annotated[str, typer.Argument(metavar="DEVICE", help=_("The device's id."))]
Shadow = Annotated[
    bool, typer.Option("--shadow", help=_("In shadow: beside what acts there, compared and reported only."))
]
KindName = Annotated[Kind, typer.Argument(metavar="KIND", help=_("'model', 'policy', 'agent' or 'os'."))]
Name = Annotated[str, typer.Argument(metavar="NAME", help=_("The artifact's name."))]

_PART: Final = 64 * 1024


@publish_app.command("model", help=_("Publish the model in a folder."))
@placed
def publish_model(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help=_("The model's folder."))],
    keys: Keys,
    *,
    place: Place,
    as_json: AsJson = False,
) -> None:
    """Check, upload, sign, publish."""
    artifact = artifacts.of_model(folder)
    with place.connect() as centre:
        published = _publish(centre, artifact, keys, "")
        published.say(as_json=as_json)


@publish_app.command("policy", help=_("Publish a policy."))
@placed
def publish_policy(  # noqa: PLR0913 - the command's options
    file: Annotated[Path, typer.Argument(metavar="FILE", help=_("The policy, TOML."))],
    keys: Keys,
    *,
    place: Place,
    model: Annotated[
        Path | None, typer.Option(metavar="DIR", help=_("The model that it is for, to check it against."))
    ] = None,
    draft: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help=_("Sign with your key alone, and write what others sign next.")),
    ] = None,
    reason: Reason = "",
    wait: Wait = False,
    as_json: AsJson = False,
) -> None:
    """Check, upload, sign, and ask to publish. The server checks it against its model's newest release."""
    artifact = artifacts.of_policy(artifacts.read(file), _manifest(model) if model else None)
    with place.connect() as centre:
        if draft is not None:
            _pass_on(centre, artifact, keys, draft, as_json=as_json)
            return
        if not reason:
            raise UsageError(_("a policy takes somebody's approval: say why with --reason"))
        published = _publish(centre, artifact, keys, reason)
        published.ask(centre, wait=wait, as_json=as_json)


@publish_app.command("agent", help=_("Publish a build of the agent's own software."))
@placed
def publish_agent(
    file: Annotated[Path, typer.Argument(metavar="FILE", help=_("The build, made by 'fleet agent pack'."))],
    keys: Keys,
    *,
    place: Place,
    reason: Reason,
    wait: Wait = False,
    as_json: AsJson = False,
) -> None:
    """Check, upload, sign, and ask to publish."""
    artifact = artifacts.of_bytes(Kind.AGENT, artifacts.read(file))
    with place.connect() as centre:
        published = _publish(centre, artifact, keys, reason)
        published.ask(centre, wait=wait, as_json=as_json)


@publish_app.command("os", help=_("Publish an image of an operating system, for the board's own updater."))
@placed
def publish_os(  # noqa: PLR0913 - the command's options
    file: Annotated[Path, typer.Argument(metavar="FILE", help=_("A RAUC bundle, or SWUpdate's .swu."))],
    keys: Keys,
    *,
    place: Place,
    name: Annotated[str, typer.Option(metavar="NAME", help=_("What it is called, as 'gateway_os'."))],
    version: Annotated[str, typer.Option(metavar="VERSION", help=_("Its version, for people."))],
    release: Annotated[int, typer.Option(min=1, metavar="RELEASE", help=_("Its release; it only grows."))],
    profile: Annotated[
        list[str], typer.Option(metavar="PROFILE", help=_("A firmware profile that it is for; repeatable."))
    ],
    reason: Reason,
    wait: Wait = False,
    as_json: AsJson = False,
) -> None:
    """Upload, sign, and ask to publish. What is in the image is for the board's updater to judge."""
    image_file = os_images.of_file(file, name, version, release, profile)
    with place.connect() as centre:
        published = _publish(centre, image_file, keys, reason)
        published.ask(centre, wait=wait, as_json=as_json)


@artifact_app.command("list", help=_("List what is published."))
@placed
def list_artifacts(*, place: Place, as_json: AsJson = False) -> None:
    """Every published artifact, page by page."""
    with place.connect() as centre:
        answer = centre.pages("/v1/artifacts")
    show(answer.content, tables.artifacts(answer.content, answer.now_ms), as_json=as_json)


@placed
def assign(  # noqa: PLR0913 - the command's options
    device: Device,
    kind: KindName,
    name: Name,
    release: Annotated[int, typer.Argument(min=1, metavar="RELEASE", help=_("Its release."))],
    *,
    place: Place,
    reason: Reason,
    max_kib_per_s: MaxKib = 0,
    window: Window = None,
    shadow: Shadow = False,
    wait: Wait = False,
    as_json: AsJson = False,
) -> None:
    """One release for one device."""
    text = _("{device} shall have {kind} {name} release {release}{mode}").format(
        device=device, kind=kind, name=name, release=release, mode=_(" in shadow") if shadow else ""
    )
    body = {"release": release, "reason": reason, "mode": _mode(shadow=shadow)}
    body["delivery"] = terms(max_kib_per_s, window)
    with place.connect() as centre:
        answer = centre.put(f"/v1/devices/{device}/assignments/{kind}/{name}", body)
        say(centre, answer, text, wait=wait, as_json=as_json)


@placed
def unassign(  # noqa: PLR0913 - the command's options
    device: Device,
    kind: KindName,
    name: Name,
    *,
    place: Place,
    reason: Reason,
    shadow: Shadow = False,
    wait: Wait = False,
    as_json: AsJson = False,
) -> None:
    """Nothing of that name for one device any more; what acts goes on acting, what is in shadow ends."""
    text = _("{device} is given no {kind} {name}{mode} any more").format(
        device=device, kind=kind, name=name, mode=_(" in shadow") if shadow else ""
    )
    with place.connect() as centre:
        path = f"/v1/devices/{device}/assignments/{kind}/{name}"
        answer = centre.delete(path, reason=reason, mode=_mode(shadow=shadow))
        say(centre, answer, text, wait=wait, as_json=as_json)


def _mode(*, shadow: bool) -> Mode:
    return Mode.SHADOW if shadow else Mode.ACT


@bundle_app.command("export", help=_("Write everything that a device needs for its updates into one file."))
@placed
def export_bundle(
    device: Annotated[str, typer.Option(metavar="DEVICE", help=_("The device's id."))],
    out: Annotated[Path, typer.Option(metavar="FILE", help=_("The bundle, a tar."))],
    *,
    place: Place,
    as_json: AsJson = False,
) -> None:
    """The device verifies it as if it came over the network."""
    with place.connect() as centre:
        size = centre.download(f"/v1/updates/bundles/{device}", out)
    text = _("{out} is written, {size} bytes, for {device} alone").format(out=out, size=size, device=device)
    show({"bundle": str(out), "device": device, "size": size}, text, as_json=as_json)


@dataclass(frozen=True, slots=True)
class _Published:
    """What came of publishing: the upload as the server took it, and its word on the metadata."""

    upload: Any
    answer: Answer
    text: str

    @property
    def is_proposed(self) -> bool:
        """Whether somebody else has a say in it."""
        return "proposal" in self.answer.content

    def ask(self, centre: Server, *, wait: bool, as_json: bool) -> None:
        """Tell that it waits for an approval, or, where nobody has a say in it, that it is published."""
        if self.is_proposed:
            say(centre, self.answer, self.text, wait=wait, as_json=as_json)
        else:
            self.say(as_json=as_json)

    def say(self, *, as_json: bool) -> None:
        """Tell that it is published."""
        show(self.upload, self.text, as_json=as_json)


def _publish(centre: Server, artifact: Artifact | OsImage, keys: Path, reason: str) -> _Published:
    target = artifact.target
    role = role_of(target.description)
    signers = _signers(keys, role)
    if len(signers) < HOLDERS[role].threshold:
        raise ConsoleError(
            _("{path} takes the signatures of {names}; sign with yours alone with --draft FILE").format(
                path=target.path, names=_(" and ").join(HOLDERS[role].keys)
            )
        )
    last = keys / f"{role}.json"
    base = _base(centre, role, signers, last)
    is_new = not image.holds(base.signed, target)
    signed = image.add(base, target, signers, now()) if is_new else base
    upload = centre.upload(f"/v1/artifacts/{target.path}", _parts(artifact), target.length).content
    document = ceremony.encode_bundle(Bundle((), (), {role: signed}))
    answer = centre.send("POST", "/v1/updates/metadata", document, reason=reason)
    text = (
        _("{path} is published, {size} bytes, SHA-256 {sha256}")
        if is_new
        else _("{path} was published already, {size} bytes, SHA-256 {sha256}")
    )
    if lists.is_long(signed.signed):
        count = len(signed.signed.targets)
        tell(_("{role} lists {count} artifacts; every device reads them all").format(role=role, count=count))
    published = _Published(upload, answer, text.format(**upload))
    if not published.is_proposed:
        write_durably(last, encode(signed), 0o644)
    return published


def _pass_on(centre: Server, artifact: Artifact, keys: Path, out: Path, *, as_json: bool) -> None:
    """Upload, sign with the keys at hand, and write what the others have to sign."""
    target = artifact.target
    role = role_of(target.description)
    signers = _signers(keys, role)
    before = ceremony.decode_bundle(centre.read("/v1/updates/metadata"))
    _require_own(before.roles[role], role, signers)
    signed = image.add(before.roles[role], target, signers, now())
    centre.upload(f"/v1/artifacts/{target.path}", _parts(artifact), len(artifact.content))
    key_drafts.finish(Draft(Bundle((), (), {role: signed}), before), out, as_json=as_json)


def _signers(keys: Path, role: str) -> list[Signer]:
    """Those of the role's keys that are in the folder ``keys``; one at least.

    Raises:
        KeyFileError: there is none, or one cannot be opened.
    """
    paths = [keys / f"{name}{SUFFIX}" for name in HOLDERS[role].keys]
    found = [path for path in paths if path.exists()]
    return [passphrases.open_key(path).signer for path in found or paths[:1]]


def _base(centre: Server, role: str, signers: Sequence[Signer], last: Path) -> Metadata[Targets]:
    """What to publish on top of: what the server has, or what was last published from here if it is newer.

    A server could hand out a list that somebody else has written, to have it signed: only what this
    key has signed before is signed again.
    """
    offered = ceremony.decode_bundle(centre.read("/v1/updates/metadata")).roles[role]
    _require_own(offered, role, signers)
    if not last.exists():
        return offered
    own = decode(last.read_bytes(), Targets)
    if own.signed.version <= offered.signed.version:
        return offered
    _require_own(own, role, signers)
    tell(
        _("The server has {role} {old}, but {new} was published from here; going on from that.").format(
            role=role, old=offered.signed.version, new=own.signed.version
        )
    )
    return own


def _require_own(metadata: Metadata[Targets], role: str, signers: Sequence[Signer]) -> None:
    for signer in signers:
        image.require_signed(metadata, role, signer.public_key)


def _parts(artifact: Artifact | OsImage) -> Iterator[bytes]:
    """The bytes in parts, with a bar for a person who looks on."""
    console = Console(stderr=True)
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("", total=artifact.target.length)
        for part in artifact.parts(_PART):
            yield part
            progress.advance(task, len(part))


def _manifest(folder: Path) -> Manifest:
    return artifacts.read_model(artifacts.of_model(folder).content)
