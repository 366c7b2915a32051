"""``fleet-server authority``: the fleet's keys in the hands of whoever has a shell on the server.

What changes the authorities wants the server stopped, and holds its data folder meanwhile: a broker
that runs would refuse whoever shows a certificate of an authority that it has not read yet.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec
from cryptography import x509

from fleet_protocol.texts import _
from fleet_server.audit.chain import Change
from fleet_server.authority import issuing_renewal, offline_root, rollover
from fleet_server.authority.files import AuthorityState, read_state, trust_sha256
from fleet_server.authority.founding import make_authority
from fleet_server.authority.issuing import pem
from fleet_server.authority.key_store import root_key_path
from fleet_server.authority.passphrase import VARIABLE, ask
from fleet_server.authority.report import Report, lines, name_of, report
from fleet_server.authority.security_module import parse_uri
from fleet_server.clock import now
from fleet_server.config import SETTINGS_FILE, ServerConfig, load
from fleet_server.devices.certificates import trust_of_devices
from fleet_server.errors import AuthorityError
from fleet_server.files import make_folder, write_durably
from fleet_server.lock import locked
from fleet_server.shell import database, recorded
from fleet_signing.key_uri import KeyUri

_MOST_NAMED: Final = 20
"""Devices in a sentence; the whole list stands in 'rollover status'."""


def add_commands(parser: argparse.ArgumentParser) -> None:
    """Give ``parser``, that of ``fleet-server authority``, its commands."""
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _with_json(_on_data(commands, "status", _status, _("what there is, until when, and where the keys are")))
    _with_key(_on_data(commands, "init", _init, _("make root and issuing authority before the first start")))
    export = _on_data(
        commands, "export-root", _export_root, _("seal the root's key in DIR and remove it here")
    )
    export.add_argument("folder", type=_path, metavar="DIR")
    _with_passphrase(export)
    _with_key(_on_data(commands, "renew-issuing", _renew, _("renew the issuing authority, by the root here")))
    request = _on_data(commands, "request-issuing", _request, _("the same, by a root that is offline"))
    request.add_argument("out", type=_path, metavar="OUT")
    _with_key(request)
    sign = commands.add_parser("sign-issuing", help=_("answer such a request, where the root's key is"))
    sign.set_defaults(run=_sign)
    sign.add_argument("request", type=_path, metavar="REQUEST")
    sign.add_argument("--root", type=_path, required=True, metavar="DIR", help=_("its sealed key"))
    sign.add_argument("--out", type=_path, required=True, metavar="FILE")
    _with_passphrase(sign)
    answer = _on_data(commands, "import-issuing", _import, _("begin to use what sign-issuing wrote"))
    answer.add_argument("answer", type=_path, metavar="FILE")
    _add_rollover(commands)


def _add_rollover(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser("rollover", help=_("exchange the root, with overlap"))
    steps = parser.add_subparsers(required=True, metavar="STEP")
    _with_key(_on_data(steps, "begin", _begin, _("add a new root, to be spread among devices")))
    _with_json(_on_data(steps, "status", _progress, _("which devices know the new root")))
    finish = _on_data(steps, "finish", _finish, _("forget the old root"))
    finish.add_argument("--force", action="store_true", help=_("cut off those that do not know the new one"))


def _status(options: argparse.Namespace) -> None:
    found = report(options.data / "authority")
    if options.json:
        _say(msgspec.json.format(msgspec.json.encode(found)).decode())
        return
    _show(found)
    if found.is_rolling:
        _say(_("The root is being exchanged; see: fleet-server authority rollover status"))


def _init(options: argparse.Namespace) -> None:
    make_folder(options.data)
    if (options.data / SETTINGS_FILE).exists():
        raise AuthorityError(
            _("a server ran on {data} already; restore its authority, or give another folder").format(
                data=options.data
            )
        )
    with locked(options.data):
        make_authority(options.data / "authority", _key(options))
    _show(report(options.data / "authority"))


def _export_root(options: argparse.Namespace) -> None:
    config = load(options.data)
    state = read_state(config.authority)
    here = [root for root in _roots(state) if root_key_path(config.authority, root).exists()]
    if not here:
        raise AuthorityError(_("no root's key is on this machine"))
    passphrase = ask(options.passphrase_file, is_new=True)
    make_folder(options.folder)
    for certificate in here:
        root, key_file = issuing_renewal.read_root(config.authority, certificate)
        target = options.folder / f"{key_file.stem}{offline_root.SUFFIX}"
        with recorded(config, Change("authority.export_root", name_of(certificate))):
            offline_root.move_away(root, key_file, target, passphrase)
        _say(
            _("The key of root {id} is in {target} now, and no more on this server.").format(
                id=name_of(certificate), target=target
            )
        )
    _say(_("Keep a copy of it somewhere else; without it, the root can sign no new issuing authority."))


def _renew(options: argparse.Namespace) -> None:
    with _holding(options) as config, recorded(config, Change("authority.renew_issuing", _newest(config))):
        certificate = issuing_renewal.renew_here(config.authority, _key(options))
    _tell_issuing(certificate)


def _request(options: argparse.Namespace) -> None:
    config = load(options.data)
    write_durably(options.out, issuing_renewal.request(config.authority, _key(options)), 0o644)
    _say(
        _("The request is in {out}. Where the root is, run: fleet-server authority sign-issuing").format(
            out=options.out
        )
    )


def _sign(options: argparse.Namespace) -> None:
    request = _read(options.request)
    place = offline_root.find_sealed(options.root)
    root = offline_root.read_sealed(place, ask(options.passphrase_file, is_new=False))
    certificate = issuing_renewal.sign(request, root)
    write_durably(options.out, pem([certificate]), 0o644)
    _say(
        _("{id} is in {out}. On the server, run: fleet-server authority import-issuing").format(
            id=name_of(certificate), out=options.out
        )
    )


def _import(options: argparse.Namespace) -> None:
    answer = _read(options.answer)
    with _holding(options) as config, recorded(config, Change("authority.renew_issuing", _newest(config))):
        certificate = issuing_renewal.take_in(config.authority, answer)
    _tell_issuing(certificate)


def _begin(options: argparse.Namespace) -> None:
    with _holding(options) as config, recorded(config, Change("authority.rollover_begin", _newest(config))):
        rollover.begin(config.authority, _key(options))
    _say(
        _(
            "There are two roots now. Start the server; "
            "each device learns of the new one with its next certificate."
        )
    )
    if not config.embedded:
        _say(
            _("Your broker has to get the new {trust} and {lists}, which the start writes.").format(
                trust=config.broker / "ca.pem", lists=config.broker / "crl.pem"
            )
        )


def _progress(options: argparse.Namespace) -> None:
    config = load(options.data)
    is_rolling = rollover.is_rolling(read_state(config.authority))
    ready, behind = _trust_of_devices(config)
    if options.json:
        _say(json.dumps({"is_rolling": is_rolling, "ready": ready, "behind": behind}, indent=2))
        return
    _say(_("A rollover is under way.") if is_rolling else _("No rollover is under way."))
    _say(
        _("{ready} of {all} devices have the roots of now.").format(
            ready=len(ready), all=len(ready) + len(behind)
        )
    )
    for device in behind:
        _say(_("{device} does not").format(device=device))


def _finish(options: argparse.Namespace) -> None:
    with _holding(options) as config:
        behind = _trust_of_devices(config)[1] if rollover.is_rolling(read_state(config.authority)) else []
        if behind and not options.force:
            raise AuthorityError(
                _(
                    "{count} devices do not know the new root and would be cut off: {devices}. "
                    "Wait for them, or give --force"
                ).format(count=len(behind), devices=_some(behind))
            )
        change = Change(
            "authority.rollover_finish", _newest(config), detail={"cut_off": behind[:_MOST_NAMED]}
        )
        with recorded(config, change):
            elsewhere = rollover.finish(config.authority)
    _say(_("The old root is forgotten. Start the server: it shows certificates under the new one."))
    for key in elsewhere:
        _say(_("Nothing needs this key any more: {key}").format(key=key))


def _tell_issuing(certificate: x509.Certificate) -> None:
    _say(
        _("Issuing authority {id} signs from the next start of the server on, until {date:%Y-%m-%d}.").format(
            id=name_of(certificate), date=certificate.not_valid_after_utc
        )
    )


@contextmanager
def _holding(options: argparse.Namespace) -> Iterator[ServerConfig]:
    """The server's configuration, with its data folder held; its authority is there."""
    config = load(options.data)
    read_state(config.authority)
    with locked(options.data):
        yield config


