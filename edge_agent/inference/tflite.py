"""tflite-runtime 2.14: for older 64-bit boards where LiteRT's wheels do not install."""

from typing import Any, Final

from edge_agent.inference.interpreter import THREADS, InterpreterBackend
from fleet_protocol.manifest import ModelFile
from fleet_protocol.texts import _

_UNFIT_NUMPY: Final = 2


def load(content: bytes, variant: ModelFile) -> InterpreterBackend:
    """The model in ``content``.

    Raises:
        ImportError: the runtime is not there, or stands beside NumPy 2, on which it does not run.
        ValueError, RuntimeError: it does not take the bytes.
    """
    interpreter = require()(model_content=content, num_threads=THREADS)
    return InterpreterBackend(interpreter, variant)


def require() -> Any:
    """The interpreter's class.

    Raises:
        ImportError: as :func:`load`.
    """
    import numpy as np
    from tflite_runtime.interpreter import Interpreter

    if int(np.__version__.split(".")[0]) >= _UNFIT_NUMPY:
        # It imports, and fails with an exception from nowhere as soon as it is given a model.
        raise ImportError(_("it needs NumPy 1, here is {version}").format(version=np.__version__))
    return Interpreter
