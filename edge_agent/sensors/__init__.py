"""Drivers: each turns one kind of thing that measures into samples."""
