"""``fleet group`` and ``fleet rollout``: who is meant, and moving them to a release in waves."""

from collections.abc import Mapping
from typing import Annotated, Any, Final

import typer

from fleet_console.commands import rollout_text
from fleet_console.commands.confirming import confirm_by_typing
from fleet_console.commands.delivering import MaxKib, Window, terms
from fleet_console.commands.durations import seconds
from fleet_console.commands.options import AsJson, placed, show
from fleet_console.commands.proposing import Reason, Wait, say
from fleet_console.commands.rollout_watch import watch
from fleet_console.errors import ConsoleError, UsageError
from fleet_console.sources.http import Place, Server
from fleet_protocol.targets import Kind, Mode
from fleet_protocol.texts import _

group_app: Final = typer.Typer(help=_("Groups of devices: saved filters."), no_args_is_help=True)
rollout_app: Final = typer.Typer(help=_("Moving a group to a release, in waves."), no_args_is_help=True)

Id = Annotated[str, typer.Argument(metavar="ID", help=_("The rollout, as 'fleet rollout list' names it."))]
Yes = Annotated[bool, typer.Option("--yes", help=_("Do it without asking."))]


@group_app.command("set", help=_("Save a filter: site=north profile=pi5 id=gw-1*; none is every device."))
@placed
def set_group(
    name: Annotated[str, typer.Argument(metavar="NAME", help=_("The group's name."))],
    terms: Annotated[list[str] | None, typer.Argument(metavar="[TERM]...", help=_("What must hold."))] = None,
    *,
    place: Place,
    as_json: AsJson = False,
) -> None:
    """Save a filter under a name."""
    with place.connect() as centre:
        group = centre.put(f"/v1/groups/{name}", {"filter": " ".join(terms or ())}).content
    text = _("{name} holds {devices} devices now.").format(name=name, devices=group["devices"])
    show(group, text, as_json=as_json)


@group_app.command("list", help=_("List the groups and how many devices each holds now."))
@placed
def list_groups(*, place: Place, as_json: AsJson = False) -> None:
    """Every group."""
    with place.connect() as centre:
        answer = centre.pages("/v1/groups")
    show(answer.content, rollout_text.groups(answer.content, answer.now_ms), as_json=as_json)


@rollout_app.command("start", help=_("Ask to move a group to a release, wave by wave."))
@placed
def start(  # noqa: PLR0913 - the command's options
    *,
    place: Place,
    group: Annotated[str, typer.Option(metavar="GROUP", help=_("Who gets it."))],
    release: Annotated[int, typer.Option(min=1, metavar="N", help=_("Which release of it."))],
    reason: Reason,
    model: Annotated[str | None, typer.Option(metavar="NAME", help=_("The model."))] = None,
    policy: Annotated[str | None, typer.Option(metavar="NAME", help=_("Or the policy."))] = None,
    agent: Annotated[str | None, typer.Option(metavar="NAME", help=_("Or the agent's software."))] = None,
    system: Annotated[
        str | None, typer.Option("--os", metavar="NAME", help=_("Or the operating system."))
    ] = None,
    wave: Annotated[
        str,
        typer.Option(metavar="LIST", help=_("How much of the group has it after each wave: 10%, or 5.")),
    ] = "10%,50%,100%",
    max_failures: Annotated[
        int, typer.Option(min=0, metavar="N", help=_("More devices failing than so many end it."))
    ] = 0,
    soak: Annotated[
        str, typer.Option(metavar="TIME", help=_("From the end of a wave to the next: 60s, 15m, 24h."))
    ] = "60s",
    max_kib_per_s: MaxKib = 0,
    window: Window = None,
    shadow: Annotated[
        bool, typer.Option("--shadow", help=_("In shadow: beside what acts, compared and reported only."))
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help=_("Wait for the approval, then watch it go."))] = False,
    as_json: AsJson = False,
) -> None:
    """Ask for a rollout."""
    kind, name = _what({Kind.MODEL: model, Kind.POLICY: policy, Kind.AGENT: agent, Kind.OS: system})
    body = {
        "group": group,
        "kind": kind,
        "name": name,
        "release": release,
        "mode": Mode.SHADOW if shadow else Mode.ACT,
        "waves": [part.strip() for part in wave.split(",")],
        "max_failures": max_failures,
        "soak_s": _soak_s(soak),
        "delivery": terms(max_kib_per_s, window),
        "reason": reason,
    }
    with place.connect() as centre:
        answer = centre.post("/v1/rollouts", body)
        identity = answer.content["proposal"]["id"]
        done = _("It has begun. See it go: fleet rollout watch {id}").format(id=identity)
        say(centre, answer, done, wait=wait, as_json=as_json)
        if wait:
            _watch(centre, identity, as_json=as_json)


