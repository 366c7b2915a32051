"""A reading's way to its row on the server: received, checked, placed in time, committed, acknowledged."""
