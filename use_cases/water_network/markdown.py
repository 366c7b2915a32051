"""Tables of the report."""

from collections.abc import Sequence


def table(rows: Sequence[Sequence[str]]) -> str:
    """``rows`` as a Markdown table; the first one is its head."""
    head, *body = [" | ".join(row) for row in rows]
    return "\n".join(f"| {line} |" for line in (head, " | ".join("---" for _ in rows[0]), *body))
