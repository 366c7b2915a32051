"""What this device proves itself with: checked before use, and renewed in time."""
