"""The tables, the engine that reaches them, and how they come to be: SQLite and PostgreSQL alike."""
