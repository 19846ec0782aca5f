"""How methods are registered and found: what their kernels take, and those of other packages, by entry point."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import merging
from kinship.errors import InvalidConfig
from merging import registry
from merging.catalogue import catalogue, own
from merging.merge import write_merge
from merging.methods import SHARED_FILES
from merging.recipe.schema import parse_recipe
from merging.registry import ENTRY_POINTS, Combination, MergeMethod, Parameter, get_method, methods
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
    merged = load_file(write_merge(parse_recipe(recipe), tmp_path / "out") / "model.safetensors")
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
        (example().replace("*, lambda_: float = 1.0", "**factor: float"), "takes (**factor) beside its tensors"),
        (example().replace("lambda_: float = 1.0", "lambda_: float = 2.0"), "has 2.0 for 'lambda_'"),
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


def of_weights(weight: list[float], lambda_: float = 1.0) -> Combination:
    return Combination.of_vectors([lambda_ * one for one in weight], has_base=True)


def of_products(products: object, weight: list[float], lambda_: float) -> Combination:
    return of_weights(weight, lambda_)


def told(vectors: object, *, weight: list[float], lambda_: float, has_base: bool, generator: object) -> object:
    return vectors


def anything(vectors: object, **values: object) -> object:
    return vectors


WEIGHT, LAMBDA = Parameter("weight", "", per_model=True), Parameter("lambda", "", default=1.0)


@pytest.mark.parametrize(
    ("traits", "said"),
    [
        ({"combine": of_weights}, None),
        ({"combine": of_products, "needs_products": True}, None),
        ({"merge": told, "base": "optional", "random": True}, None),
        ({"combine": of_weights, "parameters": (WEIGHT,)}, "takes (lambda_, weight) beside its tensors; (weight) was"),
        ({"combine": of_weights, "parameters": (WEIGHT, LAMBDA, Parameter("t", ""))}, "; (lambda_, t, weight) was"),
        ({"combine": of_weights, "needs_products": True}, "takes (lambda_)"),
        ({"combine": of_products}, "takes (lambda_, products, weight)"),
        ({"combine": of_weights, "base": "optional"}, "; (has_base, lambda_, weight) was"),
        ({"merge": told, "base": "optional"}, "takes (generator, "),
        ({"merge": told, "random": True}, "takes (generator, has_base"),
        ({"merge": anything}, "takes (**values)"),
        (
            {"combine": of_weights, "parameters": (WEIGHT, Parameter("lambda", "", default=0.5))},
            "has 1.0 for 'lambda_'",
        ),
        ({"combine": of_weights, "base": "no"}, "none, optional, needed, merged"),
    ],
)
def test_a_kernel_takes_what_its_method_declares(traits: dict[str, Any], said: str | None) -> None:
    wanted = {"parameters": (WEIGHT, LAMBDA)} | traits
    if said is None:
        assert MergeMethod("mine", **wanted).in_span({}) == ("combine" in traits)
        return
    with pytest.raises(TypeError, match=re.escape(said)):
        MergeMethod("mine", **wanted)


def test_a_value_of_no_parameter_is_refused() -> None:
    method = MergeMethod("mine", (WEIGHT, LAMBDA), combine=of_weights, base="needed")
    assert method.coefficients(None, {"weight": [1.0], "lambda": 0.5}, has_base=True) == Combination(0.5, (0.5,))
    with pytest.raises(KeyError, match="'lamda'"):
        method.coefficients(None, {"weight": [1.0], "lamda": 0.5}, has_base=True)


def module_of(method: MergeMethod) -> str:
    kernel = method.combine or method.merge
    return kernel.__module__ if kernel is not None else method.module


def test_files_that_methods_share_are_said() -> None:
    modules = {name: module_of(method) for name, method in methods().items()}
    files = {name: module.rpartition(".")[2] for name, module in modules.items() if "merging.methods." in module}
    assert {name: file for name, file in files.items() if file != name} == SHARED_FILES


def test_one_method_is_found_without_the_others_and_the_registry_is_light() -> None:
    """In a process of its own: the registry imports no kernel, and one method no other's file."""
    program = (
        "import sys, merging, merging.registry\n"
        "assert not {'torch', 'numba', 'pydantic', 'scipy', 'kinship.measures'} & sys.modules.keys()\n"
        "assert merging.get_method('dare_ties').random\n"
        "assert merging.get_method('slerp').base == 'merged'\n"
        "files = {name.rpartition('.')[2] for name in sys.modules if name.startswith('merging.methods.')}\n"
        "assert files == {'sparse', 'slerp'}, files\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_public_names_are_there() -> None:
    assert all(getattr(merging, name).__name__ == name for name in merging.__all__)
