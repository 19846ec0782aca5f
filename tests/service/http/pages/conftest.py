"""A workspace with a run, models and hostile names; its pages, asked in this process."""

from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from service.http.app import create_app
from service.http.settings import ServiceSettings
from tests.conftest import MakeModel
from tests.search.runs import put_small_run

HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture
def workspace(tmp_path: Path, make_model: MakeModel) -> Path:
    """Two runs, three models; a run and a model are called what no page may take for markup."""
    base = make_model("base")
    folder = tmp_path / "workspace"
    folder.mkdir()
    for number, name in enumerate(("one", "two", HOSTILE), 1):
        make_model(name, number, base).rename(folder / name)
    base.rename(folder / "base")
    for name in ("run", f"{HOSTILE} run"):
        (folder / name).mkdir()
        put_small_run(folder / name)
    return folder


@pytest.fixture
def pages(workspace: Path) -> TestClient:
    """Asks for HTML as a browser would; no job is started."""
    app = create_app(ServiceSettings(workspace))
    return TestClient(
        app, base_url="http://127.0.0.1:8421", headers={"Accept": "text/html"}, raise_server_exceptions=False
    )
