"""What a policy makes of a model's answers, window after window: streaks, pauses, failures. Pure."""

# ruff: noqa: SLF001 - a successor looks into its predecessor, which is of its own class

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from edge_agent.pipeline.memory import RuleMemory
from fleet_protocol.policy import CompiledPolicy, Outcome, Rule, Value

_MS_PER_S: Final = 1000.0


class Verdict(NamedTuple):
    """What one answer brought about."""

    events: list[Rule]
    """The rules that raise an event now."""

    uncertain: bool
    """Whether a rule calls the answer uncertain."""

    failures: list[str]
    """Rules that could not be evaluated, with why; they did not act."""


@dataclass(slots=True)
class _Memory:
    """What is remembered of one rule."""

    streak: int = 0
    quiet_until_ms: float = field(default=float("-inf"))


class Rules:
    """The rules of one policy with their memory."""

    def __init__(self, policy: CompiledPolicy, time_factor: float = 1.0) -> None:
        """Pauses of ``policy`` pass ``time_factor`` times as fast."""
        self._policy: Final = policy
        self._ms: Final = _MS_PER_S / time_factor
        self._memories: Final = [_Memory() for _rule in policy.policy.rules]

    def judge(self, answers: Mapping[str, Value], mono_ms: int) -> Verdict:
        """Evaluate every rule on the answers of one window, given at ``mono_ms``.

        A rule acts when it has held for its number of windows in a row and its pause is over; one
        that cannot be evaluated has not held.
        """
        events: list[Rule] = []
        failures: list[str] = []
        uncertain = False
        for (rule, holds), memory in zip(self._policy.evaluate(answers), self._memories, strict=True):
            if holds is not True:
                memory.streak = 0
                if holds is not False:
                    failures.append(f"{rule.name}: {holds}")
            elif self._acts(rule, memory, mono_ms):
                if rule.outcome is Outcome.EVENT:
                    events.append(rule)
                else:
                    uncertain = True
        return Verdict(events, uncertain, failures)

    @property
    def name(self) -> str:
        """Name and version of the policy."""
        policy = self._policy.policy
        return f"{policy.name} {policy.version} {policy.release}"

    def memory(self) -> list[RuleMemory]:
        """Streak and pause of each rule."""
        return [
            RuleMemory(each.streak, each.quiet_until_ms if math.isfinite(each.quiet_until_ms) else None)
            for each in self._memories
        ]

    def restore(self, memories: list[RuleMemory], shift_ms: int) -> None:
        """Go on where the same policy left off.

        Raises:
            ValueError: it has other rules.
        """
        for mine, before in zip(self._memories, memories, strict=True):
            mine.streak = before.streak
            if before.quiet_until_ms is not None:
                mine.quiet_until_ms = before.quiet_until_ms + shift_ms

    def succeed(self, before: "Rules") -> None:
        """Go on where another policy is, rule by rule of the same name: nobody is told twice."""
        known = {
            rule.name: memory
            for rule, memory in zip(before._policy.policy.rules, before._memories, strict=True)
        }
        for rule, memory in zip(self._policy.policy.rules, self._memories, strict=True):
            if rule.name in known:
                memory.streak = known[rule.name].streak
                memory.quiet_until_ms = known[rule.name].quiet_until_ms

    def interrupt(self) -> None:
        """A window had no answer: what held before it holds no longer in a row."""
        for memory in self._memories:
            memory.streak = 0

    def _acts(self, rule: Rule, memory: _Memory, mono_ms: int) -> bool:
        memory.streak += 1
        if memory.streak < rule.for_windows or mono_ms < memory.quiet_until_ms:
            return False
        memory.quiet_until_ms = mono_ms + rule.cooldown_s * self._ms
        return True
