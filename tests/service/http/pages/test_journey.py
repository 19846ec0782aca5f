"""What a user does, in a real browser over real jobs: from the form to a merged model; pause, cancel, extend."""

import os
import re
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from merging import load_recipe, write_merge
from service.answers import MethodComparison
from service.answers.export import export_of
from service.client import Client
from service.http.settings import ServiceSettings
from tests.evaluators.conftest import write_llama
from tests.service.http.conftest import Service, serving
from tests.service.http.pages.conftest import grave, listening

if TYPE_CHECKING:
    from playwright.sync_api import Page

PATIENCE = 180_000  # milliseconds: jobs start programs, and the machine may be busy
WITHIN = """[...document.querySelectorAll("figure")].every((figure) => [...figure.querySelectorAll(".main-svg")].every(
    (drawn) => drawn.getBoundingClientRect().bottom <= figure.getBoundingClientRect().bottom))"""  # each in its frame


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """A server with its jobs, over a tiny base, three fine-tunes of it and a short text."""
    folder = tmp_path / "workspace"
    base = write_llama(folder / "base")
    for seed, name in enumerate(("one", "two", "three"), 1):
        _fine_tune(base, folder / name, seed)
    words = [f"{one}{other}{one}" for one in "abcd" for other in "efgh"]
    (folder / "text.txt").write_text("".join(f"{word} = {word[::-1]}\n" for word in words))
    yield from serving(ServiceSettings(folder, port=0))


