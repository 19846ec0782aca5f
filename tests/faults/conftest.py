from tests.evaluators.conftest import tiny  # noqa: F401 - a fixture
from tests.search.conftest import scene  # noqa: F401 - a fixture
