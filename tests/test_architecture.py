"""The house rules that a reader can rely on, enforced."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = ["kinship", "merging", "evaluators", "search", "service"]
# pydantic is not among them: typer itself imports it.
HEAVY = {"torch", "numpy", "scipy", "transformers", "lm_eval", "sqlalchemy", "matplotlib", "plotly", "yaml", "rich"}
HELP = [
    [],
    ["demo"],
    ["matrix"],
    ["advise"],
    ["tree"],
    ["merge"],
    ["methods"],
    ["verify"],
    ["score"],
    ["evolve"],
    ["runs"],
    ["runs", "list"],
    ["runs", "show"],
    ["runs", "export"],
    ["runs", "import"],
    ["runs", "verify"],
    ["runs", "compare"],
    ["cache"],
    ["cache", "list"],
    ["cache", "size"],
    ["cache", "prune"],
    ["cache", "verify"],
    ["index"],
    ["index", "add"],
    ["index", "query"],
    ["index", "list"],
    ["index", "remove"],
]


def imported_packages(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("layer", LAYERS)
def test_imports_run_one_way(layer: str) -> None:
    above = set(LAYERS[LAYERS.index(layer) + 1 :])
    files = sorted((ROOT / layer).rglob("*.py"))
    assert files
    for file in files:
        assert not imported_packages(file) & above, f"{file} imports from a layer above {layer}"


@pytest.mark.parametrize("layer", LAYERS)
def test_no_module_outgrows_its_concept(layer: str) -> None:
    for file in (ROOT / layer).rglob("*.py"):
        assert len(file.read_text().splitlines()) <= 400, f"{file} is over 400 lines: split it"


@pytest.mark.parametrize("command", HELP, ids=lambda command: " ".join(command) or "kinship")
def test_help_imports_nothing_heavy(command: list[str]) -> None:
    program = (
        "import sys, service.cli\n"
        f"sys.argv = ['kinship', *{command!r}, '--help']\n"
        "try:\n    service.cli.main()\n"
        "except SystemExit as end:\n    assert not end.code, end.code\n"
        f"loaded = [name for name in {sorted(HEAVY)!r} if name in sys.modules]\n"
        "assert not loaded, loaded\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "Usage" in result.stdout


def test_every_command_has_its_help_checked() -> None:
    from service.cli import app

    commands = [[command.name or command.callback.__name__] for command in app.registered_commands]
    for group in app.registered_groups:
        commands.append([group.name])
        commands += [[group.name, command.name] for command in group.typer_instance.registered_commands]
    assert sorted(commands) == sorted(HELP[1:])


def test_every_package_is_typed() -> None:
    for layer in LAYERS:
        assert (ROOT / layer / "py.typed").exists()
