"""How the server reaches its broker, and how the broker and the devices know each other."""
