"""Every performance claim as a command that prints JSON with a ratio."""
