"""The page of a family tree: whole in itself, and drawn by a real browser where there is one."""

import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path

import networkx as nx
import numpy as np
import pytest

from kinship.trees.graph import add_descent, add_member, placed
from service.answers.tree import FamilyTree
from service.pages.tree import tree_page

STATIC = Path(__file__).parents[3] / "service/static/vendor"


@pytest.fixture
def tree() -> "nx.DiGraph[str]":
    found: nx.DiGraph[str] = nx.DiGraph()
    add_member(found, "org/base", given=True, licence="cc-by-nc-4.0", score=0.25)
    add_descent(found, "org/base", "org/a</script><b>", "finetune", "weights", confidence=0.75, evidence={"rank": 4})
    add_descent(found, "org/base", "org/c", "merge", "lineage.json", kinship=0.5)
    add_member(found, "org/c", given=True, licence="mit", score=0.75, recipe="merge_method: linear\n")
    return placed(found)


def test_the_page_needs_nothing_else(tree: "nx.DiGraph[str]") -> None:
    page = tree_page(FamilyTree.of(tree), "A <family>")
    assert not re.findall(r'(?:src|href)="(?!#)', page)
    assert "A &lt;family&gt;" in page
    assert page.count("</script>") == 4  # none of them from the data
    (data,) = re.findall(r'id="data">(.*?)</script>', page, re.DOTALL)
    content = json.loads(data)
    assert [node["id"] for node in content["nodes"]] == list(tree)
    assert [node["best"] for node in content["nodes"]] == [False, False, True]
    assert [edge["text"] for edge in content["edges"]] == ["finetune, confidence 0.75", "merge, kinship 0.50"]
    assert any("its ancestors are under cc-by-nc-4.0" in finding["text"] for finding in content["findings"])


def test_what_was_vendored_is_what_was_published() -> None:
    for line in (STATIC / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split()
        assert hashlib.sha256((STATIC / name).read_bytes()).hexdigest() == digest
        assert name in (STATIC / "LICENSES.txt").read_text()


def drawn(page: str, says: str, folder: Path) -> tuple[str, str]:
    """What the expression ``says`` gives once a browser has drawn ``page``, and the document then."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("no Chromium here")
    # It goes into the title, which is dumped with the rest of the document.
    file = folder / "tree.html"
    file.write_text(page.replace("</body>", f"<script>document.title = {says}</script></body>"))
    result = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}/profile", "--dump-dom",
         "--window-size=1400,900", "--virtual-time-budget=10000", file.as_uri()],
        capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    (title,) = re.findall("<title>(.*?)</title>", result.stdout)
    return title, result.stdout


def test_in_a_large_tree_roots_are_named_and_strangers_stand_below(tmp_path: Path) -> None:
    tree: nx.DiGraph[str] = nx.DiGraph()
    for family in "ab":
        for child in range(40):
            add_descent(tree, f"{family}", f"{family}{child}", "finetune", "weights", confidence=0.9)
            add_member(tree, f"{family}{child}", family=f"family {family}")
        add_member(tree, family, family=f"family {family}")
    for stranger in range(12):
        add_member(tree, f"stranger{stranger}", given=True, family=f"family {stranger}")
    says = (
        "JSON.stringify({heads: familyTree.nodes('[?head]').map(n => n.id()),"
        " low: Math.min(...familyTree.nodes().filter(n => n.degree() == 0).map(n => n.position('y'))),"
        " kin: Math.max(...familyTree.nodes().filter(n => n.degree() > 0).map(n => n.position('y'))),"
        " shades: [...new Set(familyTree.nodes().filter(n => n.degree() == 0).map(n => n.data('colour')))].length,"
        " wide: document.documentElement.scrollWidth > document.documentElement.clientWidth})"
    )
    told, document = drawn(tree_page(FamilyTree.of(placed(tree)), "Two families"), says, tmp_path)
    found = json.loads(told.replace("&quot;", '"'))
    assert found["heads"] == ["a", "b"]
    assert found["low"] > found["kin"]
    assert found["shades"] == 1  # families of one model share a colour
    assert not found["wide"]
    assert "12 others" in document


def test_a_browser_draws_it(tree: "nx.DiGraph[str]", tmp_path: Path) -> None:
    says = "familyTree.nodes().map(n => [n.id(), n.data('colour')]).join(' ')"
    title, document = drawn(tree_page(FamilyTree.of(tree), "A family"), says, tmp_path)
    # Lowest and best score have the ends of the scale; who has none is grey.
    assert title == "org/base,#00224e org/a&lt;/script&gt;&lt;b&gt;,#e8e8e8 org/c,#fee838"
    assert "0.2500" in document
    assert "1 found" not in document


@pytest.mark.parametrize(
    ("count", "least"),
    [(27, 27), (60, 30), pytest.param(100, 40, marks=pytest.mark.soak), pytest.param(300, 40, marks=pytest.mark.soak)],
)
def test_names_can_be_read_and_do_not_overlap(count: int, least: int, tmp_path: Path) -> None:
    tree: nx.DiGraph[str] = nx.DiGraph()
    for child in range(1, count):
        parent = f"organisation-name/Model-Name-7B-Instruct-v0.{child // 6}-merge"
        id = f"organisation-name/Model-Name-7B-Instruct-v0.{child}-merge"
        add_descent(tree, parent, id, "lora" if child % 3 else "finetune", "weights", confidence=0.9)
        add_member(tree, id, given=True)
    says = (
        "JSON.stringify(familyTree.nodes().map(n => { const box = n.renderedBoundingBox({includeNodes: false}),"
        " size = parseFloat(n.style('font-size')) * familyTree.zoom();"
        " return [n.data('label'), size, box.x1, box.y1, box.x2, box.y2]; }))"
    )
    told, document = drawn(tree_page(FamilyTree.of(placed(tree)), "A family"), says, tmp_path)
    found = [row for row in json.loads(told.replace("&quot;", '"')) if row[0]]
    assert len(found) >= least
    assert len({name for name, *_ in found}) == len(found)  # what is left of a name is still its own
    assert {round(size) for _, size, *_ in found} == {12}  # pixels
    boxes = np.array([row[2:] for row in found])
    deep = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:]) - np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    overlap = deep.min(axis=2)
    np.fill_diagonal(overlap, -1)
    assert overlap.max() < 4  # pixels; the background of a name is a little larger than it
    assert len(re.findall('stroke-dasharray="[^"]+"', document)) >= 1  # kinds differ by dash
