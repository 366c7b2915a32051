"""The record of every change, and the checkpoints that others hold of it."""
