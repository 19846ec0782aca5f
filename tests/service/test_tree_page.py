"""The page of a family tree: whole in itself, and drawn by a real browser where there is one."""

import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path

import networkx as nx
import pytest

from kinship.family_tree.graph import add_descent, add_member, placed
from kinship.family_tree.licences import findings
from service.tree_page import tree_page

STATIC = Path(__file__).parents[2] / "service/static"


@pytest.fixture
def tree() -> "nx.DiGraph[str]":
    found: nx.DiGraph[str] = nx.DiGraph()
    add_member(found, "org/base", given=True, licence="cc-by-nc-4.0", score=0.25)
    add_descent(found, "org/base", "org/a</script><b>", "finetune", "weights", confidence=0.75, evidence={"rank": 4})
    add_descent(found, "org/base", "org/c", "merge", "lineage.json", kinship=0.5)
    add_member(found, "org/c", given=True, licence="mit", score=0.75, recipe="merge_method: linear\n")
    return placed(found)


def test_the_page_needs_nothing_else(tree: "nx.DiGraph[str]") -> None:
    page = tree_page(tree, "A <family>", findings(tree))
    assert not re.findall(r'(?:src|href)="(?!#)', page)
    assert "A &lt;family&gt;" in page
    assert page.count("</script>") == 4  # none of them from the data
    (data,) = re.findall(r'id="data">(.*?)</script>', page, re.DOTALL)
    content = json.loads(data)
    assert [node["id"] for node in content["nodes"]] == list(tree)
    assert [node["best"] for node in content["nodes"]] == [False, False, True]
    assert [edge["text"] for edge in content["edges"]] == ["finetune 0.75", "merge 0.50"]
    assert any("its ancestors are under cc-by-nc-4.0" in finding["text"] for finding in content["findings"])


def test_what_was_vendored_is_what_was_published() -> None:
    for line in (STATIC / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split()
        assert hashlib.sha256((STATIC / name).read_bytes()).hexdigest() == digest
        assert name in (STATIC / "LICENSES.txt").read_text()


def test_a_browser_draws_it(tree: "nx.DiGraph[str]", tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("no Chromium here")
    # What the page has drawn goes into its title, which is dumped with the rest of the document.
    probe = "<script>document.title = familyTree.nodes().map(n => [n.id(), n.data('colour')]).join(' ')</script>"
    page = tmp_path / "tree.html"
    page.write_text(tree_page(tree, "A family", findings(tree)).replace("</body>", probe + "</body>"))
    result = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/profile", "--dump-dom",
         "--virtual-time-budget=10000", page.as_uri()],
        capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    (title,) = re.findall("<title>(.*?)</title>", result.stdout)
    # Lowest and best score have the ends of the scale; who has none is grey.
    assert title == "org/base,#00224e org/a&lt;/script&gt;&lt;b&gt;,#e8e8e8 org/c,#fee838"
    assert "0.2500" in result.stdout
    assert "1 found" not in result.stdout
