"""The house rules that a reader can rely on, enforced."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = ["kinship", "merging", "evaluators", "search", "service"]
# pydantic is not among them: typer itself imports it.
HEAVY = {"torch", "numpy", "scipy", "transformers", "lm_eval", "sqlalchemy", "matplotlib", "plotly", "yaml", "rich"}
# What may print, or serve those who print.
SPEAKING = {"rich", "typer", "service.console", "service.commands", "service.app", "service.cli", "service.guard"}

FILES = {
    ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file
    for layer in LAYERS
    for file in sorted((ROOT / layer).rglob("*.py"))
}

HELP = """
import contextlib, io, json, sys
import service.cli
from typer.main import get_command

def helps(command, words):
    sys.argv = ["kinship", *words, "--help"]
    code, text = None, io.StringIO()
    with contextlib.redirect_stdout(text):
        try:
            service.cli.main()
        except SystemExit as end:
            code = end.code
    yield " ".join(sys.argv[:-1]), code, text.getvalue()
    for name, inner in getattr(command, "commands", {}).items():
        yield from helps(inner, [*words, name])

pages = list(helps(get_command(service.cli.app), []))
json.dump({"pages": pages, "loaded": sorted(sys.modules)}, sys.stdout)
"""


def imports(nodes: Iterable[ast.AST], *, deferred: bool = True) -> Iterator[str]:
    """Names of modules imported; without ``deferred`` only what importing the module itself imports."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if name in FILES else node.module
        elif deferred or not _is_deferred(node):
            yield from imports(ast.iter_child_nodes(node), deferred=deferred)


def _is_deferred(node: ast.AST) -> bool:
    if isinstance(node, ast.If):
        return "TYPE_CHECKING" in ast.unparse(node.test)
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)


def imported_by(name: str, **options: bool) -> set[str]:
    return set(imports(ast.parse(FILES[name].read_text()).body, **options))


def within(package: str) -> list[str]:
    found = [name for name in FILES if name == package or name.startswith(f"{package}.")]
    assert found
    return found


def is_of(name: str, packages: Iterable[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


@pytest.mark.parametrize("layer", LAYERS)
def test_imports_run_one_way(layer: str) -> None:
    above = LAYERS[LAYERS.index(layer) + 1 :]
    for name in within(layer):
        wrong = [found for found in imported_by(name) if is_of(found, above)]
        assert not wrong, f"{name} imports {wrong}, which are above {layer}"


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {name: imported_by(name) & FILES.keys() for name in FILES}
    assert sum(map(len, graph.values())) > len(FILES)
    list(TopologicalSorter(graph).static_order())  # raises CycleError, which names them


# Not merging: offspring, execution, planning and output lean on each other, module by module one way.
@pytest.mark.parametrize("layer", ["kinship", "evaluators", "search", "service"])
def test_rooms_lean_on_each_other_one_way(layer: str) -> None:
    rooms: dict[str, set[str]] = {}
    for name in within(layer):
        inside = [found for found in imported_by(name, deferred=False) if found.startswith(f"{layer}.")]
        if name != layer:
            room = name.split(".")[1]
            rooms.setdefault(room, set()).update({found.split(".")[1] for found in inside} - {room})
    assert any(rooms.values())
    list(TopologicalSorter(rooms).static_order())


def test_kernels_know_no_method() -> None:
    for name in within("merging.kernels"):
        wrong = [found for found in imported_by(name) if is_of(found, ["merging.methods", "merging.recipe"])]
        assert not wrong, f"{name} imports {wrong}"


def test_answers_do_not_print() -> None:
    for name in within("service.answers"):
        wrong = [found for found in imported_by(name) if is_of(found, SPEAKING)]
        assert not wrong, f"{name} imports {wrong}"
        calls = [node for node in ast.walk(ast.parse(FILES[name].read_text())) if isinstance(node, ast.Call)]
        assert not [call for call in calls if ast.unparse(call.func) in ("print", "sys.stdout.write")], name


@pytest.mark.parametrize("layer", LAYERS)
def test_no_module_outgrows_its_concept(layer: str) -> None:
    for name in within(layer):
        assert len(FILES[name].read_text().splitlines()) <= 400, f"{name} is over 400 lines: split it"


@pytest.fixture(scope="module")
def help_pages() -> dict[str, Any]:
    """The help of every command there is, and the modules loaded once all have been shown, in a fresh interpreter."""
    result = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True, check=False, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_every_command_has_help(help_pages: dict[str, Any]) -> None:
    commands = [command for command, *_ in help_pages["pages"]]
    assert {"kinship", "kinship matrix", "kinship runs", "kinship runs compare"} <= set(commands)
    for command, code, text in help_pages["pages"]:
        assert not code, command
        assert f"Usage: {command}" in text


def test_help_imports_nothing_heavy(help_pages: dict[str, Any]) -> None:
    assert "service.cli" in help_pages["loaded"]
    assert not HEAVY & set(help_pages["loaded"])


def test_every_package_is_typed() -> None:
    for layer in LAYERS:
        assert (ROOT / layer / "py.typed").exists()


def test_code_of_a_model_is_refused_wherever_transformers_could_run_it() -> None:
    """Where ``trust_remote_code`` is unset, transformers asks on the terminal."""
    asked = []
    for module, file in FILES.items():
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            # `GenerationConfig` and the like run none; a partial is a call as well.
            called = [node.func, *node.args[:1]] if isinstance(node, ast.Call) else []
            names = {part.attr for part in called if isinstance(part, ast.Attribute)}
            if names & {"from_pretrained", "from_config", "load_dataset", "pipeline"}:
                given = {key.arg: ast.unparse(key.value) for key in node.keywords}  # type: ignore[attr-defined]
                asked.append((module, given.get("trust_remote_code")))
    assert len(asked) >= 8
    assert {module for module, trusted in asked if trusted != "False"} == set()
