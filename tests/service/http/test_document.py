"""The OpenAPI document and the server agree: nothing breaks the server, and it answers only as documented."""

from collections.abc import Iterator
from typing import Any

import pytest

schemathesis = pytest.importorskip("schemathesis")

from hypothesis import HealthCheck, settings  # noqa: E402

from service.http.settings import ServiceSettings  # noqa: E402
from tests.service.http.conftest import API, Service, make_workspace, serving  # noqa: E402

EXAMPLES = 4


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A server whose queue is full, so that nothing that is made up is run."""
    yield from serving(ServiceSettings(make_workspace(tmp_path_factory.mktemp("full")), port=0, most_queued=0))


@pytest.fixture(scope="module")
def document(full: Service) -> Any:
    loaded = schemathesis.openapi.from_url(f"{full.address}{API}/openapi.json")
    loaded.config.phases.coverage.enabled = False  # thousands of cases
    return loaded.exclude(path_regex="/stream$")  # which does not end


document_schema = schemathesis.pytest.from_fixture("document")


@document_schema.parametrize()
@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_answers_are_as_documented(case: Any) -> None:
    checks = schemathesis.checks
    case.call_and_validate(
        checks=[
            checks.not_a_server_error, checks.status_code_conformance, checks.content_type_conformance,
            checks.response_schema_conformance,
        ]
    )  # fmt: skip
