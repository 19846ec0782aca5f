import json
import os
import pickle
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from kinship import kinship_matrix, open_checkpoint
from kinship.checkpoints.checkpoint import Checkpoint
from kinship.checkpoints.opening import PICKLE_INDEX_NAME
from kinship.errors import KinshipError, MalformedCheckpoint, UnsupportedCheckpoint
from kinship.measures.comparison import ComparisonOptions
from tests.conftest import MakeModel
from tests.kinship.adapters import Q0, factors, write

Tensors = dict[str, torch.Tensor]


@pytest.fixture
def folder(make_model: MakeModel) -> Path:
    return make_model("model")


@pytest.fixture
def tensors(folder: Path) -> Tensors:
    return load_file(folder / "model.safetensors")


def opened(path: Path) -> Checkpoint:
    return open_checkpoint(path, allow_pickle=True)


def refusal(path: Path, **options: bool) -> KinshipError:
    with pytest.raises(KinshipError) as found:
        open_checkpoint(path, **options)  # type: ignore[arg-type]
    assert found.value.hint
    return found.value


class Evil:
    """Runs a command where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch '{self.mark}'",)


SHAPES: list[Callable[[Tensors], Any]] = [
    lambda tensors: tensors,
    OrderedDict,
    lambda tensors: {"state_dict": tensors, "epoch": 3, "loss": torch.tensor(0.5)},
    lambda tensors: {"model": tensors, "optimizer": {"state": {}}},
    lambda tensors: {"model_state_dict": tensors},
    lambda tensors: {name: torch.nn.Parameter(tensor) for name, tensor in tensors.items()},
    lambda tensors: tensors | {"config": "text", "step": 4},
]


@pytest.mark.parametrize("wrap", SHAPES, ids=range(len(SHAPES)))
@pytest.mark.parametrize("suffix", [".bin", ".pt", ".pth"])
@pytest.mark.parametrize("archive", [True, False])
def test_state_dicts_are_read_as_safetensors_are(
    folder: Path, tensors: Tensors, tmp_path: Path, wrap: Callable[[Tensors], Any], suffix: str, archive: bool
) -> None:
    file = tmp_path / f"weights{suffix}"
    torch.save(wrap(tensors), file, _use_new_zipfile_serialization=archive)
    with opened(file) as found, opened(folder) as wanted:
        assert found.digest == wanted.digest
        assert {name: entry.shape for name, entry in found.tensors.items()} == {
            name: tuple(tensor.shape) for name, tensor in tensors.items()
        }


def test_every_dtype_and_layout_is_read(tmp_path: Path) -> None:
    whole = torch.arange(24.0).reshape(4, 6)
    tensors = {str(dtype): whole.to(dtype) for dtype in (torch.float64, torch.float16, torch.bfloat16, torch.int64)}
    tensors |= {"turned": whole.T, "part": whole[1:3, ::2], "scalar": torch.tensor(3.0), "none": torch.zeros(0, 4)}
    tensors |= {
        "fp8": whole.to(torch.float8_e4m3fn),
        "bool": whole > 3,
        "minus": torch.full((3,), 2j).conj().imag,
        "one": torch.ones(6)[::2][:1],
    }
    torch.save(tensors, tmp_path / "weights.pt")
    with opened(tmp_path / "weights.pt") as found:
        for name, tensor in tensors.items():
            assert found.tensors[name].dtype.torch == tensor.dtype
            assert torch.equal(found.tensor(name).double(), tensor.double())
        assert torch.equal(found.read("turned", 5, 7), whole.T.flatten()[5:12])


def test_folders_of_pickles_with_and_without_an_index(folder: Path, tensors: Tensors) -> None:
    wanted = opened(folder).digest
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    assert opened(folder).digest == wanted
    assert opened(folder).config["model_type"] == "llama"
    (folder / "pytorch_model.bin").unlink()
    files = {"pytorch_model-00001-of-00002.bin": sorted(tensors)[::2], "second.bin": sorted(tensors)[1::2]}
    for file, names in files.items():
        torch.save({name: tensors[name].clone() for name in names}, folder / file)
    weight_map = {name: file for file, names in files.items() for name in names}
    (folder / PICKLE_INDEX_NAME).write_text(json.dumps({"weight_map": weight_map}))
    assert opened(folder).digest == wanted
    (folder / "second.bin").unlink()
    assert "second.bin" in refusal(folder, allow_pickle=True).message


def test_safetensors_win_over_pickles(folder: Path, tmp_path: Path) -> None:
    torch.save(Evil(tmp_path / "ran"), folder / "pytorch_model.bin")
    assert len(opened(folder).tensors) == 6


def test_kinship_and_adapters_on_pickles(make_model: MakeModel, tmp_path: Path) -> None:
    base = make_model("base")
    models = [make_model(name, seed, base) for seed, name in enumerate("ab", 1)]
    adapter = write(tmp_path / "adapter", factors(base, {Q0: 2}))
    pickled = []
    for path in (base, *models):
        pickled.append(tmp_path / f"{path.name}.pt")
        torch.save(load_file(path / "model.safetensors"), pickled[-1])
    for metric in ("pcc", "euclidean"):
        wanted = kinship_matrix([*models, f"{models[0]}+{adapter}"], base, metric)
        found = kinship_matrix(
            [*pickled[1:], f"{pickled[1]}+{adapter}"], pickled[0], metric, options=ComparisonOptions(allow_pickle=True)
        )
        np.testing.assert_array_equal(found.values, wanted.values)


def test_without_the_flag_nothing_is_loaded_and_the_flag_is_named(folder: Path, tensors: Tensors) -> None:
    (folder / "model.safetensors").unlink()
    for name in ("weights.pt", "weights.pth", "pytorch_model.bin"):
        torch.save(tensors, folder / name)
        error = refusal(folder / name)
        assert isinstance(error, UnsupportedCheckpoint)
        assert "--allow-pickle" in error.hint
    assert "--allow-pickle" in refusal(folder).hint


@pytest.mark.parametrize("archive", [True, False])
@pytest.mark.parametrize("place", ["whole", "value", "beside"])
def test_a_malicious_pickle_does_not_run(tmp_path: Path, tensors: Tensors, archive: bool, place: str) -> None:
    evil = Evil(tmp_path / "ran")
    content = {"whole": evil, "value": {"a": evil}, "beside": {"state_dict": tensors, "extra": [evil]}}[place]
    torch.save(content, tmp_path / "evil.bin", _use_new_zipfile_serialization=archive)
    error = refusal(tmp_path / "evil.bin", allow_pickle=True)
    assert isinstance(error, UnsupportedCheckpoint)
    assert "evil.bin" in error.message
    assert not (tmp_path / "ran").exists()
    torch.load(tmp_path / "evil.bin", weights_only=False)  # it would have run
    assert (tmp_path / "ran").exists()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_malicious_plain_pickle_does_not_run(tmp_path: Path) -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        (tmp_path / "evil.bin").write_bytes(pickle.dumps(Evil(tmp_path / "ran"), protocol))
        refusal(tmp_path / "evil.bin", allow_pickle=True)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "content",
    [
        torch.zeros(3),
        [torch.zeros(3)],
        {},
        {"model": {}},
        {"a": 1},
        {3: torch.zeros(3)},
        {"a": torch.zeros(3).to_sparse()},
        {"a": torch.zeros(1).expand(10**12)},
        {"a": torch.zeros(3, dtype=torch.complex64)},
        {"a": torch.zeros(3, device="meta")},
        {"a.qweight": torch.zeros(3, dtype=torch.int32)},
    ],
    ids=str,
)
def test_what_is_no_state_dict_of_weights_is_refused(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "other.pt")
    error = refusal(tmp_path / "other.pt", allow_pickle=True)
    assert isinstance(error, UnsupportedCheckpoint)
    assert "other.pt" in error.message


def test_a_file_cut_anywhere_is_told_and_nothing_else(tmp_path: Path, tensors: Tensors) -> None:
    file = tmp_path / "model.pt"
    for archive in (True, False):
        torch.save(tensors, file, _use_new_zipfile_serialization=archive)
        whole = file.read_bytes()
        for share in range(20):
            file.write_bytes(whole[: share * len(whole) // 20])
            with warnings.catch_warnings(action="error"):
                assert str(file) in refusal(file, allow_pickle=True).message
    file.write_bytes(pickle.dumps({"weight": 5}, protocol=4))  # torch warns of the protocol
    with warnings.catch_warnings(action="error"):
        assert str(file) in refusal(file, allow_pickle=True).message


def test_damaged_and_compressed_files_are_refused(tmp_path: Path, tensors: Tensors) -> None:
    whole, damaged = tmp_path / "whole.pt", tmp_path / "damaged.pt"
    torch.save(tensors, whole)
    content = whole.read_bytes()
    for broken in (b"", b"no pickle at all", content[:100], content[: len(content) // 2], content[:-30]):
        damaged.write_bytes(broken)
        refusal(damaged, allow_pickle=True)
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(damaged, "w", zipfile.ZIP_DEFLATED) as target:
        for info in source.infolist():
            target.writestr(info.filename, source.read(info))
    assert isinstance(refusal(damaged, allow_pickle=True), MalformedCheckpoint)


def test_a_tensor_in_two_shards_is_refused(folder: Path, tensors: Tensors) -> None:
    (folder / "model.safetensors").unlink()
    names = ["one.bin", "two.bin"]
    for name in names:
        torch.save(tensors, folder / name)
    (folder / PICKLE_INDEX_NAME).write_text(json.dumps({"weight_map": dict(zip("ab", names, strict=True))}))
    assert "two files" in refusal(folder, allow_pickle=True).message
