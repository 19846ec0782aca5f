"""The pages in a real browser: they draw, sort and filter, are accessible, and make no noise."""

import os
import re
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
import uvicorn

from service.http.app import create_app
from service.http.settings import ServiceSettings
from tests.service.http.pages.conftest import HOSTILE

if TYPE_CHECKING:
    from playwright.sync_api import Page

RUN = "/runs/run"
PHONE = 390
# Address, and what must be there once the page has settled.
WALK = {
    "/": "table a",
    RUN: ".tabulator-row",
    f"{RUN}/individuals/1-1": "#coefficients .main-svg",
    "/new?from=run": "#new",
    f"/compare?run=run&run={quote(f'{HOSTILE} run')}": "#curves .main-svg",
    f"/kinship?base=base&model=one&model=two&model={quote(HOSTILE)}": "#heat .main-svg",
    "/merge?base=base&model=one&model=two": "#recipe",
    "/trees?run=run": "#tree canvas",
    "/jobs": "#jobs",
    "/runs/nobody": ".notice",
}


@pytest.fixture
def address(workspace: Path) -> Iterator[str]:
    """A server on a port of its own, whose jobs are not started."""
    app = create_app(ServiceSettings(workspace, hosts=("localhost",)))
    server = uvicorn.Server(uvicorn.Config(app, port=0, lifespan="off", log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(10)


@pytest.fixture
def browser() -> Iterator["Page"]:
    """A page of Chromium; ``noise`` of it is everything that nobody should see."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or os.environ.get("CHROMIUM")
    if program is None:
        pytest.skip("no Chromium here: apt-get install chromium, or name it in CHROMIUM")
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e .[dev]")
    with sync_api.sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield chromium.new_page(viewport={"width": 1024, "height": 900})
        chromium.close()


def test_every_page_draws_is_accessible_and_makes_no_noise(address: str, browser: "Page") -> None:
    from axe_playwright_python.sync_playwright import Axe

    noise: list[str] = []
    browser.on("console", lambda said: noise.append(said.text) if said.type == "error" else None)
    browser.on("pageerror", lambda error: noise.append(str(error)))
    browser.on(
        "request", lambda asked: noise.append(asked.url) if not asked.url.startswith((address, "data:")) else None
    )
    for path, wanted in WALK.items():
        browser.goto(address + path)
        browser.wait_for_selector(wanted)
        found = Axe().run(browser).response["violations"]
        grave = [(one["id"], one["nodes"][0]["target"]) for one in found if one["impact"] in {"serious", "critical"}]
        assert not grave, path
    assert [text for text in noise if "404" not in text] == []  # the page that is not there


def test_the_population_is_sorted_and_filtered_and_the_address_says_so(address: str, browser: "Page") -> None:
    browser.goto(f"{address}{RUN}")
    browser.wait_for_selector(".tabulator-row")
    from playwright.sync_api import expect

    everybody = browser.locator(".tabulator-row").count()
    browser.click(".tabulator-col[tabulator-field=id] .tabulator-col-title")
    expect(browser).to_have_url(re.compile(r"[?&]sort=id\b"))
    browser.fill("#find", "1-1")
    expect(browser.locator(".tabulator-row")).not_to_have_count(everybody)
    few = browser.locator(".tabulator-row").count()
    browser.reload()
    browser.wait_for_selector(".tabulator-row")
    assert browser.locator(".tabulator-row").count() == few
    assert browser.input_value("#find") == "1-1"
    browser.click("#curve summary")
    assert browser.locator("#curve tbody tr").count() > 0
    browser.click(".tabulator-row a >> nth=0")
    browser.wait_for_url("**/individuals/**")


def test_no_page_is_wider_than_a_phone(address: str, browser: "Page") -> None:
    browser.set_viewport_size({"width": PHONE, "height": 800})
    for path, wanted in WALK.items():
        browser.goto(address + path)
        browser.wait_for_selector(wanted, state="attached")
        assert browser.evaluate("document.documentElement.scrollWidth") <= PHONE, path


def test_what_is_ticked_stays_while_the_first_page_is_refreshed(address: str, browser: "Page") -> None:
    browser.goto(address)
    with browser.expect_response("**/home/live"):
        pass
    box = browser.locator("input[name=run]").first
    box.check()
    browser.wait_for_timeout(3500)  # longer than it takes to ask again
    assert box.is_checked()
