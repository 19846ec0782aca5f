"""Statistics written and read again."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from kinship.errors import InputsChanged, InvalidConfig, MalformedCheckpoint, OutputExists, ReferenceNotFound
from merging.data_driven.statistics import Statistics, load_statistics


def some() -> Statistics:
    tensors = {"b.weight": torch.rand(3, 2), "a.weight": torch.rand(4, 4, dtype=torch.float64).T}
    return Statistics("fisher", tensors, {"labels": "sampled", "seed": "3"}, "model digest", "data digest")


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    written, path = some(), tmp_path / "new" / "fisher.safetensors"
    written.save(path)
    found = load_statistics(path)
    assert list(found) == ["a.weight", "b.weight"]
    assert len(found) == 2
    assert "c.weight" not in found
    for name, tensor in written.items():
        assert torch.equal(found[name], tensor)
        assert found[name].dtype == tensor.dtype
    assert (found.kind, found.model, found.data) == ("fisher", "model digest", "data digest")
    assert found.settings == {"labels": "sampled", "seed": "3"}


def test_the_file_can_be_read_by_whoever_can_read_others(tmp_path: Path) -> None:
    some().save(tmp_path / "fisher.safetensors")
    (tmp_path / "other").touch()
    assert (tmp_path / "fisher.safetensors").stat().st_mode == (tmp_path / "other").stat().st_mode
    assert sorted(file.name for file in tmp_path.iterdir()) == ["fisher.safetensors", "other"]


def test_nothing_is_replaced_unless_asked(tmp_path: Path) -> None:
    path = tmp_path / "fisher.safetensors"
    some().save(path)
    with pytest.raises(OutputExists):
        some().save(path)
    some().about("another", "").save(path, force=True)
    assert load_statistics(path).model == "another"


def test_what_is_no_file_of_statistics_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ReferenceNotFound, match="nothing"):
        load_statistics(tmp_path / "nothing")
    (tmp_path / "text").write_text("not a header")
    with pytest.raises(MalformedCheckpoint, match="text"):
        load_statistics(tmp_path / "text")
    save_file({"weight": torch.zeros(2)}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InvalidConfig, match="no statistics"):
        load_statistics(tmp_path / "model.safetensors")


@pytest.mark.parametrize("change", [{"version": "2"}, {"kind": "hessian"}, {"settings": 3}, {"unknown": ""}, None])
def test_what_another_version_wrote_is_refused(tmp_path: Path, change: dict[str, object] | None) -> None:
    fine = {"version": "1", "kind": "fisher", "model": "", "data": "", "settings": {}}
    path = tmp_path / "file.safetensors"
    save_file({"weight": torch.zeros(2)}, path, metadata={"statistics": json.dumps(fine)})
    assert load_statistics(path).kind == "fisher"
    header = "{" if change is None else json.dumps(fine | change)
    save_file({"weight": torch.zeros(2)}, path, metadata={"statistics": header})
    with pytest.raises(InvalidConfig, match="cannot be understood"):
        load_statistics(path)


def test_a_file_that_is_cut_short_meanwhile_is_an_error_and_not_the_end(tmp_path: Path) -> None:
    path = tmp_path / "statistics.safetensors"
    Statistics("fisher", {"w": torch.ones(50_000)}, {}, "model", "data").save(path)
    found = load_statistics(path)
    os.truncate(path, 1000)
    with pytest.raises(InputsChanged, match="has 1000"):
        found["w"]
