"""Adapters in a heritage: what base they name, and what their factors tell without any."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from kinship.errors import UnsupportedCheckpoint
from kinship.heritage import recover
from kinship.measures.comparison import compare
from tests.kinship.adapters import Tensors, write

MODULES = [f"model.layers.{layer}.mlp.{name}_proj" for layer in range(3) for name in ("up", "gate")]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    generator = torch.Generator().manual_seed(0)
    (tmp_path / "base-7b").mkdir()
    weights = {f"{module}.weight": torch.randn(48, 32, generator=generator) for module in MODULES}
    save_file(weights, tmp_path / "base-7b" / "model.safetensors")
    return tmp_path / "base-7b"


def adapter(seed: int, start: Tensors | None = None) -> Tensors:
    """Factors of rank 4; with ``start`` trained on from those."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for module in MODULES:
        for side, shape in (("A", (4, 32)), ("B", (48, 4))):
            key = f"base_model.model.{module}.lora_{side}.weight"
            fresh = torch.randn(shape, generator=generator)
            found[key] = fresh if start is None else start[key] + 0.2 * fresh
    return found


@pytest.mark.parametrize(("named", "noted"), [("org/Base-7B", False), ("org/other-7b", True), (None, False)])
def test_an_adapter_that_names_another_base_gets_a_note(
    tmp_path: Path, base: Path, named: str | None, noted: bool
) -> None:
    one = write(tmp_path / "one", adapter(1), **({"base_model_name_or_path": named} if named else {}))
    for notes in (recover([f"{base}+{one}"], base).notes, compare([f"{base}+{one}"], base).notes):
        assert bool([note for note in notes if "org/other-7b" in note and str(base) in note]) is noted


def test_adapters_are_compared_by_their_factors_where_no_base_is_at_hand(tmp_path: Path) -> None:
    first = adapter(1)
    paths = [
        write(tmp_path / name, tensors)
        for name, tensors in (("first", first), ("next", adapter(2, first)), ("stranger", adapter(3)))
    ]
    heritage = recover(paths)
    family = {Path(node.id).name: node.family for node in heritage.nodes}
    assert family["first"] == family["next"] != family["stranger"]
    assert [note for note in heritage.notes if "changes alone" in note]


def test_what_needs_the_base_says_so(tmp_path: Path) -> None:
    plain = write(tmp_path / "plain", adapter(1))
    start = write(tmp_path / "start", adapter(2), init_lora_weights="pissa")
    with pytest.raises(UnsupportedCheckpoint, match="without its base") as raised:
        recover([plain, start])
    assert str(start) in (raised.value.hint or "")
