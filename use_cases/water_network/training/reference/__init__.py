"""The models in float, before quantization: what the report compares against; no device gets them."""

from pathlib import Path


def float_file(name: str) -> Path:
    """Where the float ``.tflite`` of the model ``name`` lies."""
    return Path(__file__).parent / f"{name}.f32.tflite"
