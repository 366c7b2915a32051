"""Signing keys and what they sign: the metadata of both repositories, built and signed with python-tuf.

Private signing keys exist here alone. It needs no server, no network and no database, so that the
same code runs on an offline machine at a key ceremony, in the command line of whoever publishes, and
in the server for the keys that have to be online.
"""
