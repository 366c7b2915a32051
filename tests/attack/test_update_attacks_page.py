"""docs/update-attacks.md has a row for every attack on updates that is tried, and for no other."""

import inspect
import re
from pathlib import Path
from types import ModuleType

from tests.attack import test_uptane_bytes_and_replays, test_uptane_mixes

PAGE = Path(__file__).parents[2] / "docs" / "update-attacks.md"


def rows(module: ModuleType) -> list[str]:
    """A row for each test of ``module``, out of its docstring's three lines."""
    found = []
    for name, test in vars(module).items():
        if not name.startswith("test_"):
            continue
        lines = [line for line in inspect.cleandoc(test.__doc__).splitlines() if line]
        assert len(lines) == 3, f"{name} says what is done, what it achieves, and why no more"
        file = module.__name__.replace(".", "/") + ".py"
        found.append(f"| {' | '.join(lines)} | {file}::{name} |")
    return found


def test_every_attack_is_on_the_page_as_it_is_tried() -> None:
    expected = rows(test_uptane_bytes_and_replays) + rows(test_uptane_mixes)
    assert len(expected) > 30
    told = [line for line in PAGE.read_text().splitlines() if re.search(r"::test_\w+ \|$", line)]
    missing, strange = [each for each in expected if each not in told], set(told) - set(expected)
    assert not missing, "docs/update-attacks.md lacks:\n" + "\n".join(missing)
    assert not strange, strange
