"""The interactive lane: one question to the central model, and its answer, before the deadline."""

import time
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy import Engine

from fleet_protocol.central import PROBABILITIES, CentralManifest, read_verdict
from fleet_protocol.errors import CentralError
from fleet_protocol.messages import Answer, AnswerState
from fleet_protocol.texts import _
from fleet_server.config import ServerConfig
from fleet_server.errors import BackendDown, BackendError, BackendLate, StoreError
from fleet_server.escalation.admission import Question, grid
from fleet_server.escalation.backend import InferenceBackend, require_fitting
from fleet_server.escalation.folder import open_folder
from fleet_server.escalation.windows import stored, tensors
from fleet_server.telemetry.faults import unavailable

AT_ONCE: Final = 4
"""Questions worked on at once. A backend with more to give batches them itself."""

WAY_BACK_S: Final = 0.005
"""What an answer takes to a device at the least: one that would be there later is late already."""

_REASON: Final = 200


@dataclass(frozen=True, slots=True)
class Outcome:
    """An answer; ``is_down`` tells that the backend, not the question, is at fault."""

    answer: Answer
    is_down: bool = False


class Lane:
    """A central model and who runs it. ``ask`` may be called by several threads at once."""

    def __init__(self, manifest: CentralManifest, backend: InferenceBackend, engine: Engine) -> None:
        """Use ``backend`` for the model of ``manifest``.

        Raises:
            BackendError: the backend's model is another one, or cannot be reached.
        """
        require_fitting(backend.metadata(manifest.name), manifest)
        self.manifest: Final = manifest
        self._backend: Final = backend
        self._engine: Final = engine
        self.by: Final = f"{manifest.name} {manifest.version} ({backend.name})"
        """How the answers name their origin in the database."""

    def ask(self, question: Question, tenant: str, deadline_s: float) -> Outcome:
        """The answer by ``deadline_s``, a moment of :func:`time.monotonic`. Raises nothing it foresees."""
        number = question.request.id
        try:
            answer = self._answered(question, tenant, deadline_s)
        except BackendLate as error:
            return Outcome(unanswered(number, AnswerState.LATE, str(error)))
        except (BackendError, CentralError, StoreError) as error:
            answer = unanswered(number, AnswerState.FAILED, str(error))
            return Outcome(answer, is_down=isinstance(error, BackendDown))
        return Outcome(answer)

    def close(self) -> None:
        """Give the backend back."""
        self._backend.close()

    def _answered(self, question: Question, tenant: str, deadline_s: float) -> Answer:
        manifest, request = self.manifest, question.request
        if time.monotonic() >= deadline_s - WAY_BACK_S:
            raise BackendLate(_("its turn came after the deadline"))
        with unavailable():
            found = stored(self._engine, tenant, manifest, grid(question, manifest))
        inputs = tensors(manifest, found, question.device, request.series)
        outputs = self._backend.infer(manifest.name, inputs, deadline_s)
        output = outputs.get(PROBABILITIES)
        verdict = read_verdict(manifest, array("f", output.values).tolist() if output else ())
        return Answer(
            id=request.id,
            state=AnswerState.ANSWERED,
            model=manifest.name,
            version=manifest.version,
            label=verdict.label,
            score=verdict.score,
            confidence=verdict.confidence,
        )


def open_lane(config: ServerConfig, folder: Path, engine: Engine) -> Lane:
    """The lane to the central model in ``folder``, run here or by the server that ``config`` names.

    Raises:
        BackendError: the folder, or who runs the model, cannot be used.
    """
    central = open_folder(folder)
    backend: InferenceBackend
    if config.inference_url is not None:
        from fleet_server.escalation.oip import OipBackend

        backend = OipBackend(config.inference_url)
    else:
        from fleet_server.escalation.openvino import OpenVinoBackend

        backend = OpenVinoBackend(central, AT_ONCE)
    try:
        return Lane(central.manifest, backend, engine)
    except BaseException:
        backend.close()
        raise


def unanswered(number: str, state: AnswerState, reason: str) -> Answer:
    """An answer that says why there is none."""
    line = "".join(mark if mark.isprintable() else " " for mark in reason)
    return Answer(id=number, state=state, reason=line[:_REASON])
