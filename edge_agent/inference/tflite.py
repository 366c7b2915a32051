"""tflite-runtime 2.14: for older 64-bit boards where LiteRT's wheels do not install."""

from edge_agent.inference.interpreter import THREADS, InterpreterBackend
from fleet_protocol.manifest import ModelFile


def load(content: bytes, variant: ModelFile) -> InterpreterBackend:
    """The model in ``content``.

    Raises:
        ImportError: the runtime is not there, or stands beside NumPy 2, on which it does not run.
        ValueError, RuntimeError: it does not take the bytes.
    """
    from tflite_runtime.interpreter import Interpreter

    return InterpreterBackend(Interpreter(model_content=content, num_threads=THREADS), variant)
