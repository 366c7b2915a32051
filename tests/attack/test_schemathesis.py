"""Requests made from the API's own description, good and hostile: none of them may make the server fail.

Every operation gets them as an administrator sends them, so that they reach what lies behind the door.
"""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error

from tests.support.centre import answering, make_centre
from tests.support.ledger import Tried

pytestmark = pytest.mark.attack

EXAMPLES = 30
SCHEMA = schemathesis.openapi.from_path(str(Path(__file__).parents[2] / "docs" / "openapi.json"))


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    engine, config = make_centre(tmp_path_factory.mktemp("centre") / "data")
    with answering(engine, config) as client:
        yield client
    engine.dispose()


@SCHEMA.parametrize()
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_no_request_makes_the_server_fail(
    case: schemathesis.Case, client: httpx.Client, tried: Tried
) -> None:
    tried(1)
    answer = case.call(
        base_url=str(client.base_url), headers={"Authorization": client.headers["Authorization"]}
    )
    case.validate_response(answer, checks=[not_a_server_error])
