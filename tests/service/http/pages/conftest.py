"""A workspace with a run, models and hostile names; its pages, asked in this process or looked at in a browser."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fastapi.testclient import TestClient

from service.http.app import create_app
from service.http.settings import ServiceSettings
from tests.conftest import MakeModel
from tests.search.runs import put_small_run

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

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


@pytest.fixture(scope="module")
def chromium() -> Iterator["Browser"]:
    """Debian's browser, started once a module: while it is there, no other event loop can run in this thread."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or os.environ.get("CHROMIUM")
    if program is None:
        pytest.skip("no Chromium here: apt-get install chromium, or name it in CHROMIUM")
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e .[dev]")
    with sync_api.sync_playwright() as play:
        started = play.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def browser(chromium: "Browser") -> Iterator["Page"]:
    """A page of a browser that has never been anywhere."""
    context = chromium.new_context(viewport={"width": 1024, "height": 900}, accept_downloads=True)
    yield context.new_page()
    context.close()


def listening(page: "Page", address: str) -> list[str]:
    """What nobody should see, as it comes: errors, what the policy of scripts refused, requests to anywhere else."""
    noise: list[str] = []
    page.add_init_script("addEventListener('securitypolicyviolation', (at) => console.error('refused', at.blockedURI))")
    page.on("console", lambda said: noise.append(f"{page.url}: {said.text}") if said.type == "error" else None)
    page.on("pageerror", lambda error: noise.append(f"{page.url}: {error}"))
    page.on(
        "request", lambda asked: None if asked.url.startswith((address, "data:", "blob:")) else noise.append(asked.url)
    )
    return noise


def grave(page: "Page") -> list[tuple[str, str]]:
    """Serious findings of axe on a page: the rule and where."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [(one["id"], str(one["nodes"][0]["target"])) for one in found if one["impact"] in {"serious", "critical"}]
