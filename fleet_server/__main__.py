"""``fleet-server``: the commands that run the centre.

Exit codes: 0 it ended as asked, 1 it cannot start or go on, 2 the command line is wrong. ``audit verify``
has its own: 1 for a record of changes that is not whole, 2 for one that could not be checked.
"""

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import msgspec

from fleet_protocol.texts import _
from fleet_server.access import person_command as shell
from fleet_server.authority.command import add_commands as add_authority
from fleet_server.config import load, read_settings
from fleet_server.errors import ServerError
from fleet_server.files import make_folder


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    options = _parser().parse_args(arguments)
    try:
        code: int | None = options.run(options)
    except ServerError as error:
        print(f"fleet-server: {error}", file=sys.stderr)  # noqa: T201 - it is a command
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return code or 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fleet-server", description=_("The centre of the fleet."))
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_serve(commands)
    for name, run, text in (
        ("ingest", _ingest, _("store what devices send (started by serve)")),
        ("watch", _watch, _("watch the broker (started by serve)")),
        ("guard", _guard, _("make the broker obey revocations (started by serve)")),
        ("rollouts", _rollouts, _("move rollouts on (started by serve)")),
        ("escalation", _escalation, _("answer what devices ask (started by serve)")),
        ("api", _api, _("answer over HTTP (started by serve)")),
        ("device", _device, _("give devices their updates over HTTPS (started by serve)")),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("--data", type=_folder, required=True, metavar="DIR")
        command.set_defaults(run=run)
        if name in {"api", "device"}:
            command.add_argument("--descriptor", type=int, required=True, help=_("the inherited socket"))
    add_authority(commands.add_parser("authority", help=_("the fleet's certificate authority and its keys")))
    access = commands.add_parser("broker-acl", help=_("print the access list for a broker of your own"))
    access.add_argument("--for", dest="broker", choices=("mosquitto", "emqx"), required=True)
    access.set_defaults(run=_broker_acl)
    shell.add_commands(commands)
    _add_audit(commands)
    openapi = commands.add_parser("openapi", help=_("print the API's description"))
    openapi.set_defaults(run=_openapi)
    return parser


def _add_serve(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    serve = commands.add_parser(
        "serve",
        help=_("run the whole server until SIGTERM or Ctrl-C"),
        description=_("Run the server. An option that is not given is as it was at the last start."),
    )
    serve.set_defaults(run=_serve)
    serve.add_argument(
        "--data", type=_folder, required=True, metavar="DIR", help=_("where it keeps everything")
    )
    serve.add_argument(
        "--database-url", metavar="URL", help=_("postgresql://…, sqlite:///PATH or 'embedded' (default)")
    )
    serve.add_argument(
        "--mqtt-url", metavar="URL", help=_("mqtts://HOST:PORT of an outside broker, or 'embedded' (default)")
    )
    serve.add_argument(
        "--mqtt-port",
        type=int,
        metavar="PORT",
        help=_("of the embedded broker; 0 for any free one (default)"),
    )
    serve.add_argument(
        "--broker-host",
        metavar="NAME",
        help=_(
            "how devices reach the embedded broker and the updates; "
            "anything but localhost (default) opens both to the network"
        ),
    )
    serve.add_argument("--api-host", metavar="ADDRESS", help=_("where the API listens; default 127.0.0.1"))
    serve.add_argument("--api-port", type=int, metavar="PORT", help=_("0 for any free one (default)"))
    _add_api_tls(serve)
    _add_oidc(serve)
    serve.add_argument(
        "--device-port",
        type=int,
        metavar="PORT",
        help=_("where devices fetch updates; 0 for any free one (default)"),
    )
    serve.add_argument(
        "--certificate-days", type=int, metavar="N", help=_("how long devices' certificates last; default 30")
    )
    _add_limits(serve)
    serve.add_argument(
        "--grace-days",
        type=int,
        metavar="N",
        help=_("how long after its end a device can still renew its certificate; default 180"),
    )
    serve.add_argument(
        "--audit-checkpoints",
        type=_path_or_none,
        metavar="FILE",
        help=_("where signed checkpoints of the record of changes go; '' for the data folder (default)"),
    )
    _add_escalation(serve)


def _add_limits(serve: argparse.ArgumentParser) -> None:
    for option, text in (
        ("--device-messages-per-s", _("of one device, steadily; default 100")),
        ("--device-bytes-per-s", _("of one device, steadily; default 1048576")),
        ("--device-backlog-messages", _("of one device at once, after it was away; default 2000000")),
        ("--device-backlog-bytes", _("of one device at once, after it was away; default 2147483648")),
    ):
        serve.add_argument(option, type=float, metavar="N", help=text)


def _add_api_tls(serve: argparse.ArgumentParser) -> None:
    serve.add_argument(
        "--api-certificate",
        type=_path_or_none,
        metavar="FILE",
        help=_("what the API proves itself with, in PEM; '' for a certificate of the fleet (default)"),
    )
    serve.add_argument(
        "--api-key", type=_path_or_none, metavar="FILE", help=_("the key of --api-certificate")
    )


def _add_oidc(serve: argparse.ArgumentParser) -> None:
    serve.add_argument(
        "--oidc-issuer", metavar="URL", help=_("where people can log in too; '' for nowhere (default)")
    )
    serve.add_argument("--oidc-client-id", metavar="NAME", help=_("what the issuer calls this fleet"))


def _add_escalation(serve: argparse.ArgumentParser) -> None:
    serve.add_argument(
        "--central-model",
        type=_path_or_none,
        metavar="DIR",
        help=_("folder of the model that answers devices' questions; '' for none (default)"),
    )
    serve.add_argument(
        "--inference-url",
        metavar="URL",
        help=_("a server that runs it (Open Inference Protocol v2); '' for this server itself (default)"),
    )
    serve.add_argument(
        "--device-questions-per-hour",
        type=float,
        metavar="N",
        help=_("of one device; default 3600; an approved proposal changes it"),
    )
    serve.add_argument(
        "--tenant-questions-per-hour",
        type=float,
        metavar="N",
        help=_("of all devices; default 36000; as above"),
    )


def _add_audit(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    audit = commands.add_parser("audit", help=_("prove the record of changes, or export it"))
    actions = audit.add_subparsers(required=True, metavar="ACTION")
    check = actions.add_parser(
        "verify",
        help=_("prove that no record was altered, taken away or added behind a checkpoint"),
        description=_("Exit code 0: it is whole; 1: something was found; 2: it could not be checked."),
    )
    source = check.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", type=_folder, metavar="DIR", help=_("the data folder of the server"))
    source.add_argument("--export", type=_folder, metavar="FILE", help=_("what 'audit export' has written"))
    check.add_argument(
        "--checkpoints",
        type=_folder,
        metavar="FILE",
        help=_("the signed checkpoints; with --data the server's own"),
    )
    check.add_argument(
        "--key", type=_folder, metavar="PUB", help=_("the server's audit.pub; with --data the one there")
    )
    check.add_argument("--json", action="store_true", help=_("print what was found as JSON"))
    check.set_defaults(run=_audit_verify)
    export = actions.add_parser("export", help=_("write all records to a file that proves itself elsewhere"))
    export.add_argument("--data", type=_folder, required=True, metavar="DIR")
    export.add_argument("--out", type=_folder, required=True, metavar="FILE")
    export.set_defaults(run=_audit_export)


def _serve(options: argparse.Namespace) -> None:
    from fleet_server.serve import serve

    make_folder(options.data)
    remembered = read_settings(options.data)
    given = {
        name: value
        for name, value in vars(options).items()
        if name in remembered.__struct_fields__ and value is not None
    }
    serve(options.data, msgspec.structs.replace(remembered, **given))


def _ingest(options: argparse.Namespace) -> None:
    from fleet_server.telemetry.ingest import run

    run(load(options.data))


def _watch(options: argparse.Namespace) -> None:
    from fleet_server.link.watch import run

    run(load(options.data))


def _guard(options: argparse.Namespace) -> None:
    from fleet_server.guard import run

    run(load(options.data))


def _rollouts(options: argparse.Namespace) -> None:
    from fleet_server.updates.rollout_loop import run

    run(load(options.data))


def _escalation(options: argparse.Namespace) -> None:
    from fleet_server.escalation.service import run

    run(load(options.data))


def _api(options: argparse.Namespace) -> None:
    from fleet_server.api.app import run

    run(load(options.data), options.descriptor)


def _device(options: argparse.Namespace) -> None:
    from fleet_server.updates.listener import run

    run(load(options.data), options.descriptor)


def _broker_acl(options: argparse.Namespace) -> None:
    from fleet_server.link import emqx, mosquitto

    access = {"mosquitto": mosquitto.render_access, "emqx": emqx.render_access}
    print(access[options.broker](), end="")  # noqa: T201 - it is a command's output


def _audit_verify(options: argparse.Namespace) -> int:
    from fleet_server.audit.commands import verify_chain

    return verify_chain(options)


def _audit_export(options: argparse.Namespace) -> None:
    from fleet_server.audit.commands import export_chain

    export_chain(options)


def _openapi(_options: argparse.Namespace) -> None:
    from fleet_server.api.app import openapi_document

    print(openapi_document(), end="")  # noqa: T201 - it is a command's output


def _folder(text: str) -> Path:
    return Path(text).resolve()


def _path_or_none(text: str) -> str:
    return str(_folder(text)) if text else ""


def entry() -> NoReturn:
    """The console script."""
    sys.exit(main())


if __name__ == "__main__":
    entry()
