"""How a device comes in, proves itself, renews, and is put out."""
