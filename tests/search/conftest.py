from pathlib import Path

import pytest

from tests.conftest import MakeModel
from tests.search.runs import Scene, make_scene


@pytest.fixture
def scene(make_model: MakeModel, tmp_path: Path) -> Scene:
    return make_scene(make_model, tmp_path)
