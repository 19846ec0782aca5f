from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from kinship.checkpoints.dtypes import BY_NAME
from kinship.checkpoints.header import read_header
from merging.output.writer import SafetensorsFile, ShardWriter, file_bytes, sha256, shards_of
from merging.planning.graph import Spec

TENSORS = {
    "flags": torch.tensor([True, False, True]),
    "half": torch.arange(5).bfloat16(),
    "wide": torch.arange(7, dtype=torch.float64),
    "none": torch.empty(0, 4),
    "plain": torch.arange(6.0).reshape(2, 3),
    "scalar": torch.tensor(3, dtype=torch.int64),
}


def specs_of(tensors: dict[str, torch.Tensor]) -> list[Spec]:
    return [
        Spec(name, BY_NAME[str(tensor.dtype).removeprefix("torch.")], tuple(tensor.shape))
        for name, tensor in tensors.items()
    ]


def stored(tensor: torch.Tensor) -> np.ndarray:
    return tensor.reshape(-1).view(torch.uint8).numpy()


@pytest.mark.parametrize("shard_bytes", [1, 60, 10**6])
@pytest.mark.parametrize("step", [1, 8, 1000])
@pytest.mark.parametrize("backwards", [False, True])
def test_what_is_written_is_read(tmp_path: Path, shard_bytes: int, step: int, backwards: bool) -> None:
    specs = specs_of(TENSORS)
    with ShardWriter(tmp_path, specs, shard_bytes) as writer:
        for name, tensor in list(TENSORS.items())[:: -1 if backwards else 1]:
            data = stored(tensor)
            for start in range(0, len(data), step):
                writer.write(name, start, data[start : start + step])
    found: dict[str, torch.Tensor] = {}
    for file in tmp_path.glob("*.safetensors"):
        assert writer.sums[file.name] == sha256(file)
        found |= load_file(file)
        for entry in read_header(file).values():
            assert entry.offset % entry.dtype.itemsize == 0
        with safe_open(file, "pt") as opened:
            assert opened.metadata() == {"format": "pt"}
    assert found.keys() == TENSORS.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in TENSORS.items())
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) == file_bytes(specs, shard_bytes)


def test_shards_are_filled_in_order() -> None:
    specs = [Spec(str(index), BY_NAME["uint8"], (size,)) for index, size in enumerate([4, 4, 9, 1, 1, 8])]
    assert [[spec.nbytes for spec in shard] for shard in shards_of(specs, 8)] == [[4, 4], [9], [1, 1], [8]]


def test_missing_bytes_are_a_bug_that_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="never written"), ShardWriter(tmp_path, specs_of(TENSORS)) as writer:
        writer.write("half", 0, stored(TENSORS["half"]))


def test_a_single_file_may_go_without_its_hash(tmp_path: Path) -> None:
    file = SafetensorsFile(tmp_path / "child.safetensors", specs_of(TENSORS), hashed=False)
    for name, tensor in TENSORS.items():
        file.write(name, 0, stored(tensor))
    assert file.finish() == file.finish() == ""
    found = load_file(tmp_path / "child.safetensors")
    assert all(torch.equal(found[name], tensor) for name, tensor in TENSORS.items())
