"""Signed updates of models and policies: verified, staged, tested, switched, watched, kept or taken back.

Two processes. A child that lives for one look (``python -m edge_agent.updates``) knows python-tuf:
it verifies both repositories, plans, downloads, and says what came of it. The agent never imports
python-tuf: it installs what the child accepted, by a journal.
"""
