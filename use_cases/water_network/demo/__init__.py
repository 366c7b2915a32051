"""The demonstration: a small city whose water network is watched by real agents and a real server."""
