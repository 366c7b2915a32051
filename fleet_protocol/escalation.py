"""When an answer is kept and when the center is asked: the ``[escalation]`` table of a policy. Pure.

::

    [escalation]
    model_sha256 = "…"          # of the manifest of the model that it was calibrated for
    temperature = 1.7
    threshold = 0.93            # tau
    alpha = 0.05
    delta = 0.1
    n_cal = 500
    expires = 2027-06-30        # may be absent
    audit_share = 0.01
    budget = { per_hour = 60.0, burst = 10 }
    deadline_s = 5.0

An answer is kept where its calibrated confidence reaches ``threshold``. The threshold was learned
so that, with probability 1 - ``delta``, at most a share ``alpha`` of the kept answers is wrong; that
rests on ``n_cal`` examples and holds as long as the field resembles them.
"""

import math
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Annotated, Final

import msgspec

from fleet_protocol.manifest import Digest

_MS_PER_S: Final = 1000.0

Share = Annotated[float, msgspec.Meta(gt=0.0, lt=1.0)]


class Budget(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How many questions one device may put: ``per_hour`` in the long run, ``burst`` at once."""

    per_hour: Annotated[float, msgspec.Meta(gt=0.0, le=1e6)] = 60.0
    burst: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 10


class Escalation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What was learned centrally for one model, and what asking may cost.

    ``threshold`` is one of the calibrated confidence, 0 to 1; above 1 nothing is kept. ``expires``
    is the first day (UTC) on which it holds no longer. ``audit_share`` of the kept answers are sent
    all the same. An answer is waited for ``deadline_s`` seconds.
    """

    model_sha256: Digest
    temperature: Annotated[float, msgspec.Meta(ge=0.01, le=100.0)]
    threshold: Annotated[float, msgspec.Meta(ge=0.0, le=2.0)]
    alpha: Share
    delta: Share
    n_cal: Annotated[int, msgspec.Meta(ge=1)]
    expires: date | None = None
    audit_share: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)] = 0.01
    budget: Budget = Budget()
    deadline_s: Annotated[float, msgspec.Meta(gt=0.0, le=86_400.0)] = 5.0

    @property
    def deadline_ms(self) -> int:
        """The deadline in ms, at least one."""
        return max(1, round(self.deadline_s * _MS_PER_S))


class Decision(StrEnum):
    """What becomes of a local answer.

    ``keep``: it stands. ``audit``: it stands, and the center is asked to see how often that is
    right. ``escalate``: it is uncertain, and the center is asked. ``uncalibrated``: it is uncertain
    because nothing valid says otherwise; the center is not asked, lest every answer be sent.
    """

    KEEP = "keep"
    AUDIT = "audit"
    ESCALATE = "escalate"
    UNCALIBRATED = "uncalibrated"

    @property
    def asks(self) -> bool:
        """Whether the center is asked."""
        return self in {Decision.AUDIT, Decision.ESCALATE}

    @property
    def is_uncertain(self) -> bool:
        """Whether the local answer is flagged."""
        return self in {Decision.ESCALATE, Decision.UNCALIBRATED}


def calibrated(confidence: float, temperature: float) -> float:
    """``confidence``, a probability, after its log-odds are divided by ``temperature``.

    That is temperature scaling itself for two labels; for more it takes the likeliest against the
    rest, which keeps the order of the answers, and the threshold is learned on the same numbers.
    """
    yes = math.pow(confidence, 1.0 / temperature)
    no = math.pow(1.0 - confidence, 1.0 / temperature)
    return yes / (yes + no)


def is_valid(escalation: Escalation, model_sha256: str, now_ms: int | None) -> bool:
    """Whether the calibration is this model's and has not expired.

    ``now_ms`` is UTC in ms since 1970; None where the clock cannot be believed: then one that
    expires counts as expired.
    """
    if escalation.model_sha256 != model_sha256:
        return False
    return escalation.expires is None or (now_ms is not None and now_ms < _begins_ms(escalation.expires))


def decide(
    escalation: Escalation,
    model_sha256: str,
    confidence: float,
    now_ms: int | None,
    draw: float,
    *,
    is_doubted: bool = False,
) -> Decision:
    """What becomes of an answer of the model ``model_sha256`` given with ``confidence``.

    Args:
        escalation: the policy's table.
        model_sha256: of the manifest of the model that answered.
        confidence: the probability of the answer, 0 to 1.
        now_ms: see :func:`is_valid`.
        draw: uniform from 0 to below 1; below ``audit_share`` a kept answer is audited.
        is_doubted: whether a rule calls the answer uncertain; rules need no calibration.
    """
    if is_doubted:
        return Decision.ESCALATE
    if not is_valid(escalation, model_sha256, now_ms):
        return Decision.UNCALIBRATED
    # Asked this way round, what is no number is not kept.
    if 0.0 <= confidence <= 1.0 and calibrated(confidence, escalation.temperature) >= escalation.threshold:
        return Decision.AUDIT if draw < escalation.audit_share else Decision.KEEP
    return Decision.ESCALATE


def _begins_ms(day: date) -> int:
    begins = datetime(day.year, day.month, day.day, tzinfo=UTC)
    return int(begins.timestamp() * _MS_PER_S)
