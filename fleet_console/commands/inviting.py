"""``fleet device invite`` and what becomes of invitations, an answer for a stick, and a device's tags."""

import io
import sys
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import segno
import typer

from fleet_console import tables
from fleet_console.commands.device_folders import enrolled_in, write
from fleet_console.commands.durations import seconds
from fleet_console.commands.options import AsJson, placed, show
from fleet_console.errors import UsageError
from fleet_console.sources.http import Place
from fleet_protocol import device_folder
from fleet_protocol.enrollment import MAX_BODY, AnswerFile, RequestFile
from fleet_protocol.texts import _
from fleet_protocol.topics import is_device_id

Name = Annotated[str, typer.Argument(metavar="NAME", help=_("The device's id."))]
Profile = Annotated[str, typer.Option(help=_("What kind of board it is."))]
Site = Annotated[str | None, typer.Option(help=_("Where it stands."))]

_QUIET_ZONE: Final = 2
_LEAST_QUIET_ZONE: Final = 1
"""Modules of border, so that a reader finds the code on a dark screen."""

_LINES: Final = 23
"""Of a terminal with 24, one is the prompt's."""

_DAY: Final = "24h"


def register(app: typer.Typer) -> None:
    """Add the commands to ``fleet device``."""
    app.command("invite", help=_("Invite one board to become a device; prints its one-time token."))(invite)
    app.command("invitations", help=_("List the invitations of a device, and what came of them."))(
        invitations
    )
    app.command("uninvite", help=_("Withdraw an invitation that nobody shall use any more."))(uninvite)
    app.command("answer", help=_("Answer the request of a device without a network, for a stick."))(answer)
    app.command(
        "tag",
        help=_("Put tags on a device and take them off: fleet device tag NAME +north -old."),
        # Else '-old' would be taken for an option.
        context_settings={"ignore_unknown_options": True},
    )(tag)


@placed
def invite(  # noqa: PLR0913 - each is an option of the command
    name: Name,
    *,
    place: Place,
    profile: Profile = "generic",
    site: Site = None,
    expires: Annotated[str, typer.Option(metavar="TIME", help=_("How long it lasts: 15m, 24h, 7d."))] = _DAY,
    replace: Annotated[
        bool, typer.Option("--replace", help=_("Another board takes the device over."))
    ] = False,
    qr: Annotated[
        bool, typer.Option("--qr", help=_("Draw the QR code also where this is no terminal."))
    ] = False,
    as_json: AsJson = False,
) -> None:
    """A one-time token for one board, as a line and as a QR code."""
    if not is_device_id(name):
        raise UsageError(_("{name!r} is no device id; use 1 to 63 of a-z, 0-9 and '-'").format(name=name))
    wish = {"profile": profile, "site": site, "replaces": replace, "expires_s": lasting("--expires", expires)}
    with place.connect() as centre:
        answer = centre.post(f"/v1/devices/{name}/invitations", wish)
    invited = answer.content
    text = _told(invited, expires)
    if qr or sys.stdout.isatty():
        # Last, so that the whole code stands on a screen of 24 lines.
        text = f"{text}\n{drawn(invited['token'])}"
    show(invited, text, as_json=as_json)


@placed
def invitations(name: Name, *, place: Place, as_json: AsJson = False) -> None:
    """Who was invited to become the device, and what came of it."""
    with place.connect() as centre:
        answer = centre.get(f"/v1/devices/{name}/invitations")
    items = answer.content["items"]
    show(items, tables.invitations(items, answer.now_ms), as_json=as_json)


@placed
def uninvite(
    name: Name,
    invitation: Annotated[
        str, typer.Argument(metavar="ID", help=_("As 'fleet device invitations' names it."))
    ],
    *,
    place: Place,
    as_json: AsJson = False,
) -> None:
    """End an invitation that nobody shall use any more."""
    with place.connect() as centre:
        ended = centre.delete(f"/v1/devices/{name}/invitations/{invitation}").content
    show(ended, _("The invitation is {state}.").format(state=ended["state"]), as_json=as_json)


