"""The models in float, as they were before quantization: the report compares against them; no device gets them."""

from pathlib import Path


def float_file(name: str) -> Path:
    """Where the float ``.tflite`` of the model ``name`` lies."""
    return Path(__file__).parent / f"{name}.f32.tflite"
