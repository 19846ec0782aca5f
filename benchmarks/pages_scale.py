"""The web pages on a large run: what comes over the wire, how soon it can be used, and the memory of server and page.

    python benchmarks/pages_scale.py --work WORK [--individuals 10000] [--tree 500]

The runs are written straight into their ledgers: individuals with two parents of the generation before, and scores that
cost nothing. A browser (Chromium by Playwright) that has never been there opens them, the server having just started.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from coordinator_speed import DOCUMENTS, FreeEvaluator, models
from playwright.sync_api import Page, sync_playwright

from merging.offspring.span import Genome
from search.config import parse_config
from search.ledger.ledger import Ledger
from search.ledger.location import LEDGER_NAME
from search.ledger.records import Record, Summary
from search.running.coordinator import Search

BATCH, FOUNDERS, TENSORS = 40, 6, 30
RECIPE = {"method": "linear", "parameters": {"weight": 0.5}}


def found(work: Path, name: str) -> Path:
    """A run whose founders have their scores, and which bred once."""
    references = models(work / "models", FOUNDERS, TENSORS)
    config = parse_config(
        {
            "base": references.pop("base"), "founders": references, "evaluate": {"tasks": ["free"]},
            "strategy": {"name": "random"}, "stop": {"evaluations": 1},
        }
    )  # fmt: skip
    folder = work / name
    shutil.rmtree(folder, ignore_errors=True)
    with Search(config, folder, evaluator=FreeEvaluator()) as run:
        run.run()
    with Ledger(folder / LEDGER_NAME, exclusive=True) as ledger:
        ledger.set_stopped(None)
        ledger.set_config(config.model_copy(update={"stop": config.stop.model_copy(update={"evaluations": 20_000})}))
    return folder


def grow(folder: Path, individuals: int) -> None:
    """Add so many, a generation at a time."""
    random = np.random.default_rng(0)
    with Ledger(folder / LEDGER_NAME, exclusive=True) as ledger:
        there = ledger.records()
        genomes = ledger.genomes(record.id for record in there)
        facts = next(dict(record.scores["search"].facts) for record in there if "search" in record.scores)
        last = max(record.generation for record in there)
        parents = [record.id for record in there if record.generation == last and record.id in genomes]
        parents = parents if len(parents) > 1 else [record.id for record in there if record.role == "founder"]
        for start in range(0, individuals, BATCH):
            last += 1
            born, scores = list[Record](), dict[str, Summary]()
            for number in range(min(BATCH, individuals - start)):
                one, other = random.choice(parents, 2, replace=False)
                id, value = f"{last}-{number + 1}", float(0.4 + 0.2 * random.random() + last / 2000)
                blend = (genomes[one].coefficients + genomes[other].coefficients) / 2
                genomes[id] = Genome(blend + 0.05 * random.standard_normal(blend.shape))
                born.append(
                    Record(
                        id, last, "offspring", (str(one), str(other)), RECIPE, f"made-{id}", batch=last,
                        kinship=float(random.random()),
                    )
                )  # fmt: skip
                task = {name: dict(told) | {"value": value} for name, told in facts["tasks"].items()}
                scores[id] = Summary(value, 0.02, True, facts | {"value": value, "tasks": task})
            ledger.add(born, {record.id: genomes[record.id] for record in born})
            ledger.record_scores("search", scores)
            ledger.note("generation", {"generation": last, "offspring": len(born)}, float(last))
            parents = sorted(scores, key=lambda id: -scores[id].value)[:10]
            for id in parents:  # of whom alone the export compares documents
                ledger.record_results(id, "search", {"free": dict.fromkeys(range(DOCUMENTS), scores[id].value)})
            genomes = {id: genomes[id] for id in parents}


class Wire:
    """Bytes that came over it, by address: as they are, and as they were sent."""

    def __init__(self, page: Page) -> None:
        self._session = page.context.new_cdp_session(page)
        self._session.send("Network.enable")
        self._session.send("Performance.enable")
        self._names: dict[str, str] = {}
        self.raw: dict[str, int] = {}
        self.sent: dict[str, int] = {}
        self._session.on("Network.responseReceived", self._name)
        self._session.on("Network.dataReceived", lambda it: self._count(self.raw, it, "dataLength"))
        self._session.on("Network.loadingFinished", lambda it: self._count(self.sent, it, "encodedDataLength"))

    def _name(self, it: dict[str, Any]) -> None:
        self._names[it["requestId"]] = it["response"]["url"]

    def _count(self, where: dict[str, int], told: dict[str, Any], what: str) -> None:
        name = self._names.get(told["requestId"], "?")
        where[name] = where.get(name, 0) + int(told[what])

    def heap(self) -> float:
        """MB that the page's scripts hold."""
        self._session.send("HeapProfiler.collectGarbage")
        metrics = self._session.send("Performance.getMetrics")["metrics"]
        return next(metric["value"] for metric in metrics if metric["name"] == "JSHeapUsedSize") / 1e6


