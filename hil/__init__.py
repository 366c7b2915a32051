"""Hardware in the loop: agents and a server as real processes, put through faults that a scenario tells.

A black box: everything here starts programs, kills them, disturbs their network, disk, clock and
sensors, and asks the server over its API what became of it. Nothing of the agent or the server is
imported.
"""