@rollout_app.command("list", help=_("List the rollouts, the newest first."))
@placed
def list_rollouts(*, place: Place, as_json: AsJson = False) -> None:
    """Every rollout."""
    with place.connect() as centre:
        answer = centre.pages("/v1/rollouts")
    show(answer.content, rollout_text.rollouts(answer.content, answer.now_ms), as_json=as_json)


@rollout_app.command("show", help=_("Show one rollout: its waves, its devices, and why each is where it is."))
@placed
def show_rollout(
    identity: Id,
    *,
    place: Place,
    as_json: AsJson = False,
) -> None:
    """One rollout's page."""
    with place.connect() as centre:
        answer = centre.get(f"/v1/rollouts/{identity}")
    show(answer.content, rollout_text.page(answer.content, answer.now_ms), as_json=as_json)


@rollout_app.command("watch", help=_("Watch a rollout until it ends; exit code 0 where it is done."))
@placed
def watch_rollout(
    identity: Id,
    *,
    place: Place,
    as_json: Annotated[bool, typer.Option("--json", help=_("A line of JSON whenever it moved."))] = False,
) -> None:
    """Watch until the end."""
    with place.connect() as centre:
        _watch(centre, identity, as_json=as_json)


@rollout_app.command("pause", help=_("Open no further wave; devices that are under way go on."))
@placed
def pause(
    identity: Id,
    *,
    place: Place,
    as_json: AsJson = False,
) -> None:
    """Pause it."""
    with place.connect() as centre:
        page = _act(centre, identity, "pause")
    _say(page, _("It is paused. Go on with: fleet rollout resume {id} --reason TEXT"), as_json=as_json)


@rollout_app.command("resume", help=_("Ask to go on after a pause."))
@placed
def resume(
    identity: Id,
    *,
    place: Place,
    reason: Reason,
    wait: Wait = False,
    as_json: AsJson = False,
) -> None:
    """Ask to resume it."""
    with place.connect() as centre:
        answer = centre.post(f"/v1/rollouts/{identity}/resume", {"reason": reason})
        say(centre, answer, _("It goes on."), wait=wait, as_json=as_json)


@rollout_app.command("abort", help=_("End it: no device that has not begun gets the release any more."))
@placed
def abort(
    identity: Id,
    *,
    place: Place,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Abort it, once somebody has confirmed that."""
    with place.connect() as centre:
        if not yes:
            before = centre.get(f"/v1/rollouts/{identity}").content
            _confirm(identity, before["rollout"])
        page = _act(centre, identity, "abort")
    _say(page, _("It is aborted; devices that had begun are seen through."), as_json=as_json)


def _watch(centre: Server, identity: str, *, as_json: bool) -> None:
    if watch(centre, identity, as_json=as_json) != rollout_text.DONE:
        raise typer.Exit(ConsoleError.exit_code)


def _act(centre: Server, identity: str, action: str) -> Any:
    return centre.post(f"/v1/rollouts/{identity}/{action}", {}).content


def _say(page: Any, text: str, *, as_json: bool) -> None:
    rollout = page["rollout"]
    first = rollout_text.headline(rollout)
    show(page, f"{first}\n{text.format(id=rollout['id'])}", as_json=as_json)


def _confirm(identity: str, rollout: Any) -> None:
    """Have the rollout's id typed: what ends cannot be resumed."""
    typer.echo(rollout_text.headline(rollout), err=True)
    question = _("It cannot be resumed afterwards. Type {id} to abort it").format(id=identity)
    confirm_by_typing(identity, question)


def _what(given: Mapping[Kind, str | None]) -> tuple[Kind, str]:
    """The one artifact that is ``given``."""
    named = [(kind, name) for kind, name in given.items() if name is not None]
    if len(named) != 1:
        raise UsageError(
            _("what shall be rolled out? Give one of --model, --policy, --agent and --os with its name")
        )
    return named[0]


def _soak_s(text: str) -> int:
    soak_s = seconds(text)
    if soak_s is None:
        raise UsageError(
            _("--soak {given!r} is no time; give for example 60s, 15m or 24h").format(given=text)
        )
    return soak_s
