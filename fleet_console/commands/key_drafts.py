"""``fleet key`` for several people at several places: each makes a key, each signs the same draft.

Nobody has to meet: public halves, drafts and signed drafts are files that may travel by any way.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from fleet_console.commands import draft_text, passphrases
from fleet_console.commands.options import AsJson, show, tell
from fleet_console.errors import ConsoleError, UsageError
from fleet_protocol.texts import _
from fleet_signing import ceremony, drafts, key_uri, keys
from fleet_signing.drafts import Draft
from fleet_signing.files import write_durably
from fleet_signing.keys import SUFFIX
from fleet_signing.metadata import now
from fleet_signing.roles import KEY_NAMES

PUBLIC = ".pub"

KeysFolder = Annotated[Path, typer.Option("--keys", metavar="DIR", help=_("Where your keys are."))]
Out = Annotated[Path, typer.Option(metavar="FILE", help=_("What to write."))]


def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help=_("Which key: root-1, models, actuation-2, …"))],
    keys_folder: KeysFolder,
    *,
    pkcs11: Annotated[
        str, typer.Option(metavar="URI", help=_("The key is in a security module, under this name."))
    ] = "",
    pin_file: Annotated[Path | None, typer.Option(metavar="FILE", help=_("Where its PIN is."))] = None,
    as_json: AsJson = False,
) -> None:
    """One key, and its public half in a file of its own for whoever draws up the ceremony."""
    if name not in KEY_NAMES:
        raise UsageError(
            _("there is no key {name!r}; there are: {names}").format(name=name, names=", ".join(KEY_NAMES))
        )
    path = keys_folder / f"{name}{SUFFIX}"
    if pkcs11:
        keys.write_module_key(path, name, key_uri.parse_uri(pkcs11, pin_file))
    else:
        keys.write(path, name, keys.generate(), passphrases.ask(name, is_new=True))
    public = keys.public_in(path)
    keys.write_public(keys_folder / f"{name}{PUBLIC}", name, public)
    text = _("{path} is made. Pass on {public}; its key has the id {keyid}").format(
        path=path, public=f"{name}{PUBLIC}", keyid=public.keyid
    )
    show({"name": name, "key": str(path), "keyid": public.keyid}, text, as_json=as_json)


def draw_up(
    request: Annotated[Path, typer.Option(metavar="FILE", help=_("What 'fleet key export' wrote."))],
    public: Annotated[Path, typer.Option(metavar="DIR", help=_("Where the public halves of new keys are."))],
    out: Out,
    *,
    as_json: AsJson = False,
) -> None:
    """A ceremony that everybody signs at a place of their own. No key is needed for it."""
    asked = ceremony.decode_request(read_file(request))
    tell(_("The server's keys have the fingerprint {it}").format(it=ceremony.fingerprint(asked.online)))
    offered = {keys.role_in(path): keys.public_in(path) for path in sorted(public.glob(f"*{PUBLIC}"))}
    draft = drafts.draw_up(offered, asked.online, now(), asked.current)
    finish(draft, out, as_json=as_json)


def sign(
    file: Annotated[Path, typer.Argument(metavar="DRAFT", help=_("What is to be signed."))],
    keys_folder: KeysFolder,
    out: Out,
    *,
    new_key: Annotated[
        bool, typer.Option("--new-key", help=_("These keys have signed nothing before; you have compared."))
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Add the signatures of every key in the folder that the draft asks for."""
    draft = read_draft(file)
    tell(draft_text.describe(draft))
    if sys.stdin.isatty() and not typer.confirm(_("Do you want to sign that?"), err=True):
        raise ConsoleError(_("nothing is signed"))
    held = sorted(keys_folder.glob(f"*{SUFFIX}"))
    paths = [path for path in held if drafts.asks(draft, keys.public_in(path))]
    if not paths:
        raise ConsoleError(
            _("{file} asks for none of the keys in {folder}. {lacking}").format(
                file=file, folder=keys_folder, lacking=draft_text.who_lacks(drafts.lacking(draft))
            )
        )
    for path in paths:
        draft = drafts.sign(draft, passphrases.open_key(path).signer, is_new=new_key)
    finish(draft, out, as_json=as_json)


def combine(
    files: Annotated[list[Path], typer.Argument(metavar="DRAFT…", help=_("The same draft, signed apart."))],
    out: Out,
    *,
    as_json: AsJson = False,
) -> None:
    """One draft with the signatures of all."""
    finish(drafts.combine([read_draft(file) for file in files]), out, as_json=as_json)


def read_draft(path: Path) -> Draft:
    """The draft in ``path``; a bundle of a ceremony is one that has nothing before it."""
    return drafts.decode(read_file(path))


def read_file(path: Path) -> bytes:
    """The bytes of signed metadata, or of what asks for it.

    Raises:
        UsageError: it cannot be read.
        ConsoleError: it is too large.
    """
    try:
        if path.stat().st_size > ceremony.MAX_BUNDLE:
            raise ConsoleError(_("{path} is too large to be signed metadata").format(path=path))
        return path.read_bytes()
    except OSError as error:
        raise UsageError(
            _("{path} cannot be read: {reason}").format(path=path, reason=error.strerror)
        ) from error


def finish(draft: Draft, out: Path, *, as_json: bool) -> None:
    """Write ``draft`` to be passed on, and say who has to sign yet."""
    write_durably(out, drafts.encode(draft), 0o644)
    lacks = drafts.lacking(draft)
    found = {
        "draft": str(out),
        "fingerprint": drafts.fingerprint(draft),
        "lacking": [lack._asdict() for lack in lacks],
    }
    text = (
        _("{out} is written, with the fingerprint {fingerprint}.\n{lacking}").format(
            out=out, fingerprint=found["fingerprint"], lacking=draft_text.who_lacks(lacks)
        )
        if lacks
        else _("{out} is complete. Carry it to the server: fleet key import {out}").format(out=out)
    )
    show(found, text, as_json=as_json)
