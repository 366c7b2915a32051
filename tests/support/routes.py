"""The routes of the API as its own description has them, for tests that go through all of them."""

import re
from collections.abc import Iterator

from fastapi import FastAPI

PUBLIC = {("post", "/v1/session"), ("get", "/v1/session/oidc"), ("post", "/v1/session/oidc")}
"""What somebody asks who is not known yet."""

_FILLED = {
    "device": "north-00",
    "kind": "model",
    "name": "leak",
    "rollout": "none",
    "path": "models/leak/1.tar",
}


def routes(app: FastAPI) -> Iterator[tuple[str, str, list[str]]]:
    """Every method and path with the scopes that its description names."""
    for path, methods in app.openapi()["paths"].items():
        for method, what in methods.items():
            needed = [name for way in what.get("security", []) for names in way.values() for name in names]
            yield method, path, needed


def filled(path: str, **known: str) -> str:
    """``path`` with something in place of its parameters."""
    return re.sub(r"{(\w+)}", lambda found: (_FILLED | known).get(found[1], "nobody"), path)
