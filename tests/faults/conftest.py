from tests.search.conftest import scene  # noqa: F401 - a fixture
