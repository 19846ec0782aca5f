"""Methods of other packages, by entry point."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from kinship.errors import InvalidConfig
from merging import registry
from merging.catalogue import catalogue, own
from merging.merge import run_merge
from merging.recipe.schema import parse_recipe
from merging.registry import ENTRY_POINTS, get_method, methods
from tests.conftest import MakeModel

MERGING = Path(__file__).parents[2] / "docs/merging.md"
Install = Callable[[str], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Put a package of one module on the path, with metadata as an installer writes it; it is gone after the test."""
    monkeypatch.setattr(registry, "_METHODS", methods())
    monkeypatch.delitem(sys.modules, "their_methods", raising=False)

    def install(code: str) -> None:
        site = tmp_path / "site"
        info = site / "their_package-1.0.dist-info"
        info.mkdir(parents=True)
        (site / "their_methods.py").write_text(code)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{ENTRY_POINTS}]\nmedian = their_methods\n")
        monkeypatch.syspath_prepend(site)

    return install


def example() -> str:
    """The method that docs/merging.md writes."""
    return next(
        block.split("```")[0] for block in MERGING.read_text().split("```python\n") if "@tensor_method" in block
    )


def test_method_of_another_package_merges(install: Install, make_model: MakeModel, tmp_path: Path) -> None:
    assert "median" not in methods()
    install(example())
    assert f'"{ENTRY_POINTS}"' in MERGING.read_text()
    base = make_model("base")
    models = [make_model(name, seed, base) for seed, name in enumerate("abc", 1)]
    recipe = {"merge_method": "median", "base_model": str(base), "models": [{"model": str(one)} for one in models]}
    merged = load_file(run_merge(parse_recipe(recipe), tmp_path / "out") / "model.safetensors")
    parents = [load_file(one / "model.safetensors") for one in models]
    for name, tensor in merged.items():
        want = torch.stack([parent[name] for parent in parents]).double().median(dim=0).values
        torch.testing.assert_close(tensor.double(), want, atol=1e-6, rtol=0)


def test_method_of_another_package_is_listed_but_not_in_our_documentation(install: Install) -> None:
    install(example())
    [found] = [entry for entry in catalogue() if entry.name == "median"]
    assert (found.module, found.summary) == ("their_methods", "Median of the task vectors, element by element.")
    assert "median" not in {entry.name for entry in own()}


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import no_such_module_at_all", "no_such_module_at_all"),
        ("def (:", "SyntaxError"),
        ("raise RuntimeError", "no reason given"),
        (example().replace('"median"', '"ties"'), "two merge methods called 'ties'"),
    ],
)
def test_package_that_cannot_be_loaded_is_named(install: Install, code: str, reason: str) -> None:
    install(code)
    with pytest.raises(InvalidConfig) as refusal:
        methods()
    assert "'their-package'" in refusal.value.message
    assert "their_methods" in refusal.value.message
    assert reason in refusal.value.message
    assert "their-package" in refusal.value.hint


def test_our_own_methods_need_no_other_package(install: Install) -> None:
    install("raise RuntimeError")
    assert get_method("ties").name == "ties"
