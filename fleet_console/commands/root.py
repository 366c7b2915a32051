"""The commands of ``fleet``: each asks the server and prints a table, or the answer itself as JSON."""

from pathlib import Path
from typing import Annotated, Final

import typer

from fleet_console import tables
from fleet_console.commands import (
    agent_packing,
    auditing,
    batches,
    calibrating,
    device_folders,
    inviting,
    keys,
    login,
    opening,
    people,
    proposals,
    publishing,
    receipts,
    revoking,
    rollouts,
    version_text,
)
from fleet_console.commands.durations import ago_ms
from fleet_console.commands.options import AsJson, placed, show
from fleet_console.errors import ConsoleError, UsageError
from fleet_console.sources.http import Place
from fleet_protocol.device_folder import CONFIGURATION, request_for
from fleet_protocol.texts import _
from fleet_protocol.topics import is_device_id

_EPILOG: Final = _(
    "Exit codes: 0 done; 1 refused or failed (for 'health': something critical);"
    " 2 wrong command line; 3 the server does not answer."
)

app: Final = typer.Typer(
    name="fleet",
    help=_("See and change the fleet."),
    epilog=_EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
device_app: Final = typer.Typer(help=_("The devices."), no_args_is_help=True)
event_app: Final = typer.Typer(help=_("What policies raised."), no_args_is_help=True)
app.add_typer(device_app, name="device")
inviting.register(device_app)
batches.register(device_app)
app.add_typer(event_app, name="event")
app.add_typer(keys.app, name="key")
app.add_typer(agent_packing.agent_app, name="agent")
app.add_typer(publishing.publish_app, name="publish")
app.add_typer(publishing.artifact_app, name="artifact")
app.add_typer(publishing.bundle_app, name="bundle")
app.add_typer(receipts.receipt_app, name="receipt")
app.command("assign", help=_("Ask that one device has one release, outside any rollout."))(publishing.assign)
app.command("unassign", help=_("Ask that one device is given nothing of a name."))(publishing.unassign)
app.add_typer(rollouts.group_app, name="group")
app.add_typer(rollouts.rollout_app, name="rollout")
app.add_typer(people.person_app, name="person")
app.add_typer(people.token_app, name="token")
login.register(app)
app.add_typer(auditing.audit_app, name="audit")
app.add_typer(proposals.proposal_app, name="proposal")
app.add_typer(proposals.rule_app, name="approval-rule")
opening.register(app)
revoking.register(device_app)
app.add_typer(calibrating.app)

Name = Annotated[str, typer.Argument(metavar="NAME", help=_("The device's id."))]


@device_app.command("add", help=_("Add a device: make its key here, and get a certificate for it."))
@placed
def add(
    name: Name,
    out: Annotated[Path, typer.Option(metavar="DIR", help=_("Where key, certificate and configuration go."))],
    *,
    place: Place,
    profile: Annotated[str, typer.Option(help=_("What kind of board it is."))] = "generic",
    site: Annotated[str | None, typer.Option(help=_("Where it stands."))] = None,
    as_json: AsJson = False,
) -> None:
    """Make the device's key here, and get a certificate for it."""
    if not is_device_id(name):
        raise UsageError(_("{name!r} is no device id; use 1 to 63 of a-z, 0-9 and '-'").format(name=name))
    with place.connect() as centre:
        key = device_folders.provide_key(out)
        request = {"id": name, "profile": profile, "site": site, "csr_pem": request_for(name, key)}
        enrolled = centre.post("/v1/devices", request).content
    device_folders.write_device(out, enrolled)
    config = out / CONFIGURATION
    show(
        {"id": name, "folder": str(out), "configuration": str(config)},
        _("{name} is added. Name its sensors in {config}, then run: edge-agent run --config {config}").format(
            name=name, config=config
        ),
        as_json=as_json,
    )


@device_app.command("list", help=_("List the devices, when they were last heard, and what ails them."))
@placed
def list_(*, place: Place, as_json: AsJson = False) -> None:
    """Every device, page by page."""
    with place.connect() as centre:
        answer = centre.pages("/v1/devices")
    show(answer.content, tables.devices(answer.content, answer.now_ms), as_json=as_json)


@device_app.command("show", help=_("Show one device: what it is, how it is, and its newest values."))
@placed
def show_device(
    name: Name,
    *,
    place: Place,
    as_json: AsJson = False,
) -> None:
    """One device's page and its newest values."""
    with place.connect() as centre:
        page = centre.get(f"/v1/devices/{name}").content
        versions = centre.get(f"/v1/devices/{name}/versions").content
        latest = centre.get(f"/v1/devices/{name}/readings")
    readings = latest.content["items"]
    parts = (tables.device(page, readings, latest.now_ms), version_text.versions(versions, latest.now_ms))
    text = "\n\n".join(part for part in parts if part)
    show(page | {"latest": readings, "versions": versions}, text, as_json=as_json)


@event_app.command("list", help=_("List the newest events, the last one at the bottom."))
@placed
def events(
    *,
    place: Place,
    since: Annotated[str, typer.Option(metavar="TIME", help=_("How far back: 90s, 15m, 24h, 7d."))] = "24h",
    limit: Annotated[int, typer.Option(min=1, help=_("The newest so many."))] = 100,
    as_json: AsJson = False,
) -> None:
    """The newest events since a while ago."""
    with place.connect() as centre:
        answer = centre.pages("/v1/events", since_ms=ago_ms(since))
    items = answer.content[-limit:]
    show(items, tables.events(items, answer.now_ms), as_json=as_json)


@app.command("health", help=_("Show how the server is, and what to do next."))
@placed
def health(*, place: Place, as_json: AsJson = False) -> None:
    """The server's own health; exit code 1 where something is critical."""
    with place.connect() as centre:
        answer = centre.get("/v1/health")
    found = answer.content
    show(found, tables.health(found["items"], answer.now_ms) or _("The server is well."), as_json=as_json)
    if found["status"] == "critical":
        raise typer.Exit(ConsoleError.exit_code)
