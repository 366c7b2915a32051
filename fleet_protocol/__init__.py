"""What the agent and the fleet server say to each other.

Pure: bytes in, values out. Nothing here opens a file, a socket or a process, so both sides, the
console and the offline signing machine can share it.
"""
