"""Leak watching in a city's water network: simulated and recorded data, two int8 models, their policies."""

from pathlib import Path


def models_folder() -> Path:
    """The folder with the committed models, one folder each."""
    return Path(__file__).parent / "models"
