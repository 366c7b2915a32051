"""Which runtime runs a model's variant: the only place that names every backend."""

from typing import Final

from edge_agent.errors import ModelRefused, RuntimeMissing
from edge_agent.inference.bundle import Bundle
from edge_agent.inference.runtime import Backend
from fleet_protocol.manifest import ModelFile, Precision, Runtime
from fleet_protocol.texts import _

_MAX_REASON: Final = 300
"""Characters of a library's own words; some of them print their life story."""


def load_backend(bundle: Bundle, runtime: Runtime) -> tuple[Backend, ModelFile]:
    """``bundle``'s variant for ``runtime``, loaded and checked against the declared tensors.

    Raises:
        RuntimeMissing: the runtime cannot be imported.
        ModelRefused: no variant for it, a changed file, or bytes that it does not take.
    """
    variant = bundle.manifest.variant(runtime)
    if variant is None:
        raise ModelRefused(
            _("{model}: no variant for {runtime}").format(model=bundle.manifest.name, runtime=runtime)
        )
    content = bundle.read(variant.file)
    weights = bundle.read(variant.weights) if variant.weights else None
    try:
        return _load(runtime, content, weights, variant, bundle.manifest.precision), variant
    except ImportError as error:
        reason = str(error).strip()[-_MAX_REASON:]
        raise RuntimeMissing(
            _("{runtime} is installed but does not import ({reason}); reinstall 'argan[{runtime}]'").format(
                runtime=runtime, reason=reason
            )
        ) from error
    except (RuntimeError, ValueError, TypeError, OSError, SystemError) as error:
        reason = str(error).strip()[:_MAX_REASON]
        raise ModelRefused(
            _("{model}: {runtime} does not take {file} ({reason})").format(
                model=bundle.manifest.name, runtime=runtime, file=variant.file, reason=reason
            )
        ) from error


def require(runtime: Runtime) -> None:
    """Import ``runtime`` as a model would.

    Raises:
        ImportError: it is not there, or not beside what else is installed.
    """
    match runtime:
        case Runtime.LITERT:
            from edge_agent.inference import litert

            litert.require()
        case Runtime.OPENVINO:
            from edge_agent.inference import openvino

            openvino.require()
        case Runtime.TFLITE:
            from edge_agent.inference import tflite

            tflite.require()


def _load(
    runtime: Runtime, content: bytes, weights: bytes | None, variant: ModelFile, precision: Precision
) -> Backend:
    """Each module is imported only here and only when asked for: that is the footprint decision."""
    match runtime:
        case Runtime.LITERT:
            from edge_agent.inference import litert

            return litert.load(content, variant)
        case Runtime.OPENVINO:
            from edge_agent.inference import openvino

            return openvino.load(content, weights, variant, precision)
        case Runtime.TFLITE:
            from edge_agent.inference import tflite

            return tflite.load(content, variant)
