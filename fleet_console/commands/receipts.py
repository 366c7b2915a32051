"""``fleet receipt``: what a courier brings back from a device without a network."""

from pathlib import Path
from typing import Annotated, Final

import typer

from fleet_console.commands.options import AsJson, placed, show
from fleet_console.errors import UsageError
from fleet_console.sources.http import Place
from fleet_protocol.texts import _
from fleet_protocol.versions import MAX_JWS

receipt_app: Final = typer.Typer(help=_("Receipts of updates on a stick."), no_args_is_help=True)


@receipt_app.callback()
def group() -> None:
    """Keep 'import' a command of its own, though there is only one."""


@receipt_app.command("import", help=_("Hand over the receipt that a device wrote beside its bundle."))
@placed
def import_receipt(
    file: Annotated[Path, typer.Argument(metavar="FILE", help=_("The receipt."))],
    *,
    place: Place,
    as_json: AsJson = False,
) -> None:
    """The server verifies the device's signature, and that the receipt answers a bundle of its own."""
    with place.connect() as centre:
        taken = centre.post("/v1/updates/receipts", {"receipt": _read(file)}).content
    if taken["superseded"]:
        text = _("{device} has said later things itself since; the receipt is recorded")
    elif taken["settled"]:
        text = _("the receipt of {device} is taken in: 'fleet device show {device}' says what it has")
    else:
        text = _("{device} had an update on its way when it wrote this; bring its final receipt later")
    show(taken, text.format(device=taken["device"]), as_json=as_json)


def _read(file: Path) -> str:
    try:
        with file.open("rb") as content:
            return content.read(MAX_JWS + 1).decode("ascii").strip()
    except OSError as error:
        raise UsageError(
            _("{file} cannot be read: {reason}").format(file=file, reason=error.strerror)
        ) from None
    except ValueError:
        raise UsageError(
            _("{file} is no receipt; it is one line of letters and digits").format(file=file)
        ) from None
