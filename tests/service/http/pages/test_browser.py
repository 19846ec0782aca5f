"""The pages in a real browser: they draw, sort and filter, are accessible, and make no noise."""

import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
import uvicorn

from search.ledger.ledger import Ledger
from search.ledger.location import LEDGER_NAME
from search.ledger.records import Record, Summary
from service.http.app import create_app
from service.http.settings import ServiceSettings
from tests.service.http.pages.conftest import HOSTILE, grave, listening

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
    "/models": "table a",
    "/scores?model=one": "#new",
    "/methods": "h1",
    "/new/methods?base=base&model=one&model=two": "#plan",
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


def test_every_page_draws_fits_a_phone_is_accessible_and_makes_no_noise(address: str, browser: "Page") -> None:
    noise = listening(browser, address)
    for path, wanted in WALK.items():
        browser.set_viewport_size({"width": PHONE, "height": 800})
        browser.goto(address + path)
        place = wanted.split()[0]  # what lies further down is drawn when it is come to
        browser.wait_for_selector(place, state="attached")
        browser.locator(place).first.evaluate("place => place.scrollIntoView()")
        browser.wait_for_selector(wanted, state="attached")
        assert browser.evaluate("document.documentElement.scrollWidth") <= PHONE, path
        browser.set_viewport_size({"width": 1024, "height": 900})
        browser.wait_for_selector(wanted)
        assert grave(browser) == [], path
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


def test_what_is_ticked_stays_while_the_first_page_is_refreshed(address: str, browser: "Page") -> None:
    browser.goto(address)
    with browser.expect_response("**/home/live"):
        pass
    box = browser.locator("input[name=run]").first
    box.check()
    browser.wait_for_timeout(3500)  # longer than it takes to ask again
    assert box.is_checked()


# The row at the upper edge of the population: who it is, and how far below the edge.
LOOKED_AT = """() => {
  const edge = document.querySelector('.tabulator-tableholder').getBoundingClientRect();
  const rows = [...document.querySelectorAll('.tabulator-row')];
  const top = (row) => row.getBoundingClientRect().top - edge.top;
  const first = rows.find((row) => top(row) + row.offsetHeight > 5);
  return [first.querySelector('a').textContent, top(first)];
}"""


def breed(run: Path, *, first: int, count: int, score: float, generations: int = 1) -> None:
    """Add scored individuals to a run, so many a generation, each of two of the generation before."""
    with Ledger(run / LEDGER_NAME, exclusive=True) as ledger:
        known = next(record for record in ledger.records() if record.ranks)
        facts = known.scores["search"].facts
        parents: tuple[str, ...] = ("near", "far")
        born: list[Record] = []
        for generation in range(9, 9 + generations):
            ids = [f"{generation}-{number}" for number in range(first, first + count)]
            born += [Record(id, generation, "offspring", parents, known.recipe or {}, f"made-{id}") for id in ids]
            parents = tuple(ids[:2])
        ledger.add(born, {})
        values = {record.id: score + number / 1000 for number, record in enumerate(born)}
        ledger.record_scores("search", {id: Summary(value, 0.1, True, facts) for id, value in values.items()})


def test_of_a_long_lineage_the_tree_draws_no_more_than_it_can(address: str, browser: "Page", workspace: Path) -> None:
    from playwright.sync_api import expect

    breed(workspace / "run", first=1, count=2, score=50.0, generations=200)
    browser.goto(f"{address}{RUN}")
    browser.locator("#family").scroll_into_view_if_needed()
    expect(browser.locator("#family figcaption")).to_contain_text("150 in all", timeout=60_000)


def test_who_reads_in_the_population_stays_at_a_row_while_better_ones_come_in_above(
    address: str, browser: "Page", workspace: Path
) -> None:
    from playwright.sync_api import expect

    breed(workspace / "run", first=1, count=200, score=-50.0)
    browser.goto(f"{address}{RUN}")
    browser.wait_for_selector(".tabulator-row")
    browser.locator(".tabulator-tableholder").evaluate("holder => holder.scrollTop = 1500")
    link = browser.locator(".tabulator-row a").nth(10)
    browser.wait_for_timeout(300)
    name, place = browser.evaluate(LOOKED_AT)
    count = int(str(browser.text_content("#counted")).split()[0])
    link.evaluate("link => link.focus({preventScroll: true})")
    focused = link.text_content()
    for start in (300, 400):
        count += 30
        breed(workspace / "run", first=start, count=30, score=float(start))
        expect(browser.locator("#counted")).to_contain_text(str(count), timeout=60_000)
        browser.wait_for_timeout(300)
        assert browser.evaluate(LOOKED_AT) == [name, pytest.approx(place, abs=1)]
    assert browser.evaluate("document.activeElement.textContent") == focused
    browser.locator(".tabulator-tableholder").evaluate("holder => holder.scrollTop = 0")
    browser.wait_for_timeout(300)
    breed(workspace / "run", first=600, count=1, score=600.0)
    expect(browser.locator(".tabulator-row a").first).to_have_text("9-600", timeout=60_000)
    assert browser.evaluate(LOOKED_AT)[0] == "9-600"  # who looks at the best sees the new best
