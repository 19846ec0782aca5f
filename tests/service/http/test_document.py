"""The OpenAPI document and the server agree: nothing breaks the server, and it answers only as documented."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from service.http.settings import ServiceSettings
from tests.service.http.conftest import API, Service, make_workspace, serving

EXAMPLES = 4


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A server whose queue is full, so that nothing that is made up is run."""
    yield from serving(ServiceSettings(make_workspace(tmp_path_factory.mktemp("full")), port=0, most_queued=0))


def test_answers_are_as_documented(full: Service) -> None:
    schemathesis = pytest.importorskip("schemathesis")
    document = schemathesis.openapi.from_url(f"{full.address}{API}/openapi.json")
    document = document.exclude(path_regex="/stream$")  # which does not end
    checks = schemathesis.checks
    wanted = [
        checks.not_a_server_error, checks.status_code_conformance, checks.content_type_conformance,
        checks.response_schema_conformance,
    ]  # fmt: skip
    operations = [found.ok() for found in document.get_all_operations()]
    assert len(operations) > 30
    for operation in operations:

        @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy())
        def answer(case: Any) -> None:
            case.call_and_validate(checks=wanted)

        answer()
