"""Starts the agent's software that was installed last, and the one before where that does not come up.

It belongs to the base installation, which no update ever changes, and needs nothing but the standard
library. What it starts may be newer or older than itself: the two meet only in ``record.CURRENT``, in
the command line ``python -I -B -m edge_agent run --config FILE --fitted DIR`` and in the exit code
``record.RESTART``.
"""
