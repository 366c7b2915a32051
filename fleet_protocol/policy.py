"""The policy document: what to do with a model's answers, as CEL rules.

A policy is TOML. Each rule is a CEL expression over the model's answers (``label``, ``score``,
``confidence``) and the latest value of each metric that the model reads (``reading.pressure``)::

    format = 1
    name = "leak"
    version = "1"
    release = 1
    model = "pressure_leak"

    [[rules]]
    name = "leak"
    when = "label == 'leak' && score > 0.9"
    for_windows = 3
    cooldown_s = 21600
    outcome = "event"
    severity = "warning"
    text = "Likely leak near this gateway"

A policy whose rules do more than tell says so with ``actuates = true``, and takes the signatures of
two people then (:data:`fleet_protocol.targets.ACTUATION`).

An ``[escalation]`` table, written by calibration, says which answers the center is asked about
(:mod:`fleet_protocol.escalation`).

Rules are type-checked against the model's declared answers when a policy is published and again
when it is loaded. Evaluation is bounded by CEL's own iteration budget.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Final

import msgspec
from cel_expr_python import cel

from fleet_protocol.errors import PolicyError
from fleet_protocol.escalation import Escalation
from fleet_protocol.manifest import CelType, Identifier, Manifest, Positive
from fleet_protocol.messages import Line, Name
from fleet_protocol.texts import _

MAX_POLICY: Final = 64 * 1024
"""Bytes of TOML."""

Value = str | float | int | bool


class Outcome(StrEnum):
    """What a rule that holds brings about; the inference itself is always telemetry."""

    EVENT = "event"
    UNCERTAIN = "uncertain"


class Urgency(StrEnum):
    """Severity of the event, by name as people write it."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One rule, and when it acts.

    It acts once ``when`` has held for ``for_windows`` windows in a row, and then not again for
    ``cooldown_s`` seconds of the device's monotonic clock.
    """

    name: Identifier
    when: Annotated[str, msgspec.Meta(min_length=1, max_length=2000)]
    outcome: Outcome
    severity: Urgency = Urgency.WARNING
    text: Line = ""
    for_windows: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 1
    cooldown_s: Annotated[float, msgspec.Meta(ge=0.0, le=31_536_000.0)] = 0.0


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A policy document for the answers of one model.

    ``actuates``: a rule of it does more than tell. It is signed by the role for such policies then.
    """

    format: Annotated[int, msgspec.Meta(ge=1, le=1)]
    name: Identifier
    version: Name
    release: Positive
    model: Identifier
    rules: Annotated[tuple[Rule, ...], msgspec.Meta(min_length=1, max_length=100)]
    actuates: bool = False
    escalation: Escalation | None = None


@dataclass(frozen=True, slots=True)
class Checked:
    """A rule with its compiled, type-checked expression."""

    rule: Rule
    expression: cel.Expression


class CompiledPolicy:
    """A policy whose rules are compiled for one model."""

    def __init__(self, policy: Policy, manifest: Manifest) -> None:
        """Compile every rule.

        Raises:
            PolicyError: another model's policy, or a rule that does not type-check to a boolean.
        """
        if policy.model != manifest.name:
            raise PolicyError(
                _("policy {policy} is for model {wanted}, not for {given}").format(
                    policy=policy.name, wanted=policy.model, given=manifest.name
                )
            )
        self.policy: Final = policy
        self._environment: Final = cel.NewEnv(variables=_variables(manifest))
        self._rules: Final = tuple(
            Checked(rule, _compile(self._environment, policy, rule)) for rule in policy.rules
        )
        self._together: Final = _compile_together(self._environment, policy)

    def evaluate(self, answers: Mapping[str, Value]) -> list[tuple[Rule, bool | str]]:
        """Every rule with whether it holds; a text instead where it could not be evaluated.

        ``answers`` maps ``label``, ``score``, … and ``reading.<metric>`` to their values.
        """
        holding = _value(self._together, answers) if self._together else None
        if isinstance(holding, int):
            return [(checked.rule, holding >> place & 1 == 1) for place, checked in enumerate(self._rules)]
        results: list[tuple[Rule, bool | str]] = []
        for checked in self._rules:
            value = _value(checked.expression, answers)
            results.append((checked.rule, value if isinstance(value, bool) else str(value)[:160]))
        return results


def parse(content: bytes) -> Policy:
    """The policy that ``content`` (TOML in UTF-8) holds.

    Raises:
        PolicyError: with what is wrong and where.
    """
    if len(content) > MAX_POLICY:
        raise PolicyError(
            _("policy of {size} bytes; at most {limit}").format(size=len(content), limit=MAX_POLICY)
        )
    try:
        policy = msgspec.convert(tomllib.loads(content.decode()), Policy)
    except (ValueError, RecursionError) as error:
        raise PolicyError(_("policy does not parse: {reason}").format(reason=error)) from None
    names = [rule.name for rule in policy.rules]
    if len(set(names)) < len(names):
        raise PolicyError(_("policy {policy}: two rules share a name").format(policy=policy.name))
    return policy


_CEL_TYPES: Final = {
    CelType.DOUBLE: cel.Type.DOUBLE,
    CelType.STRING: cel.Type.STRING,
    CelType.INT: cel.Type.INT,
    CelType.BOOL: cel.Type.BOOL,
}


def _variables(manifest: Manifest) -> dict[str, cel.Type]:
    answers = {name: _CEL_TYPES[kind] for name, kind in manifest.answers.items()}
    return answers | {f"reading.{feature.metric}": cel.Type.DOUBLE for feature in manifest.features}


def _compile(environment: cel.Env, policy: Policy, rule: Rule) -> cel.Expression:
    try:
        expression = environment.compile(rule.when)
    except RuntimeError as error:
        raise PolicyError(
            _("policy {policy}, rule {rule}: {reason}").format(
                policy=policy.name, rule=rule.name, reason=str(error)[:1000]
            )
        ) from None
    if expression.return_type() != cel.Type.BOOL:
        raise PolicyError(
            _("policy {policy}, rule {rule}: the expression gives no true or false").format(
                policy=policy.name, rule=rule.name
            )
        )
    return expression


def _compile_together(environment: cel.Env, policy: Policy) -> cel.Expression | None:
    """All rules as the bits of one number, because one evaluation costs hardly more than one rule's.

    None where they are too many, too long or too deep for that. What fails in one rule fails in this; then
    each is evaluated by itself.
    """
    # The line break ends a comment that a rule may end with.
    bits = [f"(({rule.when}\n) ? {1 << place} : 0)" for place, rule in enumerate(policy.rules)]
    if len(bits) > _MAX_TOGETHER or sum(map(len, bits)) > _MAX_TOGETHER_LENGTH:
        return None
    try:
        return environment.compile(" + ".join(bits))
    except RuntimeError:
        return None


_MAX_TOGETHER: Final = 60
"""Rules that one of CEL's 64-bit integers has bits for."""

_MAX_TOGETHER_LENGTH: Final = 20_000
"""Characters; CEL's parser ends at 100 000."""


def _value(expression: cel.Expression, answers: Mapping[str, Value]) -> object:
    try:
        return expression.eval(data=answers).value()
    except RuntimeError as error:
        return str(error)
