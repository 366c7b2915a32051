"""LiteRT (``ai-edge-litert``): the interpreter, whose XNNPACK kernels win on every small int8 model."""

from typing import Any

from edge_agent.inference.interpreter import THREADS, InterpreterBackend
from fleet_protocol.manifest import ModelFile


def load(content: bytes, variant: ModelFile) -> InterpreterBackend:
    """The model in ``content``.

    Raises:
        ImportError: the runtime is not there.
        ValueError, RuntimeError: it does not take the bytes.
    """
    interpreter = require()(model_content=content, num_threads=THREADS)
    return InterpreterBackend(interpreter, variant)


def require() -> Any:
    """The interpreter's class.

    Raises:
        ImportError: the runtime is not there.
    """
    from ai_edge_litert.interpreter import Interpreter

    return Interpreter
