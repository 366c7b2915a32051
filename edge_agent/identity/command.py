"""``edge-agent identity``: what this device proves itself with, and renewing it now.

Both work beside a running agent: renewals wait for each other, and the agent shows a new certificate
at its next connection.
"""

import argparse
import datetime as dt
import sys
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from edge_agent.allowance import allowance
from edge_agent.clock import Clock, boot_id
from edge_agent.config import Config, load
from edge_agent.identity.identity import Identity, load_identity
from edge_agent.identity.renewal_time import due_ms
from edge_agent.identity.renewing import renew
from fleet_protocol.messages import ClockState
from fleet_protocol.texts import _


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """An identity in words. ``issuers`` are who vouches for it, up to the root; times are UTC.

    ``problem`` is what is wrong with its dates by this device's clock, empty for nothing or where that
    clock cannot be believed; ``renewed_at`` where it is renewed, empty where nobody said.
    """

    device: str
    serial: str
    sha256: str
    issuers: list[str]
    begins: str
    ends: str
    renewal: str
    renewed_at: str
    problem: str


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add ``identity`` and what can be done with it."""
    text = _("show what the device proves itself with, or renew it now")
    command = commands.add_parser("identity", help=text, description=text)
    command.add_argument("action", nargs="?", choices=("show", "renew"), default="show")
    command.add_argument("--config", type=Path, required=True, metavar="FILE", help=_("TOML file"))
    command.add_argument("--json", action="store_true", help=_("print it as JSON"))


def run(options: argparse.Namespace) -> int:
    """Carry out one of the actions; the exit code.

    Raises:
        AgentError: the identity cannot be used, or not be renewed.
    """
    config = load(options.config)
    clock = Clock(boot_id(), may_stop=allowance(config).profile.rtc.may_stop)
    identity = load_identity(config.device, config.broker)
    if options.action == "renew":
        before = identity.serial
        identity = renew(config, check_dates=clock.state() is ClockState.TRUSTED)
        if identity.serial == before:
            _say(_("The server holds the certificate for fresh; nothing was changed."), to_error=options.json)
    shown = _shown(config, identity, clock)
    if options.json:
        _say(msgspec.json.format(msgspec.json.encode(shown), indent=2).decode())
    else:
        _say(_table(shown))
    return 0


def _shown(config: Config, identity: Identity, clock: Clock) -> Shown:
    chain = x509.load_pem_x509_certificates(identity.certificate.read_bytes())
    trusted = clock.state() is ClockState.TRUSTED
    return Shown(
        device=identity.device,
        serial=identity.serial,
        sha256=chain[0].fingerprint(hashes.SHA256()).hex(),
        issuers=[each.issuer.rfc4514_string() for each in chain],
        begins=_date(identity.not_before_ms),
        ends=_date(identity.not_after_ms),
        renewal=_date(due_ms(identity)),
        renewed_at=config.server_url or "",
        problem=(identity.date_problem(clock.wall_ms()) or "") if trusted else "",
    )


def _date(ms: int) -> str:
    return dt.datetime.fromtimestamp(ms // 1000, dt.UTC).isoformat()


def _table(shown: Shown) -> str:
    lines = [
        (_("device"), shown.device),
        (_("serial"), shown.serial),
        (_("SHA-256"), shown.sha256),
        *((_("issued by"), issuer) for issuer in shown.issuers),
        (_("begins"), shown.begins),
        (_("ends"), shown.ends),
        (
            _("renewed"),
            _("{when}, at {url}").format(when=shown.renewal, url=shown.renewed_at or _("no server")),
        ),
    ]
    if shown.problem:
        lines.append((_("problem"), shown.problem))
    width = max(len(name) for name, _value in lines)
    return "\n".join(f"{name:{width}}  {value}" for name, value in lines)


def _say(text: str, *, to_error: bool = False) -> None:
    (sys.stderr if to_error else sys.stdout).write(text + "\n")
