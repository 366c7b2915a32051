"""``fleet calibrate``: from decisions whose truth is known to the escalation table of a policy. No server.

What the threshold promises and what voids it is said in :mod:`fleet_protocol.calibration`.
"""

import hashlib
import json
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer

from fleet_console.commands.policy_text import with_escalation
from fleet_console.errors import ConsoleError
from fleet_protocol import calibration, manifest, policy
from fleet_protocol.calibration import Calibration
from fleet_protocol.errors import ProtocolError
from fleet_protocol.escalation import Escalation
from fleet_protocol.policy import Policy
from fleet_protocol.texts import _

KEEP_NOTHING: Final = 2.0
"""A threshold that no confidence reaches."""

app: Final = typer.Typer()


@app.command("calibrate", help=_("Learn from records which of a model's answers may be kept on the device."))
def calibrate(  # noqa: PLR0913 - the command's options
    records: Annotated[
        Path,
        typer.Argument(
            metavar="RECORDS",
            help=_("CSV with scenario, day, confidence, correct (0 or 1): one decision a scenario and day."),
        ),
    ],
    policy_file: Annotated[
        Path, typer.Option("--policy", metavar="FILE", help=_("The policy that gets the result."))
    ],
    model: Annotated[
        Path, typer.Option(metavar="DIR", help=_("The folder of the model that gave the answers."))
    ],
    *,
    alpha: Annotated[float, typer.Option(help=_("Largest share of wrong answers among those kept."))] = 0.05,
    delta: Annotated[float, typer.Option(help=_("Probability that the threshold does not hold it."))] = 0.1,
    expires: Annotated[
        datetime | None,
        typer.Option(
            formats=["%Y-%m-%d"], metavar="DAY", help=_("First day (UTC) on which it no longer holds.")
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help=_("Write the policy here and leave the first."))
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help=_("Print the result as JSON."))] = False,
) -> None:
    """Calibrate, and write the policy's next release."""
    try:
        text = _read(policy_file)
        given = policy.parse(text.encode())
        digest = _model_digest(model, given)
        result = calibration.calibrate(calibration.parse(_read(records).splitlines()), alpha, delta)
        table = _table(result, digest, given, expires.date() if expires else None)
        made = with_escalation(text, table)
    except ProtocolError as error:
        raise ConsoleError(str(error)) from None
    _write(out or policy_file, made)
    release = policy.parse(made.encode()).release
    content = msgspec.to_builtins(result) | {"model_sha256": digest, "release": release}
    typer.echo(json.dumps(content, indent=2) if as_json else _told(result, given.name, release))


def _table(result: Calibration, digest: str, given: Policy, expires: date | None) -> Escalation:
    """The policy's table with what was learned; audit, budget and deadline are the operator's and stay."""
    learned = {
        "model_sha256": digest,
        "temperature": result.temperature,
        "threshold": KEEP_NOTHING if result.threshold is None else result.threshold,
        "alpha": result.alpha,
        "delta": result.delta,
        "n_cal": result.n_cal,
    }
    if expires is not None:
        learned["expires"] = expires
    before = msgspec.to_builtins(given.escalation, builtin_types=(date,)) if given.escalation else {}
    return msgspec.convert(before | learned, Escalation)


def _model_digest(folder: Path, given: Policy) -> str:
    content = _read(folder / "manifest.json").encode()
    name = manifest.parse(content).name
    if name != given.model:
        raise ConsoleError(
            _("policy {policy} is for model {wanted}, but {folder} holds {name}").format(
                policy=given.name, wanted=given.model, folder=folder, name=name
            )
        )
    return hashlib.sha256(content).hexdigest()


def _told(result: Calibration, name: str, release: int) -> str:
    parts = [_FOUND if result.threshold is not None else _NONE_FOUND, _WRITTEN]
    return "\n".join(parts).format(
        temperature=result.temperature,
        threshold=result.threshold,
        alpha=result.alpha,
        sure=1.0 - result.delta,
        kept=result.kept,
        wrong=result.wrong,
        error=result.wrong / max(result.kept, 1),
        offload=1.0 - result.kept / result.n_cal,
        n_cal=result.n_cal,
        n_fit=result.n_fit,
        policy=name,
        release=release,
    )


_FOUND: Final = _(
    "Keep answers from a calibrated confidence of {threshold} on (temperature {temperature}, fitted on"
    " {n_fit} other decisions).\n"
    "Of {n_cal} decisions {kept} are kept, {wrong} of them wrong ({error:.1%}); {offload:.0%} are"
    " escalated.\n"
    "With a probability of {sure:.0%} at most {alpha:.1%} of what is kept is wrong, as long as what comes"
    " is like the records: drift, another season or another share of leaks void it."
)
_NONE_FOUND: Final = _(
    "No threshold found: of {n_cal} decisions no part could be kept of which, with a probability of"
    " {sure:.0%}, at most {alpha:.1%} is wrong.\n"
    "The policy now escalates everything. Give more records, allow a larger --alpha, or mend the model."
)
_WRITTEN: Final = _("Policy {policy} is release {release} now; it works once it is published.")


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else _("it is not UTF-8 text")
        raise ConsoleError(_("cannot read {file}: {reason}").format(file=file, reason=reason)) from None


def _write(file: Path, text: str) -> None:
    made = file.with_name(f".{file.name}.new")
    try:
        made.write_text(text, encoding="utf-8")
        made.replace(file)
    except OSError as error:
        raise ConsoleError(
            _("cannot write {file}: {reason}").format(file=file, reason=error.strerror)
        ) from None
