"""Requests made from the API's own description, good and hostile: none of them may make the server fail.

Every operation gets them as an administrator sends them, so that they reach what lies behind the door.
"""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error

from tests.support.centre import answering, make_centre
from tests.support.ledger import Tried

pytestmark = pytest.mark.attack

EXAMPLES = 20
SCHEMA = schemathesis.openapi.from_path(str(Path(__file__).parents[2] / "docs" / "openapi.json"))
OPERATIONS = {found.label: found for found in (each.ok() for each in SCHEMA.get_all_operations())}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    engine, config = make_centre(tmp_path_factory.mktemp("centre") / "data")
    with answering(engine, config) as client:
        yield client
    engine.dispose()


# Not SCHEMA.parametrize(): all of its tests have one id, and of those pytest-xdist runs a single one.
@pytest.mark.parametrize("label", OPERATIONS)
def test_no_request_makes_the_server_fail(label: str, client: httpx.Client, tried: Tried) -> None:
    operation = OPERATIONS[label]

    @given(st.one_of(operation.as_strategy(generation_mode=mode) for mode in GenerationMode))
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def attempt(case: schemathesis.Case) -> None:
        tried(1)
        answer = case.call(
            base_url=str(client.base_url), headers={"Authorization": client.headers["Authorization"]}
        )
        case.validate_response(answer, checks=[not_a_server_error])

    attempt()
