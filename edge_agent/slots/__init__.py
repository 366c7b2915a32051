"""The agent's own software in slots: built, tried, switched to, and left again where it fails.

A slot is an environment of its own under ``DATA/slots/<sha256>``. Which one runs is written in the
launcher's record; ``edge_agent.launcher`` starts it.
"""
