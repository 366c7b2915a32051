"""From samples to answers and events: windows, model, rules, for every model of the agent.

Decides nothing itself: when to ask is :mod:`windows`, what it means is :mod:`rules`; here they meet
the session, and what goes wrong becomes a health code while the readings flow on.
"""

# ruff: noqa: SLF001 - a successor looks into its predecessor, which is of its own class

from collections.abc import Sequence
from itertools import islice
from typing import Final, NamedTuple, Protocol

from edge_agent.errors import InferenceError, ModelRefused
from edge_agent.escalation.doubts import Doubts, Weighed
from edge_agent.inference.session import Answer, Session
from edge_agent.pipeline.memory import ModelMemory, moved
from edge_agent.pipeline.rules import Rules
from edge_agent.pipeline.shadow import Shadow
from edge_agent.pipeline.vitals import Pulse, Vitals
from edge_agent.pipeline.windows import Due, Windows
from edge_agent.sensors.base import Sample
from fleet_protocol.messages import Event, Inference, Severity
from fleet_protocol.policy import CompiledPolicy, Rule, Urgency, Value

_RULE_FAILED: Final = "policy.rule_failed"

_MAX_READINGS: Final = 62
"""An event carries 64 figures; two are the answer's own."""

_SEVERITIES: Final = {
    Urgency.INFO: Severity.INFO,
    Urgency.WARNING: Severity.WARNING,
    Urgency.CRITICAL: Severity.CRITICAL,
}


class Health(Protocol):
    """What the pipeline needs of the health board."""

    def raise_code(self, code: str, detail: str = "", *, subject: str = "") -> None:
        """Raise ``code`` for ``subject``."""

    def clear(self, code: str, *, subject: str = "") -> None:
        """Take ``code`` back for ``subject``."""


class Model(NamedTuple):
    """An open model and the policy that reads its answers, if there is one.

    ``doubts`` weigh its answers, where the policy says when to ask the center.
    """

    session: Session
    policy: CompiledPolicy | None
    doubts: Doubts | None = None


class Processed(NamedTuple):
    """What came of some samples; every offset is 0, which means: at the time handed in."""

    inferences: list[Inference]
    events: list[Event]


