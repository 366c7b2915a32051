"""A central model in this process, on OpenVINO; the only file of the server that knows it."""

import contextlib
import queue
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np

from fleet_protocol.texts import _
from fleet_server.errors import BackendDown, BackendError, BackendLate
from fleet_server.escalation.backend import Metadata, Shapes, Tensor, check
from fleet_server.escalation.folder import CentralFolder

_CONVERTER: Final = "openvino.tools.ovc"
"""The model converter that ``import openvino`` pulls in if it can, and with it code that could report
to somebody outside."""

_MS_PER_S: Final = 1000.0


class OpenVinoBackend:
    """One verified central model, compiled once, with as many requests as may run at once."""

    name = "openvino"

    def __init__(self, folder: CentralFolder, at_once: int, device: str = "CPU") -> None:
        """Load the model of ``folder`` for ``device``.

        Raises:
            BackendDown: OpenVINO is not installed, or the files fail, or it does not take them.
        """
        file = folder.verified()
        try:
            core = _import().Core()
            # One precision, whatever the processor offers: else two servers answer differently.
            compiled = core.compile_model(str(file), device, {"INFERENCE_PRECISION_HINT": "f32"})
        except ImportError:
            raise BackendDown(
                _("OpenVINO is not installed; run: pip install 'argan[openvino]', or give --inference-url")
            ) from None
        except RuntimeError as error:
            raise BackendDown(
                _("{file} cannot be loaded: {reason}").format(file=file, reason=str(error).strip()[-200:])
            ) from None
        self._model: Final = folder.manifest.name
        self._compiled: Final = compiled
        self._requests: Final[queue.SimpleQueue[Any]] = queue.SimpleQueue()
        for _number in range(at_once):
            self._requests.put(compiled.create_infer_request())

    def metadata(self, model: str) -> Metadata:
        """See :class:`InferenceBackend`."""
        self._require(model)
        return Metadata(_shapes(self._compiled.inputs), _shapes(self._compiled.outputs))

    def infer(self, model: str, tensors: Mapping[str, Tensor], deadline_s: float) -> dict[str, Tensor]:
        """See :class:`InferenceBackend`."""
        self._require(model)
        if _left_s(deadline_s) == 0.0:
            # A small model would still answer before anybody looks at the clock again.
            raise BackendLate(_("the deadline passed before the model was asked"))
        inputs = {
            name: np.frombuffer(check(one).values, np.float32).reshape(one.shape)
            for name, one in tensors.items()
        }
        with self._request(deadline_s) as request:
            try:
                request.start_async(inputs)
                if not request.wait_for(max(0, round(_left_s(deadline_s) * _MS_PER_S))):
                    request.cancel()
                    raise BackendLate(_("the model was still computing at the deadline"))
                return {
                    port.get_any_name(): _tensor(request.get_tensor(port).data)
                    for port in self._compiled.outputs
                }
            except (RuntimeError, ValueError, TypeError) as error:
                reason = str(error).strip()[-200:]
                raise BackendError(
                    _("{model} does not take this: {reason}").format(model=model, reason=reason)
                ) from None

    def close(self) -> None:
        """See :class:`InferenceBackend`; the model goes with the last reference."""

    def _require(self, model: str) -> None:
        if model != self._model:
            raise BackendDown(
                _("there is no model {model!r}, only {mine!r}").format(model=model[:64], mine=self._model)
            )

    @contextlib.contextmanager
    def _request(self, deadline_s: float) -> Iterator[Any]:
        try:
            request = self._requests.get(timeout=_left_s(deadline_s))
        except queue.Empty:
            raise BackendLate(_("the model was busy until the deadline")) from None
        try:
            yield request
        finally:
            self._requests.put(request)


def _left_s(deadline_s: float) -> float:
    return max(0.0, deadline_s - time.monotonic())


def _tensor(values: Any) -> Tensor:
    return Tensor(tuple(values.shape), values.astype(np.float32, copy=False).tobytes())


def _shapes(ports: Any) -> Shapes:
    shapes = {}
    for port in ports:
        if port.get_element_type().to_dtype() != np.float32:
            raise BackendError(_("tensor {name!r} is not of float32").format(name=port.get_any_name()))
        shapes[port.get_any_name()] = tuple(
            size.get_length() if size.is_static else -1 for size in port.get_partial_shape()
        )
    return shapes


def _import() -> Any:
    """OpenVINO without its converter; see :data:`_CONVERTER`."""
    hides = "openvino" not in sys.modules and _CONVERTER not in sys.modules
    if hides:
        sys.modules[_CONVERTER] = None  # type: ignore[assignment]  # the import system's way to say "absent"
    try:
        import openvino
    finally:
        if hides:
            del sys.modules[_CONVERTER]
    return openvino
