"""``fleet key``: the ceremony that decides who may say what, and the exchange with the server.

A ceremony is held on a machine that is never online, with files carried there and back; or, to try
things out, on one machine with the server in one command.
"""

import sys
from pathlib import Path
from typing import Annotated, Final

import typer
from securesystemslib.signer import CryptoSigner, Signer

from fleet_console.commands import draft_text, key_drafts, passphrases, proposal_text
from fleet_console.commands.key_drafts import read_draft, read_file
from fleet_console.commands.options import AsJson, placed, show, tell
from fleet_console.commands.proposing import Wait, say
from fleet_console.errors import ConsoleError, UsageError
from fleet_console.sources.http import Place
from fleet_protocol.device_folder import DIRECTOR_ROOT, IMAGE_ROOT, section
from fleet_protocol.targets import ROLES
from fleet_protocol.texts import _
from fleet_signing import acceptance, ceremony, drafts, keys
from fleet_signing.ceremony import Bundle, OfflineKeys, Request
from fleet_signing.errors import KeyFileError
from fleet_signing.files import write_durably
from fleet_signing.keys import SUFFIX
from fleet_signing.metadata import now
from fleet_signing.roles import HOLDERS, KEY_NAMES

app: Final = typer.Typer(help=_("The signing keys of updates."), no_args_is_help=True)

app.command("new", help=_("Make one key, for people who sign at several places."))(key_drafts.new)
app.command("draft", help=_("Draw up a ceremony for people who sign at several places."))(key_drafts.draw_up)
app.command("sign", help=_("Add the signatures of your keys to a draft."))(key_drafts.sign)
app.command("combine", help=_("Put together what several people have signed apart."))(key_drafts.combine)


@app.command("export", help=_("Write what a key ceremony needs to know of the server."))
@placed
def export(
    out: Annotated[Path, typer.Option(metavar="FILE", help=_("The request to carry to the ceremony."))],
    *,
    place: Place,
    as_json: AsJson = False,
) -> None:
    """The server's public keys and what is published, as a request file."""
    with place.connect() as centre:
        content = centre.read("/v1/updates/keys")
    fingerprint = ceremony.fingerprint(ceremony.decode_request(content).online)
    write_durably(out, content, 0o644)
    show(
        {"request": str(out), "fingerprint": fingerprint},
        _("{out} is written. Its fingerprint, to be compared at the ceremony:\n{fingerprint}").format(
            out=out, fingerprint=fingerprint
        ),
        as_json=as_json,
    )