def _fine_tune(base: Path, folder: Path, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    folder.mkdir()
    for file in base.iterdir():
        if file.name != "model.safetensors":
            (folder / file.name).write_bytes(file.read_bytes())
    weights = load_file(base / "model.safetensors")
    changed = {name: part + 0.1 * torch.randn(part.shape, generator=generator) for name, part in weights.items()}
    save_file(changed, folder / "model.safetensors", metadata={"format": "pt"})


def _fill(browser: "Page", field: str, text: str) -> None:
    """Type into a field of the form, whose section may have to be opened first."""
    place = browser.locator(f"[id='f-{field}']")
    if not place.is_visible():
        browser.locator(f"details:has([id='f-{field}']) > summary").click()
    if place.evaluate("place => place.tagName") == "SELECT":
        place.select_option(text)
    else:
        place.fill(text)


def _start(browser: "Page", address: str, name: str, evaluations: int, **more: str) -> None:
    browser.goto(f"{address}/new")
    browser.fill("#name", name)
    _fill(browser, "base", "base")
    for founder in ("one", "two", "three"):
        browser.check(f"input[name=founder][value={founder}]")
    _fill(browser, "evaluate.perplexity", "- {file: text.txt, documents: lines}")
    _fill(browser, "stop.evaluations", str(evaluations))
    for field, text in more.items():
        _fill(browser, field.replace("__", "."), text)
    if name == "first":
        _look_first(browser)
    browser.dblclick("button:text-is('Start')")  # as some do everywhere: it is started once
    browser.wait_for_url(f"**/runs/{name}")


def _look_first(browser: "Page") -> None:
    """What may be seen before a run is started: how related its founders are."""
    browser.click("text=Kinship of the founders")
    browser.wait_for_selector("#kinship table")
    assert grave(browser) == []


def _wait_for_state(browser: "Page", *states: str) -> None:
    from playwright.sync_api import expect

    expect(browser.locator("#state")).to_have_text(re.compile(f"^({'|'.join(states)})$"), timeout=PATIENCE)


def _act(browser: "Page", name: str) -> None:
    browser.click(f"[role=toolbar] button:text-is('{name}'):visible")


@pytest.mark.xdist_group("journey")
def test_from_the_form_to_a_merged_model(service: Service, browser: "Page", tmp_path: Path) -> None:
    from playwright.sync_api import expect

    noise = listening(browser, service.address)
    browser.set_default_timeout(PATIENCE)
    browser.on("dialog", lambda asked: asked.accept())

    # The first is watched to its end on the page that was there before anything was on record.
    ties = {"merge__method": "ties", "merge__parameters": "{density: 0.8, weight: 0.5}"}
    _start(browser, service.address, "first", 6, strategy__name="topk", **ties)
    browser.evaluate("window.unbroken = true")
    other = browser.context.new_page()
    heard = listening(other, service.address)
    other.set_default_timeout(PATIENCE)
    other.on("dialog", lambda asked: asked.accept())
    _start(other, service.address, "second", 100_000, strategy__name="random")
    _start(other, service.address, "third", 3)
    other.goto(f"{service.address}/jobs")
    other.click("tr:has-text('Search third') button:has-text('Earlier')")
    expect(other.locator("tbody tr:has-text('Search')").nth(1)).to_contain_text("third")
    other.click("tr:has-text('Search third') button:has-text('Cancel')")
    other.wait_for_selector("tr:has-text('Search third') .state.cancelled")
    _wait_for_state(browser, "finished")
    browser.wait_for_selector("#verdict .verdict")
    browser.wait_for_selector("#files a[download='best-offspring.yml']")
    assert browser.evaluate("window.unbroken"), "the page was loaded again"
    assert browser.text_content("#evaluations") == "6 of 6"
    assert browser.locator(".tabulator-col[tabulator-field=task0]").count() == 1
    browser.wait_for_selector("#curve .main-svg")
    assert browser.locator("#events li").count() > 8
    assert grave(browser) == []

    # The second runs now, and would for long: paused, resumed, cancelled, and extended to an end that it has reached.
    other.goto(f"{service.address}/runs/second")
    _wait_for_state(other, "running")
    expect(other.locator("#evaluations")).to_have_text(re.compile("[1-9][0-9]* of"), timeout=PATIENCE)
    _act(other, "Pause")
    _wait_for_state(other, "paused")
    _act(other, "Resume")
    _wait_for_state(other, "running")
    _act(other, "Cancel")
    _wait_for_state(other, "paused", "interrupted")
    done = int(str(other.text_content("#evaluations")).split()[0])
    _act(other, "Extend")
    assert grave(other) == []
    other.fill("#extend-evaluations", str(done + 4))
    other.click("#extend-form button[type=submit]")
    _wait_for_state(other, "finished")
    assert heard == []
    other.close()

    browser.goto(service.address)
    browser.check("input[name=run][value=first]")
    browser.check("input[name=run][value=second]")
    browser.click("text=Compare those ticked")
    browser.wait_for_selector("#curves .main-svg")
    assert grave(browser) == []

    # The best one's model is one file; another run begins where this one did.
    browser.goto(f"{service.address}/runs/first")
    with browser.expect_download() as download:
        browser.click("text=The best offspring as one file")
    with tarfile.open(download.value.path()) as tar:
        taken = tar.extractfile("best-offspring/model.safetensors")
        assert taken is not None
        kept = service.folder / "first" / "best-offspring" / "model.safetensors"
        assert taken.read() == kept.read_bytes()
    browser.click("text=New run like this")
    expect(browser.locator("input[name=founder]:checked")).to_have_count(3)

    # From the table to the best one, its recipe, and a model made of it; best is best by any order.
    browser.goto(f"{service.address}/runs/first")
    browser.click(".tabulator-col[tabulator-field=value] .tabulator-col-title")
    expect(browser).to_have_url(re.compile("sort=value"))
    browser.click("text=The family tree on its own page")
    browser.wait_for_selector("#tree canvas >> nth=0")
    browser.go_back()
    best = next(person.id for person in export_of(str(service.folder / "first")).individuals if person.generation == 2)
    browser.click(f".tabulator-row a:text-is('{best}')")
    browser.wait_for_url(f"**/individuals/{best}")
    with browser.expect_download() as download:
        browser.click("text=Download the recipe")
    recipe = tmp_path / "recipe.yml"
    download.value.save_as(recipe)
    browser.click("text=Merge with it")
    browser.click("button:text-is('Merge')")
    browser.wait_for_url("**/jobs/*")
    _wait_for_state(browser, "done")
    browser.wait_for_selector("summary:has-text('The folder')")
    assert grave(browser) == []
    assert noise == []

    number = browser.url.rpartition("/")[2]
    (merged,) = (service.folder / "jobs" / number / "result").glob("*/model.safetensors")
    here = os.getcwd()
    os.chdir(service.folder)  # its paths count from the workspace
    try:
        own = write_merge(load_recipe(recipe), tmp_path / "own") / "model.safetensors"
    finally:
        os.chdir(here)
    assert merged.read_bytes() == own.read_bytes()
    written = service.folder / "first" / "children" / f"{best}.safetensors"
    for name, part in load_file(written).items():
        torch.testing.assert_close(load_file(merged)[name], part, rtol=1e-5, atol=1e-6)


@pytest.mark.xdist_group("journey")
def test_a_comparison_of_methods_is_paused_gone_on_with_and_shown(service: Service, browser: "Page") -> None:
    noise = listening(browser, service.address)
    browser.set_default_timeout(PATIENCE)
    tasks = [{"file": "text.txt", "name": name, "documents": "lines"} for name in ("one", "two", "three")]
    plan: dict[str, Any] = {
        "base": "base",
        "cells": {"one": {"model": "one"}, "two": {"model": "two"}, "three": {}},
        "evaluate": {"perplexity": tasks},
        "methods": {"linear": {"tune": {"scale": [0.5, 1.0, 1.5]}}, "ties": {"tune": {"density": [0.2, 0.5, 0.8]}}},
    }
    browser.goto(f"{service.address}/new/methods")
    browser.fill("#plan", yaml.safe_dump(plan))
    browser.fill("#name", "mine")
    browser.click("button:text-is('Compare')")
    browser.wait_for_url("**/methods/mine")
    with Client(service.address) as client:
        while client.comparison("mine").state == "queued":
            time.sleep(0.05)
        paused = client.wait(client.pause_comparison("mine"))
        assert (paused.state, client.comparison("mine").state) == ("paused", "paused")
        _wait_for_state(browser, "paused")
        job = client.wait(client.resume_comparison("mine"))
        assert (job.state, job.kind) == ("done", "compare"), client.log(job.id).text
        found = client.comparison_result("mine")
        assert client.result(MethodComparison, job) == found
        assert {"linear", "linear (tuned)", "ties", "ties (tuned)"} <= {row.label for row in found.rows}
    browser.goto(f"{service.address}/methods/mine")
    browser.wait_for_selector("#scatter .main-svg")
    assert browser.evaluate(WITHIN)
    assert grave(browser) == []
    assert noise == []