def _show(found: Report) -> None:
    for line in lines(found, now()):
        _say(line)


def _newest(config: ServerConfig) -> str:
    return name_of(issuing_renewal.newest_root(read_state(config.authority)))


def _roots(state: AuthorityState) -> list[x509.Certificate]:
    return [x509.load_pem_x509_certificate(one.encode()) for one in state.roots]


def _trust_of_devices(config: ServerConfig) -> tuple[list[str], list[str]]:
    """The devices that were given the roots of now, and those that were not."""
    trust = trust_sha256(read_state(config.authority))
    with database(config) as engine:
        return trust_of_devices(engine, trust) if engine is not None else ([], [])


def _some(devices: list[str]) -> str:
    more = len(devices) - _MOST_NAMED
    named = ", ".join(devices[:_MOST_NAMED])
    return _("{named} and {more} more").format(named=named, more=more) if more > 0 else named


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise AuthorityError(
            _("{path} cannot be read: {reason}").format(path=path, reason=error.strerror)
        ) from error


def _key(options: argparse.Namespace) -> KeyUri | None:
    if options.issuing_key is None:
        return None
    return parse_uri(options.issuing_key, options.pin_file)


def _on_data(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    run: Callable[[argparse.Namespace], None],
    text: str,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text)
    parser.set_defaults(run=run)
    parser.add_argument("--data", type=_path, required=True, metavar="DIR", help=_("the server's folder"))
    return parser


def _with_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help=_("for programs"))


def _with_key(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--issuing-key",
        metavar="URI",
        help=_("its key in a security module, pkcs11:token=…;object=…?module-path=…"),
    )
    parser.add_argument("--pin-file", type=_path, metavar="FILE", help=_("a file with the module's PIN"))


def _with_passphrase(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--passphrase-file",
        type=_path,
        default=os.environ.get(VARIABLE),
        metavar="FILE",
        help=_("a file with the passphrase; without it you are asked"),
    )


def _path(text: str) -> Path:
    return Path(text).resolve()


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
