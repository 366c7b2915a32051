"""What a board is and may be asked for: one TOML a board, its schema, and what fits on it."""
