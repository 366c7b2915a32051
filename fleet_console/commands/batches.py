"""``fleet device batch`` and what is decided about its boards: pending, approve, reject."""

from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer

from fleet_console import tables
from fleet_console.commands.device_folders import write
from fleet_console.commands.inviting import Profile, Site, lasting
from fleet_console.commands.options import AsJson, placed, show
from fleet_console.errors import UsageError
from fleet_console.sources.http import Place
from fleet_protocol.device_folder import new_key, read_key, request_for
from fleet_protocol.enrollment import ClaimFile, claim_name
from fleet_protocol.texts import _

batch_app: Final = typer.Typer(help=_("Factory batches: many boards with one image."), no_args_is_help=True)

Batch = Annotated[str, typer.Argument(metavar="ID", help=_("What the batch is called."))]
ClaimId = Annotated[str, typer.Argument(metavar="CLAIM", help=_("As 'fleet device pending' names it."))]


def register(app: typer.Typer) -> None:
    """Add the commands to ``fleet device``."""
    app.add_typer(batch_app, name="batch")
    app.command("pending", help=_("List the boards that wait for a decision."))(pending)
    app.command("approve", help=_("Let a board in as a device."))(approve)
    app.command("reject", help=_("Keep a board out, and tell it why."))(reject)


@batch_app.command("create", help=_("Make a batch, and the claim file that its image carries."))
@placed
def create(  # noqa: PLR0913 - the command's options
    batch: Batch,
    count: Annotated[int, typer.Option(min=1, help=_("How many boards it has."))],
    out: Annotated[Path, typer.Option(metavar="FILE", help=_("What goes into the image; it holds a key."))],
    *,
    place: Place,
    profile: Profile = "generic",
    site: Site = None,
    expires: Annotated[
        str, typer.Option(metavar="TIME", help=_("How long boards may ask: 24h, 30d."))
    ] = "30d",
    as_json: AsJson = False,
) -> None:
    """The batch's key is made here and goes into the file; the server only certifies it."""
    if out.exists():
        raise UsageError(_("{out} is there already; choose another with --out").format(out=out))
    key_pem = new_key()
    new = {
        "id": batch,
        "csr_pem": request_for(claim_name(batch), read_key(key_pem)),
        "profile": profile,
        "site": site,
        "most": count,
        "expires_s": lasting("--expires", expires),
    }
    with place.connect() as centre:
        made = centre.post("/v1/batches", new).content
    address = made["url"].removeprefix("https://")
    file = ClaimFile(address, made["ca_sha256"], batch, made["certificate_pem"], key_pem.decode())
    write(out, msgspec.json.format(msgspec.json.encode(file), indent=2) + b"\n", 0o600)
    show(
        made["batch"] | {"file": str(out)},
        _("{out} is written. On each board: edge-agent enrol --claim {name} --out DIR").format(
            out=out, name=out.name
        ),
        as_json=as_json,
    )


@batch_app.command("list", help=_("List the batches, and how many boards have asked."))
@placed
def list_(*, place: Place, as_json: AsJson = False) -> None:
    """Every batch."""
    with place.connect() as centre:
        answer = centre.pages("/v1/batches")
    show(answer.content, tables.batches(answer.content, answer.now_ms), as_json=as_json)


@batch_app.command("close", help=_("Let no further board of a batch ask."))
@placed
def close(batch: Batch, *, place: Place, as_json: AsJson = False) -> None:
    """End a batch; those that have asked can still be decided about."""
    with place.connect() as centre:
        closed = centre.delete(f"/v1/batches/{batch}").content
    show(
        closed, _("The batch {batch} is {state}.").format(batch=batch, state=closed["state"]), as_json=as_json
    )


@placed
def pending(*, place: Place, as_json: AsJson = False) -> None:
    """The boards that wait."""
    with place.connect() as centre:
        answer = centre.pages("/v1/claims")
    show(answer.content, tables.claims(answer.content, answer.now_ms), as_json=as_json)


@placed
def approve(
    claim: ClaimId,
    name: Annotated[str, typer.Option("--as", metavar="NAME", help=_("Which device it becomes."))],
    *,
    place: Place,
    tag: Annotated[list[str] | None, typer.Option(help=_("A tag that it has; may be repeated."))] = None,
    as_json: AsJson = False,
) -> None:
    """Let a board in; it fetches its certificate when it asks next."""
    with place.connect() as centre:
        decided = centre.post(f"/v1/claims/{claim}/approval", {"device": name, "tags": tag or []}).content
    show(
        decided,
        _("{serial} becomes {device} when it asks next.").format(serial=decided["serial"], device=name),
        as_json=as_json,
    )


@placed
def reject(
    claim: ClaimId,
    reason: Annotated[str, typer.Option(help=_("Why; the board is told."))],
    *,
    place: Place,
    as_json: AsJson = False,
) -> None:
    """Keep a board out."""
    with place.connect() as centre:
        decided = centre.post(f"/v1/claims/{claim}/rejection", {"reason": reason}).content
    show(decided, _("{serial} is kept out.").format(serial=decided["serial"]), as_json=as_json)
