"""``fleet agent pack``: wheels as one build of the agent's software, ready to be signed and published.

It needs neither a server nor a key, and runs nothing of what it packs.
"""

from pathlib import Path
from typing import Annotated, Final

import typer

from fleet_console.commands.options import AsJson, show
from fleet_console.errors import UsageError
from fleet_protocol.agent_build import DISTRIBUTION, WHEEL, Health
from fleet_protocol.targets import Kind
from fleet_protocol.texts import _
from fleet_signing import agent_builds, artifacts
from fleet_signing.files import write_durably

agent_app: Final = typer.Typer(help=_("The agent's own software."), no_args_is_help=True)

_MOST_S: Final = 86_400.0
"""As the build's own document has it."""


@agent_app.callback()
def _group() -> None:
    """Keeps ``pack`` a command of its own; a group of one would lose its name."""


@agent_app.command("pack", help=_("Pack wheels as one build of the agent, without a server."))
def pack(
    wheels: Annotated[
        list[Path], typer.Argument(metavar="WHEEL|DIR…", help=_("Wheels, or folders of them."))
    ],
    *,
    release: Annotated[int, typer.Option(min=1, metavar="N", help=_("Its release; it only grows."))],
    out: Annotated[Path, typer.Option(metavar="FILE", help=_("The build, a tar."))],
    least_s: Annotated[
        float, typer.Option(min=0.0, max=_MOST_S, help=_("Seconds that it has to run well on a device."))
    ] = Health().least_s,
    deadline_s: Annotated[
        float, typer.Option(min=1.0, max=_MOST_S, help=_("Seconds after which it has failed to."))
    ] = Health().deadline_s,
    as_json: AsJson = False,
) -> None:
    """Write the build and say what is in it."""
    files = {file.name: artifacts.read(file) for file in _files(wheels)}
    content = agent_builds.pack(files, release, Health(least_s=least_s, deadline_s=deadline_s))
    target = artifacts.of_bytes(Kind.AGENT, content).target
    write_durably(out, content, 0o644)
    described = target.description
    text = _(
        "{out} is written, {size} bytes: {name} {version}, release {release}; Python {python}, {machines}"
    )
    show(
        {"build": str(out), "size": target.length, "sha256": target.sha256, "version": described.version},
        text.format(
            out=out,
            size=target.length,
            name=described.name,
            version=described.version,
            release=described.release,
            python=described.requires.python,
            machines=", ".join(described.requires.machines) or _("any machine"),
        ),
        as_json=as_json,
    )


def _files(paths: list[Path]) -> list[Path]:
    found = [file for path in paths for file in (sorted(path.glob(f"*{WHEEL}")) if path.is_dir() else [path])]
    if not any(file.name.startswith(DISTRIBUTION) for file in found):
        raise UsageError(
            _("no wheel of the agent itself is among them; make it with 'pip wheel --no-deps .'")
        )
    return found
