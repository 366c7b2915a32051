"""The threat model names what is there: every test and every module on the page exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "threat-model.md").read_text()

ROWS = [line for line in PAGE.splitlines() if re.match(r"\| [STRIDE] \|", line)]
TESTS = sorted(set(re.findall(r"(tests/[\w/]+\.py)::(\w+)", PAGE)))
PATHS = sorted(set(re.findall(r"\b[a-z_]+/[\w/]+\.py\b", PAGE)))
LINKS = sorted(set(re.findall(r"\]\(([^)#]+)\)", PAGE)))


@pytest.mark.parametrize(("file", "name"), TESTS, ids=[f"{file}::{name}" for file, name in TESTS])
def test_every_test_that_is_named_exists(file: str, name: str) -> None:
    source = (ROOT / file).read_text()
    assert re.search(rf"^(async )?def {name}\(", source, re.MULTILINE), f"{file} has no {name}"


@pytest.mark.parametrize("path", PATHS)
def test_every_file_that_is_named_exists(path: str) -> None:
    assert (ROOT / path).is_file()


@pytest.mark.parametrize("link", LINKS)
def test_every_link_leads_to_a_page(link: str) -> None:
    assert (ROOT / "docs" / link).is_file()


def test_every_threat_has_a_place_and_a_proof() -> None:
    assert len(ROWS) > 50
    for row in ROWS:
        _, _letter, threat, place, proof, _ = (cell.strip() for cell in row.split("|"))
        assert threat
        assert place in PATHS, row
        named = proof.split(", ")
        assert all(tuple(each.split("::")) in TESTS for each in named), row


def test_every_journey_has_a_table() -> None:
    _head, *journeys = PAGE.split("\n## ")
    assert all("\n| |" in each for each in journeys), [each.splitlines()[0] for each in journeys]