def told(wire: Wire, label: str) -> None:
    def count(of: dict[str, int], libraries: bool) -> float:
        return sum(size for name, size in of.items() if ("/vendor/" in name) == libraries) / 1e3

    own, libraries = (f"{count(wire.sent, of):.0f} kB sent ({count(wire.raw, of):.0f} kB)" for of in (False, True))
    print(f"  {label}: {own}, libraries {libraries}")


def memory(pid: int) -> tuple[float, float]:
    """MB of a process: now, and at most so far."""
    text = Path(f"/proc/{pid}/status").read_text()
    return tuple(int(re.search(rf"{name}:\s+(\d+)", text)[1]) / 1e3 for name in ("VmRSS", "VmHWM"))  # type: ignore[return-value, index]


def visit(page: Page, address: str, wanted: list[tuple[str, str]]) -> Wire:
    """Open a page, and say when each of what is wanted was there."""
    wire, started = Wire(page), time.perf_counter()
    print(address)
    page.goto(address, wait_until="commit")
    for selector, label in wanted:
        page.wait_for_selector(selector, timeout=120_000)
        print(f"  {label} after {time.perf_counter() - started:.2f} s")
        told(wire, "by then")
    return wire


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--individuals", type=int, default=10_000)
    parser.add_argument("--tree", type=int, default=500)
    parser.add_argument("--keep", action="store_true", help="measure on the runs that are there already")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    if not arguments.keep:
        for name, count in (("large", arguments.individuals), ("tree", arguments.tree - FOUNDERS - 2)):
            started = time.perf_counter()
            grow(found(arguments.work, name), count)
            print(f"{name}: written in {time.perf_counter() - started:.1f} s")
    command = [sys.executable, "-m", "service.cli", "serve", str(arguments.work), "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        address = server.stdout.readline().split(" at ")[-1].strip()
        measure(address, arguments.work, server.pid)
    finally:
        server.terminate()
        server.wait()


def measure(address: str, work: Path, server: int) -> None:
    print(f"server, nothing asked yet: {memory(server)[0]:.0f} MB")
    with sync_playwright() as play:
        program = shutil.which("chromium") or shutil.which("chromium-browser")
        browser = play.chromium.launch(executable_path=program, args=["--no-sandbox"])

        def fresh() -> Page:
            return browser.new_context(viewport={"width": 1600, "height": 900}).new_page()

        large = [("#best:not(:empty)", "figures"), ("#curve .main-svg", "curve"), (".tabulator-row", "population")]
        for attempt in ("first", "again, nothing kept"):
            print(attempt)
            page = fresh()
            wire = visit(page, f"{address}/runs/large", large)
            page.wait_for_timeout(3000)
            told(wire, "in all")
            print(f"  page: {wire.heap():.0f} MB of scripts; server: {memory(server)}")
        steady(page, work / "large", wire)
        page.close()
        visit(fresh(), address, [("table a", "runs")])
        wire = visit(fresh(), f"{address}/trees?run=tree", [("#legend b", "tree")])
        print(f"  page: {wire.heap():.0f} MB of scripts; server: {memory(server)}")
        browser.close()


def steady(page: Page, folder: Path, wire: Wire) -> None:
    """Whether who reads stays there while individuals come."""
    holder = "document.querySelector('.tabulator-tableholder')"
    page.evaluate(f"window.scrollTo(0, {holder}.getBoundingClientRect().top - 100); {holder}.scrollTop = 40000")
    page.wait_for_timeout(500)
    place = f"""() => {{
      const edge = {holder}.getBoundingClientRect().top, rows = [...document.querySelectorAll('.tabulator-row')];
      const first = rows.find((row) => row.getBoundingClientRect().bottom > edge + 5);
      return [window.scrollY, first.querySelector('a').textContent, first.getBoundingClientRect().top - edge];
    }}"""
    before, wire.sent, wire.raw = page.evaluate(place), {}, {}
    for _ in range(3):
        count = page.text_content("#counted")
        started = time.perf_counter()
        grow(folder, BATCH)
        while page.text_content("#counted") == count and time.perf_counter() < started + 60:
            page.wait_for_timeout(50)
        print(f"  {BATCH} more are in the table after {time.perf_counter() - started:.2f} s, their writing among them")
    page.wait_for_timeout(2000)
    told(wire, f"{3 * BATCH} more")
    after = page.evaluate(place)
    print(f"  scroll of the page, upper row, its place: {json.dumps(before)} before, {json.dumps(after)} after")


if __name__ == "__main__":
    main()