class Pipeline:
    """All models of one agent."""

    def __init__(self, models: Sequence[Model], health: Health, time_factor: float = 1.0) -> None:
        """Watch with ``models``, in a world that runs ``time_factor`` times as fast."""
        self._health: Final = health
        self._time_factor: Final = time_factor
        self._watches: Final = [_Watch(model, health, time_factor) for model in models]
        self._shadows: Final[dict[str, Shadow]] = {}
        self._remembered: dict[str, ModelMemory] = {}
        """What shadows remember that have not joined yet, by their models' names."""

    def process(self, samples: list[Sample], mono_ms: int) -> Processed:
        """What ``samples``, taken up to ``mono_ms``, bring about. Raises nothing that it foresees."""
        processed = Processed([], [])
        for watch in self._watches:
            watch.process(samples, mono_ms, processed)
        for shadow in self._shadows.values():
            shadow.process(samples, mono_ms)
        return processed

    def memory(self) -> list[ModelMemory]:
        """What is remembered of every model."""
        remembered = self._remembered | {name: shadow.memory() for name, shadow in self._shadows.items()}
        return [*(watch.memory() for watch in self._watches), *remembered.values()]

    def restore(self, models: list[ModelMemory], shift_ms: int) -> None:
        """Take over what fits a model and its policy, with times moved by ``shift_ms``."""
        self._remembered = {memory.name: moved(memory, shift_ms) for memory in models if memory.compared}
        for name, shadow in self._shadows.items():
            shadow.restore(self._remembered.pop(name, None))
        models = [memory for memory in models if not memory.compared]
        by_digest = {memory.digest: memory for memory in models}
        by_name = {memory.name: memory for memory in models if memory.name}
        for watch in self._watches:
            memory = by_digest.get(watch.digest) or by_name.get(watch.name)
            if memory is not None:
                watch.restore(memory, shift_ms)

    def replace(self, model: Model) -> None:
        """Let ``model`` take the place of the one of its name, between two samples; or join.

        It goes on in the middle of a bucket with what the one before has seen, so that no sample is
        lost and no window is answered twice.
        """
        watch = _Watch(model, self._health, self._time_factor)
        for place, before in enumerate(self._watches):
            if before.name == watch.name:
                watch.succeed(before)
                self._watches[place] = watch
                break
        else:
            self._watches.append(watch)
        self._pair(watch.name)

    def remove(self, name: str) -> None:
        """Watch no more with the model called ``name``."""
        for watch in [each for each in self._watches if each.name == name]:
            watch.withdraw()
            self._watches.remove(watch)

    def join(self, shadow: Shadow) -> None:
        """Let ``shadow`` run beside the model of its name from the next sample on.

        It sees what it remembers from before a restart, else what the model that acts has seen.
        """
        acting = self._acting(shadow.name)
        if not shadow.restore(self._remembered.pop(shadow.name, None)) and acting is not None:
            shadow.windows.succeed(acting.windows)
        self._shadows[shadow.name] = shadow
        self._pair(shadow.name)

    def part(self, name: str) -> None:
        """Let nothing run in shadow of the model called ``name`` any more."""
        self._shadows.pop(name, None)
        self._remembered.pop(name, None)
        self._pair(name)

    def _pair(self, name: str) -> None:
        """Have the model called ``name`` tell its answers to what runs in its shadow now."""
        acting, shadow = self._acting(name), self._shadows.get(name)
        if acting is not None:
            acting.twin = shadow
            if shadow is not None:
                shadow.comparison.against(acting.digest, acting.version)

    def _acting(self, name: str) -> "_Watch | None":
        return next((watch for watch in self._watches if watch.name == name), None)

    def vitals(self, name: str) -> Vitals:
        """How the model called ``name`` has done since it took its place, with the policy that it has."""
        return next((watch.pulse.read() for watch in self._watches if watch.name == name), Vitals())

    def usual(self, name: str) -> Vitals:
        """What is usual of the model called ``name`` at present."""
        return next((watch.pulse.usual() for watch in self._watches if watch.name == name), Vitals())


