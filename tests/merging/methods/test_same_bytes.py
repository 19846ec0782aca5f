"""Methods made of torch's products and decompositions: the same bytes whatever threads there are, and every time."""

from pathlib import Path

import pytest
import torch

from merging.merge import write_merge
from merging.recipe.schema import parse_recipe
from tests.conftest import MakeModel

SHAPES = {f"layers.{layer}.w": (160, 240) for layer in range(3)}


@pytest.mark.parametrize("method", ["iso_c", "knots_ties", "pcb", "tsv", "wudi"])
def test_threads_do_not_show(
    method: str, make_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither those that tensors are shared out to nor those that torch was told to use in each."""
    base = make_model("base", shapes=SHAPES)
    models = [make_model(name, seed, base, shapes=SHAPES) for seed, name in enumerate("abc", 1)]
    recipe = {"merge_method": method, "base_model": str(base), "models": [{"model": str(one)} for one in models]}
    before, made = torch.get_num_threads(), set()
    for workers, inner in (("1", 1), ("3", 2), ("1", 4)):
        monkeypatch.setenv("KINSHIP_THREADS", workers)
        torch.set_num_threads(inner)
        try:
            folder = write_merge(parse_recipe(recipe), tmp_path / f"out-{workers}-{inner}")
        finally:
            torch.set_num_threads(before)
        made.add((folder / "model.safetensors").read_bytes())
    assert len(made) == 1
    assert made != {(base / "model.safetensors").read_bytes()}
