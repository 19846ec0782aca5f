from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from kinship.checkpoints.checkpoint import Checkpoint
from kinship.checkpoints.opening import open_checkpoint
from kinship.errors import MismatchedModels
from kinship.measures.alignment import align, require_same_tensors

Tensors = dict[str, torch.Tensor]

COMMON: Tensors = {"embed": torch.zeros(5, 4), "layer": torch.zeros(4, 4), "norm": torch.zeros(4)}


def model(folder: Path, id: str, **changes: torch.Tensor | None) -> Checkpoint:
    """`COMMON` with some tensors replaced, added or (None) left out."""
    tensors = {name: tensor for name, tensor in (COMMON | changes).items() if tensor is not None}
    save_file(tensors, folder / f"{id}.safetensors")
    return open_checkpoint(folder / f"{id}.safetensors", id=id)


def test_equal_models_are_compared_whole(tmp_path: Path) -> None:
    found = align(model(tmp_path, "base"), [model(tmp_path, "one"), model(tmp_path, "two")])
    assert found.names == ("embed", "layer", "norm")
    assert found.left_out == {}


def test_missing_tensors_are_reported_with_who_lacks_them(tmp_path: Path) -> None:
    base = model(tmp_path, "base", extra=torch.zeros(2))
    found = align(base, [model(tmp_path, "one", norm=None), model(tmp_path, "two", extra=torch.zeros(2))])
    assert found.names == ("embed", "layer")
    assert found.left_out == {"extra": "missing from one", "norm": "missing from one"}


def test_tensor_that_only_a_model_has_is_reported(tmp_path: Path) -> None:
    found = align(model(tmp_path, "base"), [model(tmp_path, "one", head=torch.zeros(5, 4)), model(tmp_path, "two")])
    assert found.left_out == {"head": "missing from base, two"}


def test_resized_vocabulary_is_left_out(tmp_path: Path) -> None:
    found = align(model(tmp_path, "base"), [model(tmp_path, "one"), model(tmp_path, "two", embed=torch.zeros(7, 4))])
    assert found.names == ("layer", "norm")
    assert found.left_out == {"embed": "7 rows in two, 5 in base"}


@pytest.mark.parametrize(
    "changes",
    [
        {"layer": torch.zeros(4, 6)},
        {"norm": torch.zeros(5)},
        {"layer": torch.zeros(16)},
        {"layer": torch.zeros(1, 4, 4)},
    ],
)
def test_any_other_shape_is_refused(tmp_path: Path, changes: Tensors) -> None:
    (name, tensor), *_ = changes.items()
    base, odd = model(tmp_path, "base"), model(tmp_path, "odd", **changes)
    with pytest.raises(MismatchedModels) as refusal:
        align(base, [model(tmp_path, "fine"), odd])
    for part in (repr(name), "odd", "base", str(list(tensor.shape)), str(list(COMMON[name].shape))):
        assert part in refusal.value.message


def test_nothing_in_common_is_refused(tmp_path: Path) -> None:
    other = model(tmp_path, "other", embed=None, layer=None, norm=None, wholly=torch.zeros(3))
    with pytest.raises(MismatchedModels, match="no tensor in common that can be compared; embed is missing from other"):
        align(model(tmp_path, "base"), [other])


def test_integers_and_empty_tensors_are_left_out(tmp_path: Path) -> None:
    more = {"ids": torch.arange(6), "mask": torch.ones(3, dtype=torch.bool), "void": torch.zeros(0, 4)}
    found = align(model(tmp_path, "base", **more), [model(tmp_path, "one", **more)])
    assert found.names == ("embed", "layer", "norm")
    assert found.left_out == {"ids": "not floating point", "mask": "not floating point", "void": "empty"}


def test_floating_dtypes_may_be_mixed(tmp_path: Path) -> None:
    halves = {name: tensor.bfloat16() for name, tensor in COMMON.items()}
    assert align(model(tmp_path, "base"), [model(tmp_path, "half", **halves)]).left_out == {}


def test_merging_needs_the_same_tensors(tmp_path: Path) -> None:
    base, same = model(tmp_path, "base"), model(tmp_path, "same")
    require_same_tensors(base, [same])
    with pytest.raises(MismatchedModels, match="base has the tensor 'norm', less has not"):
        require_same_tensors(base, [same, model(tmp_path, "less", norm=None)])
    with pytest.raises(MismatchedModels, match="more has the tensor 'head', base has not"):
        require_same_tensors(base, [model(tmp_path, "more", head=torch.zeros(2))])
    with pytest.raises(MismatchedModels, match=r"'embed' has shape \[7, 4\] in grown, but \[5, 4\] in base"):
        require_same_tensors(base, [model(tmp_path, "grown", embed=torch.zeros(7, 4))])
    with pytest.raises(MismatchedModels, match="'embed' is int32 in codes, but float32 in base"):
        require_same_tensors(base, [model(tmp_path, "codes", embed=torch.zeros(5, 4, dtype=torch.int32))])
