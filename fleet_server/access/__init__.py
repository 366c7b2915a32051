"""Who may ask the server for what."""