@app.command("ceremony", help=_("Make the offline keys, and sign with them who may say what."))
@placed
def hold(
    keys_folder: Annotated[Path, typer.Option("--keys", metavar="DIR", help=_("Where the keys go."))],
    *,
    place: Place,
    request: Annotated[
        Path | None, typer.Option(metavar="FILE", help=_("What 'fleet key export' wrote."))
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help=_("What to carry back to 'fleet key import'."))
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Offline with --request and --out; else with a server, everything at once.

    Held again with the same keys it renews every date; a key whose file was taken away is replaced.
    """
    if (request is None) != (out is None):
        raise UsageError(_("an offline ceremony takes both --request FILE and --out FILE"))
    if request is not None and out is not None:
        asked = ceremony.decode_request(read_file(request))
        bundle = _hold(keys_folder, asked)
        write_durably(out, ceremony.encode_bundle(bundle), 0o644)
        done = _("{out} is written. Carry it to the server: fleet key import {out}").format(out=out)
    else:
        with place.connect() as centre:
            asked = ceremony.decode_request(centre.read("/v1/updates/keys"))
            bundle = _hold(keys_folder, asked)
            content = ceremony.encode_bundle(bundle)
            answer = centre.send("POST", "/v1/updates/roots", content, reason=_("a key ceremony"))
        done = _("The server has its roots. Lock the root keys away; whoever publishes needs {keys}.").format(
            keys=", ".join(f"{name}{SUFFIX}" for role in ROLES for name in HOLDERS[role].keys)
        )
        if "proposal" in answer.content:
            tell(proposal_text.next_step(answer.content["proposal"]))
            done = _("The ceremony is held; the server takes it once somebody has approved it.")
    version = bundle.image_roots[-1].signed.version
    found = {"keys": str(keys_folder), "root": version, "fingerprint": ceremony.fingerprint(asked.online)}
    show(found, done, as_json=as_json)


@app.command("import", help=_("Give the server what people have signed."))
@placed
def import_(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help=_("What 'fleet key ceremony' or 'fleet key sign' wrote.")),
    ],
    *,
    place: Place,
    reason: Annotated[
        str, typer.Option(metavar="TEXT", help=_("Why; all but the first one take somebody's approval."))
    ] = "",
    wait: Wait = False,
    as_json: AsJson = False,
) -> None:
    """The server checks every signature before it takes anything."""
    draft = read_draft(file)
    if lacks := drafts.lacking(draft):
        raise ConsoleError(draft_text.who_lacks(lacks))
    content = ceremony.encode_bundle(draft.bundle)
    where = "roots" if draft.bundle.image_roots else "metadata"
    with place.connect() as centre:
        answer = centre.send("POST", f"/v1/updates/{where}", content, reason=reason)
        if "proposal" in answer.content:
            say(centre, answer, _("The server has taken it."), wait=wait, as_json=as_json)
        else:
            versions = answer.content["versions"].items()
            text = ", ".join(f"{name} {version}" for name, version in versions)
            show(answer.content, _("Published: {versions}").format(versions=text), as_json=as_json)


@app.command("roots", help=_("Write the roots that a device pins, for one that was added before."))
@placed
def roots(
    out: Annotated[Path, typer.Option(metavar="DIR", help=_("The device's folder."))],
    *,
    place: Place,
    as_json: AsJson = False,
) -> None:
    """Both roots into the device's folder, and what to write into its configuration."""
    with place.connect() as centre:
        found = centre.get("/v1/updates/roots").content
    if not (found["image"] and found["director"]):
        raise ConsoleError(_("there are no roots yet; hold a key ceremony: fleet key ceremony --help"))
    write_durably(out / IMAGE_ROOT, found["image"].encode(), 0o644)
    write_durably(out / DIRECTOR_ROOT, found["director"].encode(), 0o644)
    show(found, section(found["updates_url"]), as_json=as_json)


def _hold(folder: Path, asked: Request) -> Bundle:
    """The ceremony itself. Keys that are missing are made, and written once everything is signed."""
    _confirm(asked)
    offline, fresh = _collect(folder)
    bundle = ceremony.hold(offline, asked.online, now(), asked.current)
    acceptance.accept(asked.current, bundle, asked.online, now(), lambda _target: None)
    for name, signer in fresh.items():
        passphrase = passphrases.ask(name, is_new=True)
        keys.write(folder / f"{name}{SUFFIX}", name, signer, passphrase)
    if fresh:
        tell(_("Keys made in {folder}: {names}").format(folder=folder, names=", ".join(fresh)))
    return bundle


def _confirm(asked: Request) -> None:
    """Whoever carries the request could have changed it: people compare."""
    tell(_("The server's keys have the fingerprint {it}").format(it=ceremony.fingerprint(asked.online)))
    if sys.stdin.isatty() and not typer.confirm(_("Is it what 'fleet key export' said?"), err=True):
        raise ConsoleError(_("the request is not the server's own; export it again"))


def _collect(folder: Path) -> tuple[OfflineKeys, dict[str, CryptoSigner]]:
    """All offline keys: those in ``folder``, and new ones for the rest."""
    found = {name: _key(folder / f"{name}{SUFFIX}", name) for name in KEY_NAMES}
    fresh = {name: keys.generate() for name, signer in found.items() if signer is None}
    signers: dict[str, Signer] = {name: signer or fresh[name] for name, signer in found.items()}
    return OfflineKeys.named(signers), fresh


def _key(path: Path, name: str) -> Signer | None:
    if not path.exists():
        return None
    held = passphrases.open_key(path)
    if held.role != name:
        raise KeyFileError(
            _("{path} is the key {role}, not {name}").format(path=path, role=held.role, name=name)
        )
    return held.signer
