"""The runtime on a device: sensors, models, and a spool that forgets nothing that was promised."""

from typing import Final

VERSION: Final = "0.1.0"
AGENT: Final = f"argan-{VERSION}"
"""How this agent names itself in its status and in its report."""