@placed
def answer(
    file: Annotated[Path, typer.Argument(metavar="FILE", help=_("What 'edge-agent enrol --request' wrote."))],
    out: Annotated[Path, typer.Option(metavar="ANSWER", help=_("What to carry back to the device."))],
    *,
    place: Place,
    profile: Profile = "generic",
    site: Site = None,
    as_json: AsJson = False,
) -> None:
    """Register the device of a request file, and write what it is given into another one."""
    request = _request(file)
    new = {
        "id": request.device,
        "csr_pem": request.csr_pem,
        "serial": request.serial,
        "profile": profile,
        "site": site,
    }
    with place.connect() as centre:
        enrolled = enrolled_in(centre.post("/v1/devices", new).content)
    write(out, msgspec.json.format(msgspec.json.encode(AnswerFile(enrolled)), indent=2) + b"\n")
    fingerprints = device_folder.fingerprints(enrolled.ca_pem)
    show(
        {"device": enrolled.device, "answer": str(out), "ca_sha256": fingerprints},
        _(
            "{out} is written. On the device: edge-agent enrol --answer {out}\n"
            "It will ask whether its authority is {fingerprint}"
        ).format(out=out, fingerprint=_(" and ").join(fingerprints)),
        as_json=as_json,
    )


@placed
def tag(
    name: Name,
    words: Annotated[
        list[str], typer.Argument(metavar="+TAG|-TAG...", help=_("What to put on or take off."))
    ],
    *,
    place: Place,
    as_json: AsJson = False,
) -> None:
    """Put tags on a device, and take them off, one after the other."""
    for word in words:
        if word[:1] not in {"+", "-"} or not is_device_id(word[1:]):
            raise UsageError(
                _("{word!r} changes no tag; write +TAG or -TAG, of a-z, 0-9 and '-'").format(word=word)
            )
    with place.connect() as centre:
        for word in words:
            path = f"/v1/devices/{name}/tags/{word[1:]}"
            found = (centre.put(path, {}) if word[0] == "+" else centre.delete(path)).content
    show(found, _("Tags: {tags}").format(tags=", ".join(found["tags"]) or "-"), as_json=as_json)


def lasting(option: str, text: str) -> int:
    """The seconds that ``text`` means, which was given to ``option``.

    Raises:
        UsageError: it is no time.
    """
    found = seconds(text)
    if found is None:
        raise UsageError(
            _("{option} {given!r} is no time; give for example 15m, 24h or 7d").format(
                option=option, given=text
            )
        )
    return found


def _told(invited: dict[str, Any], expires: str) -> str:
    known = invited["invitation"]
    return _(
        "Within {expires}, once, on the board that shall be {device}:\n\n"
        "edge-agent enrol {token}\n\n"
        "It asks {url}, whose authority is {fingerprint}"
    ).format(
        expires=expires,
        device=known["device"],
        token=invited["token"],
        url=invited["url"],
        fingerprint=invited["ca_sha256"],
    )


def drawn(token: str) -> str:
    """The QR code, two modules a line: 23 lines for names of usual length, 24 for somewhat longer ones."""
    code, out = segno.make_qr(token, error="l", boost_error=False), io.StringIO()
    fits = code.symbol_size(border=_QUIET_ZONE)[1] <= 2 * _LINES
    code.terminal(out, border=_QUIET_ZONE if fits else _LEAST_QUIET_ZONE, compact=True)
    return out.getvalue().rstrip("\n")


def _request(file: Path) -> RequestFile:
    try:
        with file.open("rb") as opened:
            return msgspec.json.decode(opened.read(MAX_BODY), type=RequestFile)
    except (OSError, msgspec.MsgspecError) as error:
        raise UsageError(
            _(
                "{file} is no request of a device ({reason}); make it with 'edge-agent enrol --request'"
            ).format(file=file, reason=error)
        ) from None