class _Watch:
    """One model at work."""

    def __init__(self, model: Model, health: Health, time_factor: float) -> None:
        self._session: Final = model.session
        self._manifest: Final = model.session.manifest
        self._health: Final = health
        self.windows: Final = Windows(self._manifest.features, self._manifest.step_s, time_factor)
        self._readings: Final = [f"reading.{metric}" for metric in self.windows.metrics]
        self._rules: Final = Rules(model.policy, time_factor) if model.policy else None
        self._doubts: Final = model.doubts
        self._answered = -1
        self._ill = ""
        self._rule_failed = False
        self._alarm: Final = self._manifest.output.alarm_label
        self.pulse: Final = Pulse()
        self.twin: Shadow | None = None
        """What runs in its shadow, and is told its answers."""

    def process(self, samples: list[Sample], mono_ms: int, processed: Processed) -> None:
        for due in self.windows.take(samples, mono_ms):
            answer = self._ask(due)
            if answer:
                if self.twin:
                    self.twin.comparison.acted(due.bucket, answer)
                weighed = Weighed(self._judge(answer, due, mono_ms, processed.events))
                if self._doubts is not None:
                    weighed = self._doubts.weigh(answer, due, mono_ms, is_doubted=weighed.uncertain)
                processed.inferences.append(self._inference(answer, weighed))

    @property
    def digest(self) -> str:
        """Which model this is."""
        return self._session.digest

    @property
    def name(self) -> str:
        """The model's name, which its successors share."""
        return self._manifest.name

    @property
    def version(self) -> str:
        """The model's version, as people know it."""
        return self._manifest.version

    def succeed(self, before: "_Watch") -> None:
        """Go on where ``before`` is."""
        self.windows.succeed(before.windows)
        self._answered = before._answered
        self._ill, self._rule_failed = before._ill, before._rule_failed
        if before._doubts is not None and self._doubts is None:
            before._doubts.withdraw()
        if self._rules is not None and before._rules is not None:
            self._rules.succeed(before._rules)
        elif before._rule_failed:
            self._tell([])

    def withdraw(self) -> None:
        """Take back what was raised: this model is gone, and nobody else would."""
        if self._ill:
            self._health.clear(self._ill, subject=self.name)
        self._tell([])
        if self._doubts is not None:
            self._doubts.withdraw()

    def memory(self) -> ModelMemory:
        rules = self._rules
        return ModelMemory(
            self.digest,
            rules.name if rules else "",
            self.windows.memory(),
            self._answered,
            rules.memory() if rules else [],
            self.name,
            self.windows.layout,
            self.pulse.read(),
        )

    def restore(self, memory: ModelMemory, shift_ms: int) -> None:
        if memory.digest == self.digest and memory.policy == (self._rules.name if self._rules else ""):
            self.pulse.restore(memory.vitals)
        if memory.windows is None:
            return
        if memory.layout is None:
            if memory.digest != self.digest:
                return
            self.windows.restore(memory.windows, shift_ms)
        elif not self.windows.restore_other(memory.windows, memory.layout, shift_ms):
            return
        self._answered = memory.answered
        if self._rules is not None and self._rules.name == memory.policy:
            self._rules.restore(memory.rules, shift_ms)

    def _ask(self, due: Due) -> Answer | None:
        name = self._manifest.name
        try:
            answer = self._session.infer(due.windows)
        except InferenceError as error:
            self.pulse.failed()
            code = error.code or ModelRefused.code
            if self._ill and self._ill != code:
                self._health.clear(self._ill, subject=name)
            self._health.raise_code(code, str(error), subject=name)
            self._ill = code
            return None
        if self._ill:
            self._health.clear(self._ill, subject=name)
            self._ill = ""
        self.pulse.answered(answer.score, answer.latency_us, alarm=answer.label == self._alarm)
        return answer

    def _judge(self, answer: Answer, due: Due, mono_ms: int, events: list[Event]) -> bool:
        """Apply the rules; whether one of them calls the answer uncertain."""
        if self._rules is None:
            return False
        if due.bucket != self._answered + 1:
            self._rules.interrupt()
        self._answered = due.bucket
        facts: dict[str, Value] = dict(zip(self._readings, due.latest, strict=True))
        facts["label"] = answer.label
        facts["score"] = answer.score
        facts["confidence"] = answer.confidence
        verdict = self._rules.judge(facts, mono_ms)
        self.pulse.judged(raised=bool(verdict.events), unclear=bool(verdict.failures))
        if verdict.events:
            events.extend(self._event(rule, answer, due) for rule in verdict.events)
        if verdict.failures or self._rule_failed:
            self._tell(verdict.failures)
        return verdict.uncertain

    def _tell(self, failures: list[str]) -> None:
        name = self._manifest.name
        if failures:
            self._health.raise_code(_RULE_FAILED, "; ".join(failures), subject=name)
        else:
            self._health.clear(_RULE_FAILED, subject=name)
        self._rule_failed = bool(failures)

    def _inference(self, answer: Answer, weighed: Weighed) -> Inference:
        manifest = self._manifest
        return Inference(
            0,
            manifest.name,
            manifest.version,
            answer.label,
            answer.score,
            answer.confidence,
            answer.latency_us,
            weighed.uncertain,
            weighed.request,
        )

    def _event(self, rule: Rule, answer: Answer, due: Due) -> Event:
        values = dict(islice(zip(self.windows.metrics, due.latest, strict=True), _MAX_READINGS))
        values |= {"score": answer.score, "confidence": answer.confidence}
        return Event(0, rule.name, _SEVERITIES[rule.severity], rule.text, self._manifest.name, values)
