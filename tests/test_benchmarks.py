"""Benchmarks are not run with every change; what they import is there, and each can be asked for help."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BENCHMARKS = sorted((ROOT / "benchmarks").glob("*.py"))
OURS = ("kinship", "merging", "evaluators", "search", "service", "tests", *(script.stem for script in BENCHMARKS))

# All in one fresh interpreter, as most import torch, and some set variables that other tests are not to see.
HELP = """
import contextlib, io, json, runpy, sys
scripts, pages = sys.argv[2:], {}
sys.path.insert(0, sys.argv[1])
for script in scripts:
    sys.argv = [script, "--help"]
    with contextlib.redirect_stdout(io.StringIO()) as page:
        try:
            runpy.run_path(script, run_name="__main__")
        except SystemExit as end:
            assert not end.code, (script, end.code)
    pages[script] = page.getvalue()
json.dump(pages, sys.stdout)
"""


def file_of(module: str) -> Path | None:
    for place in (ROOT, ROOT / "benchmarks"):
        path = place.joinpath(*module.split("."))
        for file in (path.with_suffix(".py"), path / "__init__.py"):
            if file.is_file():
                return file
    return None


def names_of(file: Path) -> set[str]:
    """What a module defines or imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.alias):
            found.add(node.asname or node.name)
    return found


def missing(source: str) -> Iterator[str]:
    """Modules and names of ours that ``source`` imports and that are not there."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.ImportFrom) or not node.module or node.module.split(".")[0] not in OURS:
            continue
        file = file_of(node.module)
        known = names_of(file) if file else set()
        for alias in node.names:
            if alias.name not in known and not file_of(f"{node.module}.{alias.name}"):
                yield f"{node.module}.{alias.name}"


@pytest.mark.parametrize("script", BENCHMARKS, ids=lambda script: script.name)
def test_what_a_benchmark_imports_is_there(script: Path) -> None:
    assert not list(missing(script.read_text()))


def test_what_is_missing_is_seen() -> None:
    assert list(missing("from kinship import kinship_matrix, nobody")) == ["kinship.nobody"]
    assert list(missing("def f():\n    from kinship.nowhere import x")) == ["kinship.nowhere.x"]
    assert not list(missing("from common import run\nfrom kinship.measures import gram"))


@pytest.mark.soak
def test_every_benchmark_tells_its_options() -> None:
    words = [sys.executable, "-c", HELP, ROOT / "benchmarks", *BENCHMARKS]
    result = subprocess.run(words, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    pages = json.loads(result.stdout)
    assert len(pages) == len(BENCHMARKS)
    for script, page in pages.items():
        has_options = "parse_args" in Path(script).read_text()  # the others are imported by those that have
        assert page.startswith("usage:") == has_options, script
